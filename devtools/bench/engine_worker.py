"""The engine without a server, in its own process: one JSON task a line on stdin, one JSON result a line on stdout.

A task is `{"task": NAME, ARGUMENT: VALUE, …}`, its result has `took_s` where time is measured, or `failure`. Whatever
libraries print goes to stderr. The bench runs an earlier revision's own worker, which fits that revision's modules; so
the arguments and results of `load` and `recognize` never change.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devtools.bench.measurement import Failed
from devtools.bench.system import OURS, System, environment_of_run_sh

_BUFFER_BYTES = 1 << 30  # far more than any cache holds
KERNELS = {  # and the C functions by which they are recognised
    "rowwise": {"rms_norm", "silu_mul"},
    "decode attention": {"decode_attention"},
    "GEMV": {"gemv_bf16", "gemv_int8"},
    "prefill attention": {"prefill_attention"},
}
ONEDNN_ONLY = "GEMV and FBGEMM in int8"


class Worker:
    """The parent's side: `with Worker() as worker: worker.run("load", model=…)`."""

    def __init__(self, system: System = OURS, *, as_served: bool = True) -> None:
        """`as_served`: with the environment of run.sh. Raises Failed where `system` has no worker."""
        if not system.worker:
            raise Failed(f"{system.name} has no process for the engine alone")
        served = environment_of_run_sh(system.folder) if as_served else {}
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(
            system.worker, cwd=system.folder, env={**served, **os.environ}, stdin=pipe, stdout=pipe, stderr=quiet,
            text=True, start_new_session=True,  # like the servers: Linux divides a busy processor by sessions
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, task: str, **arguments: Any) -> dict[str, Any]:
        """The result of one task. Raises Failed with its cause."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; readline returns ""
            self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        result: dict[str, Any] = json.loads(line) if line else {"failure": f"the process ended in {task!r}"}
        if "failure" in result:
            raise Failed(result["failure"])
        return result

    def seconds(self, task: str, **arguments: Any) -> float:
        return float(self.run(task, **arguments)["took_s"])

    def load(self, model: Path, system: System, aligner: Path | None = None) -> float:
        """Seconds. In the number format of `system`."""
        named = {"model": str(model), "aligner": str(aligner or "")}
        return self.seconds("load", **named, dtype=system.dtype, quantization=system.quantization)


class Engine:
    """The child's side: a method for each task. `took_s` leaves preparation out."""

    def __init__(self) -> None:
        self._recognizer: Any = None
        self._aligner: Any = None
        self._loaded: list[Any] = []
        self._package: Any = None

    def switch_off(self, kernels: Sequence[str]) -> dict[str, Any]:
        """Models that are loaded from now on compute without these: some of KERNELS, ONEDNN_ONLY, or "all" KERNELS."""
        from backend.engine.model import windowed_attention
        from backend.engine.ops import int8, linear, native, native_ops
        from backend.engine.ops.native_ops import NATIVE
        from backend.engine.ops.torch_ops import TORCH

        def never(*_: Any) -> bool:
            return False

        replaced: dict[str, list[tuple[Any, str, Any]]] = {
            "all": [(native, "library", None)],
            "rowwise": [(NATIVE, "rms_norm", TORCH.rms_norm), (NATIVE, "silu_mul", TORCH.silu_mul)],
            "decode attention": [(NATIVE, "decode_attention", TORCH.decode_attention)],
            "GEMV": [(linear, "can_gemv", never), (int8, "can_gemv", never)],
            "prefill attention": [(native_ops, "can_attend", never), (windowed_attention, "can_attend", never)],
            # StreamedInt8 multiplies more rows than MAX_GEMV_ROWS by oneDNN
            ONEDNN_ONLY: [(int8, "can_gemv", lambda *_: True), (int8, "MAX_GEMV_ROWS", 0)],
        }
        if kernels and native.library is None:
            raise RuntimeError("install.sh found no C compiler, so there are no kernels to switch off")
        for owner, name, value in (each for kernel in kernels for each in replaced[kernel]):
            getattr(owner, name)  # raises where there is nothing of this name
            setattr(owner, name, value)
        return {}

    def used_kernels(self, audio: str) -> dict[str, Any]:
        """Those of KERNELS that the last loaded recogniser calls."""
        from backend.engine.ops import native

        library, native.library = native.library, _Recorder(native.library)
        self.recognize(audio, 8)
        called, native.library = native.library.called, library
        return {"kernels": [kernel for kernel, functions in KERNELS.items() if functions & called]}

    def load(self, model: str, aligner: str = "", dtype: str = "", quantization: str = "") -> dict[str, Any]:
        """A recogniser, and an aligner where one is named, in addition to those already loaded."""
        from backend.wire import backend_pb2 as pb
        from backend.wire.messages import load_options

        named = [f"forced_aligner:{aligner}"] if aligner else []
        options = load_options(pb.ModelOptions(Model=model, DType=dtype, Quantization=quantization, Options=named))
        began = time.monotonic()
        from backend.engine.loader import CheckpointLoader

        self._recognizer = CheckpointLoader().load_recognizer(options)
        self._aligner = CheckpointLoader().load_aligner(options) if aligner else None
        self._loaded += [self._recognizer, self._aligner]
        return {"took_s": time.monotonic() - began, "weight_bytes": self._recognizer.weight_bytes}

    def recognize(self, audio: str, tokens: int, rows: int = 1) -> dict[str, Any]:
        """The last loaded recogniser on a batch of `rows` copies of a recording, each with at most `tokens` tokens."""
        from backend.serving.protocols import Utterance

        utterances = [Utterance(_samples(audio), None, "", tokens)] * rows
        began = time.monotonic()
        found = self._recognizer.recognize(utterances)
        return {"took_s": time.monotonic() - began, "text": found[0].text, "finished": found[0].finished}

    def align(self, audio: str, text: str) -> dict[str, Any]:
        from backend.serving.protocols import Passage

        passage = Passage(_samples(audio), text, "en")
        began = time.monotonic()
        units = self._aligner.align([passage])
        return {"took_s": time.monotonic() - began, "units": len(units[0])}

    def load_package_aligner(self, aligner: str) -> dict[str, Any]:
        from qwen_asr import Qwen3ForcedAligner

        from devtools.bench.baseline_server import placement

        self._package = Qwen3ForcedAligner.from_pretrained(aligner, **placement())
        return {}

    def align_by_package(self, audio: str, text: str) -> dict[str, Any]:
        samples = _samples(audio)
        began = time.monotonic()
        (units,) = self._package.align(audio=[(samples, 16_000)], text=[text], language=["English"])
        return {"took_s": time.monotonic() - began, "units": len(units)}

    def read_memory(self) -> dict[str, Any]:
        """The fastest of some sums over a gibibyte, with torch's threads; of a GPU's memory where there is one."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        buffer = torch.ones(_BUFFER_BYTES // 4, dtype=torch.float32, device=device)
        times_s = []
        for _ in range(7):
            began = time.monotonic()
            buffer.sum().item()
            times_s.append(time.monotonic() - began)
        return {"took_s": min(times_s), "bytes_per_s": _BUFFER_BYTES / min(times_s)}


class _Recorder:
    """A library that remembers which of its functions were called."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self._library, name)


@functools.cache
def _samples(audio: str) -> Any:
    from backend.audio.decoding.decode import decode

    return decode(audio, max_seconds=3600.0).samples


def main() -> None:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = Engine()
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            result = getattr(engine, arguments.pop("task"))(**arguments)
        except Exception as error:  # noqa: BLE001 - anything may fail; the cause goes into the table
            result = {"failure": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), file=results, flush=True)


if __name__ == "__main__":
    main()
