"""What goes to the systems and what comes back from them, without a system."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from devtools.eval import baseline
from devtools.eval.__main__ import envelope_of, non_speech, parse, warm_up
from devtools.eval.hypotheses import (
    Hypothesis,
    Job,
    Run,
    Word,
)
from devtools.eval.manifest import Entry
from devtools.eval.nonspeech import KINDS
from devtools.eval.report import Envelope, envelope
from devtools.transcribe.checkpoints import chosen_aligner

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


def test_non_speech_is_asked_at_three_levels_with_and_without_a_language(tmp_path: Path) -> None:
    asked = non_speech(tmp_path)
    assert len(asked) == len({job.key for job in asked}) == 120
    assert {kind for kind, _ in asked.values()} == set(KINDS)
    for job, (kind, level) in asked.items():
        peak = 0.0 if kind == "digital silence" else level
        if level == 0.01 and not job.language:
            samples, rate = soundfile.read(job.audio, dtype="float32")
            assert rate == 16_000
            assert np.abs(samples).max() == pytest.approx(peak, rel=1e-6)


def test_the_warm_up_is_the_shortest_recording_in_which_somebody_speaks() -> None:
    entries = [
        Entry("long", Path("l"), "x", "en"),
        Entry("short", Path("s"), "x", "en"),
        Entry("none", Path("n"), "", ""),
    ]
    outlines = {"long": Envelope(9.0), "short": Envelope(3.0), "none": Envelope(1.0)}
    assert [job.audio for job in warm_up(entries, outlines)] == ["s"]
    assert warm_up(entries[2:], outlines) == []


def aligner_of(argv: list[str]) -> str:
    arguments = parse(argv)
    return chosen_aligner(arguments.model, arguments.aligner)


def test_another_model_gets_no_aligner_of_the_demo() -> None:
    assert aligner_of(["--model", "Qwen/Qwen3-ASR-0.6B"]) == ""
    assert aligner_of(["--aligner", ""]) == ""
    assert aligner_of(["--aligner", "Qwen/Qwen3-ForcedAligner-0.6B"]) == "Qwen/Qwen3-ForcedAligner-0.6B"


def test_an_unreadable_recording_is_drawn_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    found = envelope_of(Entry("a", tmp_path / "a.wav", "x", "en"))
    assert (found.duration_s, found.peaks.size) == (0.0, 0)


def test_an_outline_is_the_loudest_of_every_20_ms() -> None:
    samples = np.zeros(16_000 + 10, np.float32)
    samples[330], samples[16_005] = -0.5, 0.25
    found = envelope(samples)
    assert found.peaks.size == 51
    assert (found.peaks[1], found.peaks[50], found.peaks.sum()) == (1.0, 0.5, 1.5)


class Package:
    """Answers as the package does; `fault` is raised instead."""

    forced_aligner = object()

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.calls: list[dict[str, Any]] = []

    def transcribe(self, **asked: Any) -> list[Any]:
        self.calls.append(asked)
        if self.fault:
            raise self.fault
        items = [SimpleNamespace(text="一", start_time=0.1, end_time=0.2)]
        return [SimpleNamespace(text="一。", language="Chinese,English", time_stamps=items)]


def test_the_package_is_given_samples_and_full_names(recordings: Path) -> None:
    package = Package()
    found = baseline.transcribe(package, Job("a", str(recordings / "chinese.wav"), "en"))
    assert (found.text, found.language, found.words, found.failure) == ("一。", "zh", (Word("一", 0.1, 0.2),), "")
    assert found.took_s > 0
    (asked,) = package.calls
    samples, rate = asked["audio"]
    assert (samples.dtype, samples.ndim, rate) == (np.float32, 1, 16_000)
    assert (asked["language"], asked["return_time_stamps"]) == ("English", True)


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
