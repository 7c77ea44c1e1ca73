"""The command without a system: which jobs it makes from its arguments and its manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from devtools.eval.__main__ import envelope_of, non_speech, parse, warm_up
from devtools.eval.manifest import Entry
from devtools.eval.nonspeech import KINDS
from devtools.eval.report import Envelope, envelope
from devtools.transcribe.checkpoints import chosen_aligner


def test_non_speech_is_transcribed_at_three_levels_with_and_without_a_language(tmp_path: Path) -> None:
    jobs = non_speech(tmp_path)
    assert len(jobs) == len({job.key for job in jobs}) == 120
    assert {kind for kind, _ in jobs.values()} == set(KINDS)
    for job, (kind, level) in jobs.items():
        peak = 0.0 if kind == "digital silence" else level
        if level == 0.01 and not job.language:
            samples, rate = soundfile.read(job.audio, dtype="float32")
            assert rate == 16_000
            assert np.abs(samples).max() == pytest.approx(peak, rel=1e-6)


def test_the_warm_up_is_the_shortest_recording_with_speech() -> None:
    entries = [
        Entry("long", Path("l"), "x", "en"),
        Entry("short", Path("s"), "x", "en"),
        Entry("none", Path("n"), "", ""),
    ]
    envelopes = {"long": Envelope(9.0), "short": Envelope(3.0), "none": Envelope(1.0)}
    assert [job.audio for job in warm_up(entries, envelopes)] == ["s"]
    assert warm_up(entries[2:], envelopes) == []


def aligner_of(argv: list[str]) -> str:
    arguments = parse(argv)
    return chosen_aligner(arguments.model, arguments.aligner)


def test_another_model_gets_no_aligner_of_the_demo() -> None:
    assert aligner_of(["--model", "Qwen/Qwen3-ASR-0.6B"]) == ""
    assert aligner_of(["--aligner", ""]) == ""
    assert aligner_of(["--aligner", "Qwen/Qwen3-ForcedAligner-0.6B"]) == "Qwen/Qwen3-ForcedAligner-0.6B"


def test_an_unreadable_recording_has_no_envelope(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    found = envelope_of(Entry("a", tmp_path / "a.wav", "x", "en"))
    assert (found.duration_s, found.peaks.size) == (0.0, 0)


def test_an_envelope_is_the_peak_of_every_20_ms() -> None:
    samples = np.zeros(16_000 + 10, np.float32)
    samples[330], samples[16_005] = -0.5, 0.25
    found = envelope(samples)
    assert found.peaks.size == 51
    assert (found.peaks[1], found.peaks[50], found.peaks.sum()) == (1.0, 0.5, 1.5)
