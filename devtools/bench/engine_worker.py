"""The engine without a server, in its own process: one JSON task a line on stdin, one JSON result a line on stdout.

A task is `{"task": NAME, ARGUMENT: VALUE, …}`, its result has `took_s` where time is measured, or `failure`. Whatever
libraries print goes to stderr. The bench runs an earlier revision's own worker, which fits that revision's modules; so
the arguments and results of `load` and `recognize` never change.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devtools.bench.measurement import Failed
from devtools.bench.system import OURS, System

_BUFFER_BYTES = 1 << 30  # far more than any cache holds
_READS = 7
KERNELS = {  # and the C functions by which they are recognised
    "rowwise": {"norm", "gate"},
    "decode attention": {"attend"},
    "GEMV": {"multiply_halves", "multiply_bytes"},
    "prefill attention": {"attend_to_prompts"},
}
ONEDNN_ONLY = "GEMV and FBGEMM in int8"
AS_SERVED = {  # as in run.sh
    "GOMP_SPINCOUNT": "20000",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}


class Worker:
    """The parent's side: `with Worker() as worker: worker.run("load", model=…)`."""

    def __init__(self, system: System = OURS, *, as_served: bool = True) -> None:
        """`as_served`: with run.sh's environment. Raises Failed where `system` has no worker."""
        if not system.worker:
            raise Failed(f"{system.name} has no process for the engine alone")
        self._process = subprocess.Popen(
            system.worker,
            cwd=system.folder,
            env={**(AS_SERVED if as_served else {}), **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # like the servers: Linux divides a busy processor by sessions
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

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
        self._recognizers: list[Any] = []
        self._aligners: list[Any] = []
        self._package: Any = None
        self._waveforms: dict[str, Any] = {}

    def switch_off(self, kernels: Sequence[str]) -> dict[str, Any]:
        """Models that are loaded from now on compute without these: some of KERNELS, ONEDNN_ONLY, or "all" KERNELS."""
        from backend.engine import compiled, int8, native, products, prompts
        from backend.engine.kernels import TORCH

        if kernels and native.library is None:
            raise RuntimeError("install.sh found no C compiler, so there are no kernels to switch off")
        for kernel in kernels:
            match kernel:
                case "all":
                    native.library = None
                case "rowwise":
                    _replace(compiled.COMPILED, "normed", TORCH.normed)
                    _replace(compiled.COMPILED, "gated", TORCH.gated)
                case "decode attention":
                    _replace(compiled.COMPILED, "tokens", TORCH.tokens)
                case "GEMV":
                    _replace_everywhere(products.can_multiply, lambda *_: False)
                case "prefill attention":
                    _replace_everywhere(prompts.can_attend, lambda *_: False)
                case _ if kernel == ONEDNN_ONLY:  # BySweeping multiplies more rows than this by oneDNN
                    _replace(int8, "MOST_SWEPT", 0)
                    _replace(int8, "can_multiply", lambda *_: True)
                case _:
                    raise ValueError(f"there is no kernel {kernel}")
        return {}

    def used_kernels(self, audio: str) -> dict[str, Any]:
        """Those of KERNELS that the last loaded recogniser calls."""
        from backend.engine import native

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
        from backend.engine.loading import CheckpointLoader

        loader = CheckpointLoader()
        self._recognizers.append(loader.load_recognizer(options))
        if aligner:
            self._aligners.append(loader.load_aligner(options))
        return {"took_s": time.monotonic() - began, "weight_bytes": self._recognizers[-1].weight_bytes}

    def recognize(self, audio: str, tokens: int, rows: int = 1) -> dict[str, Any]:
        """The last loaded recogniser on a batch of `rows` copies of a recording, each with at most `tokens` tokens."""
        from backend.engine.recognizer import Utterance

        utterances = [Utterance(self._samples(audio), None, "", tokens)] * rows
        began = time.monotonic()
        found = self._recognizers[-1].recognize(utterances)
        return {"took_s": time.monotonic() - began, "text": found[0].text, "finished": found[0].finished}

    def align(self, audio: str, text: str) -> dict[str, Any]:
        from backend.engine.recognizer import Passage

        passage = Passage(self._samples(audio), text, "en")
        began = time.monotonic()
        units = self._aligners[-1].align([passage])
        return {"took_s": time.monotonic() - began, "units": len(units[0])}

    def load_package_aligner(self, aligner: str) -> dict[str, Any]:
        from qwen_asr import Qwen3ForcedAligner

        from devtools.bench.baseline_server import placement

        began = time.monotonic()
        self._package = Qwen3ForcedAligner.from_pretrained(aligner, **placement())
        return {"took_s": time.monotonic() - began}

    def align_by_package(self, audio: str, text: str) -> dict[str, Any]:
        samples = self._samples(audio)
        began = time.monotonic()
        (units,) = self._package.align(audio=[(samples, 16_000)], text=[text], language=["English"])
        return {"took_s": time.monotonic() - began, "units": len(units)}

    def read_memory(self) -> dict[str, Any]:
        """The fastest of some sums over a gibibyte, with torch's threads; of a GPU's memory where there is one."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        buffer = torch.ones(_BUFFER_BYTES // 4, dtype=torch.float32, device=device)
        fastest_s = float("inf")
        for _ in range(_READS):
            began = time.monotonic()
            buffer.sum().item()
            fastest_s = min(fastest_s, time.monotonic() - began)
        return {"took_s": fastest_s, "bytes_per_s": _BUFFER_BYTES / fastest_s}

    def _samples(self, audio: str) -> Any:
        if audio not in self._waveforms:
            from backend.audio.decode import decode

            self._waveforms[audio] = decode(audio, max_seconds=3600.0).samples
        return self._waveforms[audio]


class _Recorder:
    """A library that remembers which of its functions were called."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self._library, name)


def _replace_everywhere(function: object, by: object) -> None:
    """In every module of the backend that has imported it."""
    import backend.engine.loading  # noqa: F401 - imports all of them

    for module in [module for name, module in sys.modules.items() if name.startswith("backend.")]:
        for name, value in list(vars(module).items()):
            if value is function:
                setattr(module, name, by)


def _replace(owner: object, name: str, value: object) -> None:
    """Raises AttributeError where there is nothing of this name to replace."""
    getattr(owner, name)
    setattr(owner, name, value)


def main() -> int:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = Engine()
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            result = getattr(engine, arguments.pop("task"))(**arguments)
        except Exception as error:  # noqa: BLE001 - anything may fail; the cause goes into the table, the next task may work
            result = {"failure": f"{type(error).__name__}: {error}"}
        results.write(json.dumps(result) + "\n")
        results.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
