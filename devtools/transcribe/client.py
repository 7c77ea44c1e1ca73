"""What the client asks of a server: a request for one recording, its reply, and the reply's warnings."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

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
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            server.check_alive(patience_s=1.0)  # its log has the cause, the broken connection has not
        raise RequestFailed(error.code(), error.details()) from error
    return result, [_text(value) for key, value in call.trailing_metadata() or () if key == "x-asr-warning"]


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
