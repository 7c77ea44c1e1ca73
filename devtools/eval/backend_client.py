"""Transcribes files with the running backend: started through run.sh, called through gRPC, one file at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import grpc
from tqdm import tqdm

from backend.wire.backend_pb2 import ModelOptions
from devtools.eval.hypotheses import Hypothesis, Job, Run, Word
from devtools.procfs import peak_resident_bytes
from devtools.server_process import ServerFailed, ServerProcess
from devtools.transcribe.client import transcript_request

TRANSCRIPTION_TIMEOUT_S = 2 * 3600.0  # for one file
LOG_LINES_SHOWN = 20


def run(jobs: Sequence[Job], options: ModelOptions) -> Run:
    """A hypothesis for every job. Raises ServerFailed where the backend does not start or does not load the model."""
    with ServerProcess(with_token=True) as server:
        try:
            server.load(options)
        except ServerFailed:
            _print_log(server)
            raise
        progress = tqdm(jobs, desc="backend", unit="file", leave=False, disable=None)  # None: on a terminal only
        hypotheses = {job.key: _transcribe(server, job) for job in progress}
        if any(hypothesis.failure for hypothesis in hypotheses.values()):
            _print_log(server)
        return Run(hypotheses, peak_resident_bytes(server.pid) or None)


def _transcribe(server: ServerProcess, job: Job) -> Hypothesis:
    request = transcript_request(job.audio, job.language)
    began = time.monotonic()
    try:
        result = server.stub.AudioTranscription(request, timeout=TRANSCRIPTION_TIMEOUT_S, metadata=server.metadata)
    except grpc.RpcError as error:
        return Hypothesis(took_s=time.monotonic() - began, failure=server.cause_of(error))
    took_s = time.monotonic() - began
    words = (Word(w.text, w.start * 1e-9, w.end * 1e-9) for segment in result.segments for w in segment.words)  # ns
    return Hypothesis(result.text, result.language, tuple(words), took_s)


def _print_log(server: ServerProcess) -> None:
    print("the end of the backend's log:", *server.log_lines()[-LOG_LINES_SHOWN:], sep="\n", file=sys.stderr)
