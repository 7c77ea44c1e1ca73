"""Transcribes files with a running server, one file at a time: with the backend, or with the package (baseline.py)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from tqdm import tqdm

from backend.wire.backend_pb2 import ModelOptions
from devtools.eval.hypotheses import Hypothesis, Job, Run, Word
from devtools.log_tail import show_log_tail
from devtools.procfs import peak_resident_bytes
from devtools.server_process import ROOT, RUN_SH, ServerFailed, ServerProcess
from devtools.transcribe.client import transcript_request

TRANSCRIPTION_TIMEOUT_S = 2 * 3600.0  # for one file


def run(
    jobs: Sequence[Job],
    options: ModelOptions,
    name: str = "backend",
    *,
    command: Sequence[str] = (*RUN_SH, str(ROOT / "run.sh")),
    folder: Path = ROOT,
    with_words: bool = True,
) -> Run:
    """The backend's hypothesis for every job; `command`, `folder`: of another commit's.

    Raises ServerFailed where it does not start or load the model.
    """
    with ServerProcess(command, folder=folder, with_token=True) as server:
        try:
            found = transcribe_all(name, server, jobs, options, with_words=with_words)
        except ServerFailed as failure:
            show_log_tail(server.log_lines(), str(failure))
            raise
        if any(hypothesis.failure for hypothesis in found.hypotheses.values()):
            show_log_tail(server.log_lines(), "")
        return found


def transcribe_all(
    name: str, server: ServerProcess, jobs: Sequence[Job], options: ModelOptions, *, with_words: bool = True
) -> Run:
    """Loads the model, then transcribes every job. Raises ServerFailed where the model is not loaded."""
    server.load(options)
    progress = tqdm(jobs, desc=name, unit="file", leave=False, disable=None)  # None: on a terminal only
    return Run(
        {job.key: _transcribe(server, job, with_words) for job in progress}, peak_resident_bytes(server.pid) or None
    )


def _transcribe(server: ServerProcess, job: Job, with_words: bool) -> Hypothesis:
    request = transcript_request(job.audio, job.language)
    if not with_words:
        request.timestamp_granularities[:] = ["segment"]
    began = time.monotonic()
    try:
        result = server.stub.AudioTranscription(request, timeout=TRANSCRIPTION_TIMEOUT_S, metadata=server.metadata)
    except grpc.RpcError as error:
        return Hypothesis(took_s=time.monotonic() - began, failure=server.cause_of(error))
    took_s = time.monotonic() - began
    words = (Word(w.text, w.start * 1e-9, w.end * 1e-9) for segment in result.segments for w in segment.words)  # ns
    return Hypothesis(result.text, result.language, tuple(words), took_s)
