"""The engine without a server, in a process of its own: one JSON request a line on stdin.

For what cannot be seen from outside: the model's own time for a clip, the step of the decoder, the aligner alone, the
speed of the memory. Each request names a task and its arguments; the answer is a JSON object, with `took_s` where the
task takes time, or one with `failure`. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from devtools.bench.child import OURS, Failed, System

_BUFFER_BYTES = 1 << 30  # far more than any cache holds
_READINGS = 7
AS_SERVED = {  # as run.sh has it: who spins longer takes a core from whoever comes next
    "GOMP_SPINCOUNT": "20000",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}


class Inside:
    """The parent's side: `with Inside() as inside: inside.do("load", model=…)`."""

    def __init__(self, system: System = OURS, *, as_served: bool = True) -> None:
        """`as_served`: with the environment that run.sh gives to ours. Raises Failed where `system` has none.

        Another revision's is its own program, which fits its own modules; the tasks `load` and `recognize` are
        therefore the same in all revisions.
        """
        if not system.engine:
            raise Failed(f"{system.name} has no process for the engine alone")
        self._process = subprocess.Popen(
            system.engine,
            cwd=system.folder,
            env={**(AS_SERVED if as_served else {}), **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # as the servers: Linux shares a busy processor out by sessions
        )

    def __enter__(self) -> Inside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one task. Raises Failed with its cause."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and has no answer
            self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"failure": f"the process ended in {task!r}"}
        if "failure" in answer:
            raise Failed(answer["failure"])
        return answer


class Engine:
    """The child's side: a method for each task. Times are of the task's own work, without its preparation."""

    def __init__(self) -> None:
        self._recognizers: list[Any] = []
        self._aligners: list[Any] = []
        self._package: Any = None
        self._waveforms: dict[str, Any] = {}

    def without_compiled(self) -> dict[str, Any]:
        """What is loaded from now on computes as where install.sh finds no compiler."""
        from backend.engine import native

        if native.library is None:
            raise RuntimeError("install.sh found no C compiler, so there is nothing to do without")
        native.library = None
        return {}

    def load(self, model: str, aligner: str = "", dtype: str = "", quantization: str = "") -> dict[str, Any]:
        """A recogniser, and an aligner where one is named, beside those that were loaded before."""
        from backend.wire import backend_pb2 as pb
        from backend.wire.messages import load_options

        named = [f"forced_aligner:{aligner}"] if aligner else []
        options = load_options(pb.ModelOptions(Model=model, DType=dtype, Quantization=quantization, Options=named))
        began = time.monotonic()
        from backend.engine.loading import CheckpointLoader

        loader = CheckpointLoader()
        self._recognizers.append(loader.load_recognizer(options))
        if aligner:
            self._aligners.append(loader.load_aligner(options))
        return {"took_s": time.monotonic() - began, "weight_bytes": self._recognizers[-1].weight_bytes}

    def recognize(self, audio: str, tokens: int, rows: int = 1) -> dict[str, Any]:
        """The last loaded recogniser on so many copies of a recording, of which none may say more than `tokens`."""
        from backend.engine.recognizer import Utterance

        utterances = [Utterance(self._samples(audio), None, "", tokens)] * rows
        began = time.monotonic()
        heard = self._recognizers[-1].recognize(utterances)
        return {"took_s": time.monotonic() - began, "text": heard[0].text, "finished": heard[0].finished}

    def align(self, audio: str, text: str) -> dict[str, Any]:
        from backend.engine.recognizer import Passage

        passage = Passage(self._samples(audio), text, "en")
        began = time.monotonic()
        units = self._aligners[-1].align([passage])
        return {"took_s": time.monotonic() - began, "units": len(units[0])}

    def load_package_aligner(self, aligner: str) -> dict[str, Any]:
        import torch
        from qwen_asr import Qwen3ForcedAligner

        where: dict[str, Any] = {"dtype": torch.float32}
        if torch.cuda.is_available():
            where = {"dtype": torch.bfloat16, "device_map": "cuda:0"}
        began = time.monotonic()
        self._package = Qwen3ForcedAligner.from_pretrained(aligner, **where)
        return {"took_s": time.monotonic() - began}

    def align_by_package(self, audio: str, text: str) -> dict[str, Any]:
        samples = self._samples(audio)
        began = time.monotonic()
        (units,) = self._package.align(audio=[(samples, 16_000)], text=[text], language=["English"])
        return {"took_s": time.monotonic() - began, "units": len(units)}

    def read_memory(self) -> dict[str, Any]:
        """The fastest of some sums over a gibibyte, with the threads that models have; a GPU's where there is one."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        buffer = torch.ones(_BUFFER_BYTES // 4, dtype=torch.float32, device=device)
        fastest_s = float("inf")
        for _ in range(_READINGS):
            began = time.monotonic()
            buffer.sum().item()
            fastest_s = min(fastest_s, time.monotonic() - began)
        return {"took_s": fastest_s, "bytes_per_s": _BUFFER_BYTES / fastest_s}

    def _samples(self, audio: str) -> Any:
        if audio not in self._waveforms:
            from backend.audio.decode import decode

            self._waveforms[audio] = decode(audio, max_seconds=3600.0).samples
        return self._waveforms[audio]


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = Engine()
    for line in sys.stdin:
        asked = json.loads(line)
        task: Callable[..., dict[str, Any]] = getattr(engine, asked.pop("task"))
        try:
            answer = task(**asked)
        except Exception as error:  # noqa: BLE001 - the cause goes into the table, and the next task may well succeed
            answer = {"failure": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
