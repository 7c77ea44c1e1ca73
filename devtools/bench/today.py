"""The way it is done today, as a server of the same wire: `python -m devtools.bench.today --addr HOST:PORT`.

What a backend around the package usually looks like: the package is imported first, then the port is opened; threads
serve; LoadModel loads recogniser and aligner at once; one lock around `transcribe` lets one request in at a time; fp32
on a CPU; everything else at the package's defaults. The one thing handed to it is which tokens end an answer, see
devtools/eval/baseline.py.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from backend.languages import NAMES, code_of, code_of_name
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.eval.baseline import end_as_configured

_WORKERS = 64  # more than the bench ever asks at once: requests wait for the model and never for a thread
_MESSAGE_BYTES = 50 * 1024 * 1024
_NS = 1_000_000_000


class TodayServicer(rpc.BackendServicer):
    """Health, LoadModel and AudioTranscription over the package's own class."""

    def __init__(self) -> None:
        self._package: Any = None
        self._lock = threading.Lock()  # the package keeps state on its module: two at a time corrupt each other

    def Health(self, request: pb.HealthMessage, context: grpc.ServicerContext) -> pb.Reply:  # noqa: N802 - gRPC's names
        return pb.Reply(message=b"OK")

    def LoadModel(self, request: pb.ModelOptions, context: grpc.ServicerContext) -> pb.Result:  # noqa: N802
        try:
            self._package = loaded(request)
        except Exception as error:  # noqa: BLE001 - whatever the package raises is the cause of the failed load
            return pb.Result(success=False, message=f"{type(error).__name__}: {error}")
        return pb.Result(success=True, message="Model loaded successfully")

    def AudioTranscription(  # noqa: N802
        self, request: pb.TranscriptRequest, context: grpc.ServicerContext
    ) -> pb.TranscriptResult:
        if self._package is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")
        code = code_of(request.language)
        with self._lock:
            (heard,) = self._package.transcribe(
                audio=request.dst,
                context=request.prompt,
                language=NAMES[code] if code else None,
                return_time_stamps="word" in request.timestamp_granularities,
            )
        return _result(heard)


def loaded(request: pb.ModelOptions) -> Any:
    """The package's model, with its aligner where the options name one. Raises what the package raises."""
    import torch
    from qwen_asr import Qwen3ASRModel

    options = dict(option.split(":", 1) for option in request.Options)
    where: dict[str, Any] = {"dtype": torch.float32}
    if torch.cuda.is_available():
        where = {"dtype": torch.bfloat16, "device_map": "cuda:0"}
    limit = {"max_new_tokens": int(options["max_new_tokens"])} if "max_new_tokens" in options else {}
    package = Qwen3ASRModel.from_pretrained(
        request.ModelFile or request.Model,
        forced_aligner=options.get("forced_aligner"),
        forced_aligner_kwargs=dict(where),
        **limit,
        **where,
    )
    end_as_configured(package.model)
    return package


def _result(heard: Any) -> pb.TranscriptResult:
    words = [
        pb.TranscriptWord(start=round(item.start_time * _NS), end=round(item.end_time * _NS), text=item.text)
        for item in heard.time_stamps or ()
    ]
    end = words[-1].end if words else 0
    segments = [pb.TranscriptSegment(id=0, end=end, text=heard.text, words=words)] if heard.text else []
    return pb.TranscriptResult(
        text=heard.text, language=code_of_name(heard.language.split(",")[0]) or "", segments=segments
    )


def serve(address: str) -> None:
    import qwen_asr  # noqa: F401 - before the port, as it is done

    options = [(f"grpc.max_{way}_message_length", _MESSAGE_BYTES) for way in ("send", "receive")]
    server = grpc.server(ThreadPoolExecutor(_WORKERS), options=options)
    rpc.add_BackendServicer_to_server(TodayServicer(), server)  # type: ignore[no-untyped-call] # generated
    server.add_insecure_port(address)
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop(0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devtools.bench.today", description="The bench's baseline.")
    parser.add_argument("--addr", required=True)
    serve(parser.parse_args(argv).addr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
