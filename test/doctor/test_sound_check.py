from __future__ import annotations

import pytest

from backend.doctor import sound_check
from backend.doctor.child_process import Report, report_of
from backend.doctor.sound_check import FORMATS, judge

DECODED = dict.fromkeys(FORMATS, "")
GOOD = {"decoded": DECODED, "speech": {"demo": 0.75, "noise": 0.0}}


def test_all_formats_are_decoded_here_and_noise_is_no_speech() -> None:
    report = report_of(sound_check.__name__, 60)
    assert report.failure == ""
    findings = judge(report)
    assert [finding.name for finding in findings] == ["WAV", "MP3", "M4A", "OGG", "voice detection"]
    assert {finding.level for finding in findings} == {"OK"}


@pytest.mark.parametrize(
    ("report", "name", "value", "remedy"),
    [
        (Report(failure="No module named 'av'"), "decoding", "No module named 'av'", "make install"),
        (Report({**GOOD, "decoded": {**DECODED, "MP3": "no audio"}}), "MP3", "no audio", "make install"),
        (Report({"decoded": DECODED}, "it crashed: Illegal instruction"), "voice detection", "Illegal", "vad"),
        (Report({**GOOD, "speech": {"demo": 0.75, "noise": 0.4}}), "voice detection", "40% of noise", "vad:off"),
        (Report({**GOOD, "speech": {"demo": 0.1, "noise": 0.0}}), "voice detection", "10% of the demo", "vad:off"),
    ],
)
def test_each_fault_is_a_failure_with_its_remedy(report: Report, name: str, value: str, remedy: str) -> None:
    [finding] = [finding for finding in judge(report) if finding.level != "OK"]
    assert (finding.name, finding.level) == (name, "FAIL")
    assert value in finding.value
    assert remedy in finding.remedy


def test_a_tone_that_is_decoded_to_another_is_seen() -> None:
    import numpy as np

    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert sound_check._tone_error(tone) == ""
    assert "220 Hz" in sound_check._tone_error(np.repeat(tone, 2))
    assert "0.50 s" in sound_check._tone_error(tone[:8_000])
