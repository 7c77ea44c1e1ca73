from __future__ import annotations

import math
from dataclasses import replace

import pytest

from backend.doctor import demo_check
from backend.doctor.demo_check import AT_ONCE, DemoFacts, Truth, Word, judge
from backend.doctor.findings import Finding

TRUTH = Truth("Good morning.", (Word("Good", 0.1, 0.4), Word("morning", 0.5, 0.9)))
GOOD = DemoFacts(
    up_s=0.4, load_s=5.0, health_s=0.2, text="Good morning.",
    words=(Word("Good", 0.15, 0.4), Word("morning.", 0.5, 0.9)), took_s=0.3,
    texts=("Good morning.",) * AT_ONCE, int8_text="Good morning.",
    log=("decode steps are captured as CUDA graphs, 32 rows, capacities [256]",),
)  # fmt: skip


def found(facts: DemoFacts, on_gpu: bool = False) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(facts, TRUTH, on_gpu)}


def test_what_comes_out_as_it_should_is_fine() -> None:
    findings = found(GOOD, on_gpu=True)
    assert {finding.level for finding in findings.values()} == {"OK"}
    assert findings["word times"].value == "2 words, off by 0.05 s at most"
    assert findings["CUDA graphs"].value == "captured and right"
    assert "CUDA graphs" not in found(GOOD)


REFUSED = DemoFacts(failure="the model was not loaded: PyTorch for CUDA 13.0 finds no GPU")


@pytest.mark.parametrize(
    ("name", "facts", "level", "value"),
    [
        ("server", REFUSED, "FAIL", "finds no GPU"),
        ("text", replace(GOOD, text="Good mourning."), "FAIL", "'Good mourning.' instead of 'Good morning.'"),
        ("text", DemoFacts(load_s=1.0, failure="the server has ended"), "FAIL", "the server has ended"),
        ("word times", replace(GOOD, words=()), "FAIL", "0 words instead of 2"),
        ("word times", replace(GOOD, words=(Word("Good", 1.1, 1.4), GOOD.words[1])), "FAIL", "off by up to 1.00 s"),
        ("8 at once", replace(GOOD, texts=("Good morning.",) * 7 + ("",)), "FAIL", "7 of 8 texts"),
        ("8 at once", replace(GOOD, texts=(), int8_text=None, failure="too slow"), "FAIL", "too slow"),
        ("int8", replace(GOOD, int8_text="Good"), "FAIL", "'Good' instead of"),
        (
            "int8",
            replace(GOOD, int8_text=None, int8_failure="Quantization int8 cannot be had"),
            "WARN",
            "cannot be had",
        ),
        ("int8", replace(GOOD, int8_text=None, failure="the server has ended"), "FAIL", "the server has ended"),
        ("Health", replace(GOOD, health_s=1.5), "WARN", "within 1.50 s"),
        ("Health", replace(GOOD, health_s=math.inf), "FAIL", "did not answer"),
        (
            "CUDA graphs",
            replace(GOOD, log=("too little memory for CUDA graphs; decoding",)),
            "WARN",
            "too little memory",
        ),
        ("CUDA graphs", replace(GOOD, log=()), "OK", "not used"),
    ],
)
def test_each_fault_has_its_level_and_remedy(name: str, facts: DemoFacts, level: str, value: str) -> None:
    finding = found(facts, on_gpu=True)[name]
    assert finding.level == level
    assert value in finding.value
    assert bool(finding.remedy) == (level != "OK")


def test_the_demos_files_are_there_and_hold_what_is_compared() -> None:
    assert demo_check.missing_files() == []
    assert demo_check.truth().text.endswith("Thank you.")
    assert demo_check.truth().words[0] == Word("The", 0.2382, 0.7571)


def test_a_server_that_does_not_start_is_told_with_its_own_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_ASR_STALL_SECONDS", "soon")
    assert "QWEN_ASR_STALL_SECONDS must be a number" in demo_check.probe().failure
