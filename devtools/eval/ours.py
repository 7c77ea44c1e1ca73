"""The running backend's answers: started through run.sh, asked through gRPC, one file at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import grpc
from tqdm import tqdm

from backend.wire.backend_pb2 import ModelOptions, TranscriptRequest, TranscriptResult
from devtools.eval.answers import Answer, Job, Run, Word, peak_bytes
from devtools.transcribe.child import Backend, BackendFailed

LOAD_S = 3600.0  # a first load may download gigabytes
ANSWER_S = 2 * 3600.0  # for one file; whoever takes longer hangs
LOG_LINES_SHOWN = 20
_NS = 1e-9


def run(jobs: Sequence[Job], options: ModelOptions) -> Run:
    """An answer to every job. Raises BackendFailed where the backend does not start or does not load the model."""
    with Backend() as backend:
        backend.wait_until_up()
        _load(backend, options)
        shown = tqdm(jobs, desc="backend", unit="file", leave=False, disable=None)  # None: on a terminal only
        answers = {job.key: _answer(backend, job) for job in shown}
        if any(answer.failure for answer in answers.values()):
            _show_log(backend)
        return Run(answers, peak_bytes(backend.pid))  # while it lives: afterwards there is nothing to read


def _load(backend: Backend, options: ModelOptions) -> None:
    try:
        result = backend.stub.LoadModel(options, timeout=LOAD_S, metadata=backend.metadata)
        cause = "" if result.success else result.message
    except grpc.RpcError as error:
        cause = _cause(backend, error)
    if cause:
        _show_log(backend)
        raise BackendFailed(f"the model was not loaded: {cause}")


def _answer(backend: Backend, job: Job) -> Answer:
    request = TranscriptRequest(
        dst=job.audio, language=job.language, timestamp_granularities=["word", "segment"], diarize=True
    )
    began = time.monotonic()
    try:
        result = backend.stub.AudioTranscription(request, timeout=ANSWER_S, metadata=backend.metadata)
    except grpc.RpcError as error:
        return Answer(took_s=time.monotonic() - began, failure=_cause(backend, error))
    return _read(result, time.monotonic() - began)


def _read(result: TranscriptResult, took_s: float) -> Answer:
    words = tuple(
        Word(word.text, word.start * _NS, word.end * _NS) for segment in result.segments for word in segment.words
    )
    return Answer(result.text, result.language, words, took_s)


def _show_log(backend: Backend) -> None:
    print("the end of the backend's log:", *backend.log_lines()[-LOG_LINES_SHOWN:], sep="\n", file=sys.stderr)


def _cause(backend: Backend, error: grpc.RpcError) -> str:
    """The status code and its message; a process that died says more than its broken connection."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        try:
            backend.check_alive(patience_s=1.0)
        except BackendFailed as gone:
            return f"UNAVAILABLE: the backend has ended: {gone}"
    return f"{error.code().name}: {error.details()}"
