"""The package's process, with a fake package in it, and what the package is called with."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from devtools.eval import baseline
from devtools.eval.hypotheses import Hypothesis, Job, Run, Word

PROCESS = """
import os
from types import SimpleNamespace

from devtools.eval import baseline
from devtools.eval.hypotheses import Hypothesis, Word

def load(model, aligner):
    print("prints go to the log")
    if model == "broken":
        raise ValueError("no such model")
    return SimpleNamespace(model=model, aligner=aligner)

def transcribe(package, job):
    if job.key == package.model:
        os.write(2, b"Killed\\n\\n")
        os._exit(9)
    if job.key == package.aligner:
        os.write(RESULTS, b"\\x80\\x04 half a resu")
        os._exit(9)
    print("more of them")
    return Hypothesis("Hello 一", job.language, (Word(job.audio, 0.5, 0.75),), 1.5, job.key)

RESULTS = os.dup(1)
baseline.load, baseline.transcribe = load, transcribe
baseline.main(*__import__("sys").argv[1:])
"""
JOBS = [Job("a", "a.wav"), Job("//rain/1.0/en", "b.wav", "en"), Job("c", "c.wav")]
HYPOTHESES = {
    job.key: Hypothesis("Hello 一", job.language, (Word(job.audio, 0.5, 0.75),), 1.5, job.key) for job in JOBS
}


def run_in_process(model: str, aligner: str = "") -> Run:
    return baseline.run(JOBS, model, aligner, command=(sys.executable, "-c", PROCESS))


def test_hypotheses_and_peak_memory_come_back_from_the_process() -> None:
    found = run_in_process("model")
    assert found.hypotheses == HYPOTHESES
    if Path("/proc/self/status").exists():
        assert (found.peak_bytes or 0) > 2**20
    else:
        assert found.peak_bytes is None


@pytest.mark.parametrize(
    ("model", "aligner", "left", "cause"),
    [
        ("broken", "", 0, "ValueError: no such model"),
        ("//rain/1.0/en", "", 1, "Killed"),
        ("model", "c", 2, "more of them"),  # ended while it wrote a hypothesis
    ],
)
def test_a_process_that_ends_loses_the_jobs_that_it_left(model: str, aligner: str, left: int, cause: str) -> None:
    found = run_in_process(model, aligner)
    keys = [job.key for job in JOBS]
    assert {key: found.hypotheses[key] for key in keys[:left]} == {key: HYPOTHESES[key] for key in keys[:left]}
    assert {found.hypotheses[key].failure for key in keys[left:]} == {f"the package's process ended: {cause}"}
    assert list(found.hypotheses) == keys
    assert found.peak_bytes is None


class Package:
    """Answers as the package does; `fault` is raised instead."""

    forced_aligner = object()

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.calls: list[dict[str, Any]] = []

    def transcribe(self, **arguments: Any) -> list[Any]:
        self.calls.append(arguments)
        if self.fault:
            raise self.fault
        items = [SimpleNamespace(text="一", start_time=0.1, end_time=0.2)]
        return [SimpleNamespace(text="一。", language="Chinese,English", time_stamps=items)]


def test_the_package_is_given_samples_and_full_names(recordings: Path) -> None:
    package = Package()
    found = baseline.transcribe(package, Job("a", str(recordings / "chinese.wav"), "en"))
    assert (found.text, found.language, found.words, found.failure) == ("一。", "zh", (Word("一", 0.1, 0.2),), "")
    assert found.took_s > 0
    (arguments,) = package.calls
    samples, rate = arguments["audio"]
    assert (samples.dtype, samples.ndim, rate) == (np.float32, 1, 16_000)
    assert (arguments["language"], arguments["return_time_stamps"]) == ("English", True)


def test_a_file_that_the_package_fails_on_does_not_end_the_run(recordings: Path) -> None:
    found = baseline.transcribe(Package(RuntimeError("too long")), Job("a", str(recordings / "chinese.wav")))
    assert found.failure == "RuntimeError: too long"
    missing = baseline.transcribe(Package(), Job("a", "nowhere.wav"))
    assert missing.failure.startswith("UndecodableAudio: ")


def test_the_package_ends_at_the_checkpoints_own_tokens() -> None:
    model = SimpleNamespace(
        generate=lambda eos_token_id=(151645, 151643), **given: (eos_token_id, given),
        generation_config=SimpleNamespace(eos_token_id=[539, 540]),
    )
    baseline.end_as_configured(model)
    assert model.generate(max_new_tokens=512) == ([539, 540], {"max_new_tokens": 512})
