"""Composed recordings through a running backend."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import soundfile

from backend.wire.backend_pb2 import ModelOptions
from devtools.demo_models.speech import SAMPLE_RATE, Recording
from devtools.eval import backend_client
from devtools.eval.hypotheses import Hypothesis, Job
from devtools.server_process import ServerFailed


def transcribed(recordings: Sequence[Recording], options: ModelOptions, *, with_words: bool = True) -> list[Hypothesis]:
    """What a server of its own hears in 16-bit files of the recordings. Raises ServerFailed where it fails on any."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(str(number), f"{folder}/{number}.wav") for number in range(len(recordings))]
        for job, recording in zip(jobs, recordings, strict=True):
            soundfile.write(job.audio, recording.samples, SAMPLE_RATE, subtype="PCM_16")
        found = list(backend_client.run(jobs, options, with_words=with_words).hypotheses.values())
    for hypothesis in found:
        if hypothesis.failure:
            raise ServerFailed(hypothesis.failure)
    return found
