"""What the client asks of a server: a request for one recording, its reply, and the reply's warnings."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

import grpc
from tqdm import tqdm

from backend.wire.backend_pb2 import TranscriptRequest, TranscriptResult
from devtools.server_process import ServerProcess


class RequestFailed(Exception):
    """The server's status, with its message."""

    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        super().__init__(f"{details} ({code.name})")
        self.is_callers_fault = code is grpc.StatusCode.INVALID_ARGUMENT


def transcript_request(audio: str, language: str = "") -> TranscriptRequest:
    """All that the backend can return: segments, and words where it has an aligner."""
    return TranscriptRequest(dst=audio, language=language, timestamp_granularities=["word", "segment"], diarize=True)


def transcribe(
    server: ServerProcess, request: TranscriptRequest, timeout_s: float | None = None
) -> tuple[TranscriptResult, list[str]]:
    """The transcript and its warnings. Raises RequestFailed, or ServerFailed when the server has ended."""
    try:
        result, call = server.stub.AudioTranscription.with_call(request, timeout=timeout_s, metadata=server.metadata)
    except grpc.RpcError as error:
        raise _failure(server, error) from error
    return result, _warnings(call)


def stream(
    server: ServerProcess, request: TranscriptRequest, on_delta: Callable[[str], object]
) -> tuple[TranscriptResult, list[str]]:
    """As `transcribe`, by AudioTranscriptionStream; `on_delta` gets the text as it comes."""
    call = server.stub.AudioTranscriptionStream(request, metadata=server.metadata)
    try:
        result = TranscriptResult()
        for reply in call:
            on_delta(reply.delta)
            result = reply.final_result
    except grpc.RpcError as error:
        raise _failure(server, error) from error
    return result, _warnings(call)


def _failure(server: ServerProcess, error: grpc.RpcError) -> RequestFailed:
    """Raises ServerFailed when the server has ended: its log has the cause, the broken connection has not."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        server.check_alive(patience_s=1.0)
    return RequestFailed(error.code(), error.details())


def _warnings(call: grpc.Call) -> list[str]:
    return [_text(value) for key, value in call.trailing_metadata() or () if key == "x-asr-warning"]


@contextlib.contextmanager
def elapsed_time(label: str) -> Iterator[None]:
    """Shows the seconds that the block takes, on a terminal: how many there will be is not known."""
    ended = threading.Event()
    with tqdm(desc=label, bar_format="{desc} {elapsed}", leave=False, disable=not sys.stderr.isatty()) as bar:

        def refresh() -> None:
            while not ended.wait(0.2):
                bar.refresh()

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
