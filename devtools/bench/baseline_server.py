"""The package as a server of the same wire: `python -m devtools.bench.baseline_server --addr HOST:PORT`.

What a backend around the package usually looks like: the package is imported first, then the port is opened; threads
serve; LoadModel loads recogniser and aligner; one lock around `transcribe` admits one request at a time; fp32 on a CPU;
the package's defaults, but for the tokens that end an answer (devtools/eval/baseline.py).
"""

from __future__ import annotations

import argparse
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from backend.languages import NAMES, code_of, code_of_name
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.eval.baseline import end_as_configured

_WORKERS = 64  # more than the bench ever sends at once: requests wait for the model, never for a thread


class BaselineServicer(rpc.BackendServicer):
    """Health, LoadModel and AudioTranscription over the package's own class."""

    def __init__(self) -> None:
        self._package: Any = None
        self._lock = threading.Lock()  # the package keeps state on its module: two threads corrupt it

    def Health(self, request: pb.HealthMessage, context: grpc.ServicerContext) -> pb.Reply:  # noqa: N802 - gRPC's names
        return pb.Reply(message=b"OK")

    def LoadModel(self, request: pb.ModelOptions, context: grpc.ServicerContext) -> pb.Result:  # noqa: N802
        try:
            self._package = _load(request)
        except Exception as error:  # noqa: BLE001 - the package raises anything, and it is the cause of the failed load
            return pb.Result(success=False, message=f"{type(error).__name__}: {error}")
        return pb.Result(success=True, message="Model loaded successfully")

    def AudioTranscription(self, request: Any, context: grpc.ServicerContext) -> pb.TranscriptResult:  # noqa: N802
        if self._package is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")
        code, times = code_of(request.language), "word" in request.timestamp_granularities
        asked = {"context": request.prompt, "language": NAMES[code] if code else None, "return_time_stamps": times}
        with self._lock:
            (found,) = self._package.transcribe(audio=request.dst, **asked)
        words = [
            pb.TranscriptWord(start=round(item.start_time * 1e9), end=round(item.end_time * 1e9), text=item.text)
            for item in found.time_stamps or ()
        ]
        segment = pb.TranscriptSegment(id=0, end=words[-1].end if words else 0, text=found.text, words=words)
        language = code_of_name(found.language.split(",")[0]) or ""
        return pb.TranscriptResult(text=found.text, language=language, segments=[segment] if found.text else [])


def placement() -> dict[str, Any]:
    """The package's arguments for device and dtype."""
    import torch

    return {"dtype": torch.bfloat16, "device_map": "cuda:0"} if torch.cuda.is_available() else {"dtype": torch.float32}


def _load(request: pb.ModelOptions) -> Any:
    """The package's model, with its aligner where the options name one."""
    from qwen_asr import Qwen3ASRModel

    options: dict[str, Any] = dict(option.split(":", 1) for option in request.Options)
    named = placement() | {"forced_aligner": options.get("forced_aligner"), "forced_aligner_kwargs": placement()}
    named |= {name: int(value) for name, value in options.items() if name == "max_new_tokens"}
    package = Qwen3ASRModel.from_pretrained(request.ModelFile or request.Model, **named)
    end_as_configured(package.model)
    return package


def main() -> None:
    import qwen_asr  # noqa: F401 - before the port, as it is usually done

    parser = argparse.ArgumentParser(prog="devtools.bench.baseline_server", description="The bench's baseline.")
    parser.add_argument("--addr", required=True)
    server = grpc.server(ThreadPoolExecutor(_WORKERS))
    rpc.add_BackendServicer_to_server(BaselineServicer(), server)  # type: ignore[no-untyped-call] # generated
    server.add_insecure_port(parser.parse_args().addr)
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop(0)


if __name__ == "__main__":
    main()
