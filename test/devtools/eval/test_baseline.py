"""The package's server, with a fake package in it, and what the package is called with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from devtools.eval import baseline
from devtools.eval.hypotheses import Hypothesis, Job, Run, Word
from devtools.transcribe.checkpoints import load_options

PROCESS = """
import os, sys
from types import ModuleType, SimpleNamespace

from devtools.bench import baseline_server

sys.modules["qwen_asr"] = ModuleType("qwen_asr")
FORCED_ALIGNER = "forced_aligner:x/"

class Package:
    def __init__(self, request):
        self.model, self.aligner = request.Model, [*request.Options]
        if self.model == "x/broken":
            raise ValueError("no such model")

    def transcribe(self, audio, context, language, return_time_stamps):
        name = audio.removesuffix(".wav")
        if "x/" + name == self.model:
            os.write(2, b"Killed\\n\\n")
            os._exit(9)
        if FORCED_ALIGNER + name in self.aligner:
            print("prints do not count")
            os.write(2, b"the last words\\n")
            os._exit(9)
        if name == "too_long":
            raise RuntimeError("too long")
        said = f"{audio} {language} {return_time_stamps}"
        items = [SimpleNamespace(text="一", start_time=0.5, end_time=0.75)] if return_time_stamps else None
        return [SimpleNamespace(text=said, language="Chinese,English", time_stamps=items)]

baseline_server._load = Package
baseline_server.main()
"""
JOBS = [Job("a", "a.wav"), Job("//rain/1.0/en", "b.wav", "en"), Job("c", "c.wav")]
WORDS = (Word("一", 0.5, 0.75),)
HYPOTHESES = {
    "a": Hypothesis("a.wav None True", "zh", WORDS),
    "//rain/1.0/en": Hypothesis("b.wav English True", "zh", WORDS),
    "c": Hypothesis("c.wav None True", "zh", WORDS),
}


def run_in_process(model: str, aligner: str = "x/aligner", jobs: list[Job] = JOBS) -> Run:
    return baseline.run(jobs, load_options(f"x/{model}", aligner), command=(sys.executable, "-c", PROCESS))


def untimed(found: Run) -> dict[str, Hypothesis]:
    return {key: replace(hypothesis, took_s=0.0) for key, hypothesis in found.hypotheses.items()}


def test_hypotheses_and_peak_memory_come_back_from_the_process() -> None:
    found = run_in_process("model")
    assert list(found.hypotheses) == [job.key for job in JOBS]
    assert untimed(found) == HYPOTHESES  # the file as it is, the language's full name, times
    assert all(hypothesis.took_s > 0 for hypothesis in found.hypotheses.values())
    if Path("/proc/self/status").exists():
        assert (found.peak_bytes or 0) > 2**20
    else:
        assert found.peak_bytes is None


@pytest.mark.parametrize(
    ("model", "aligner", "left", "cause"),
    [
        ("broken", "x/aligner", 0, "the model was not loaded: ValueError: no such model"),
        ("b", "x/aligner", 1, "UNAVAILABLE: the server has ended: Killed"),
        ("model", "x/c", 2, "UNAVAILABLE: the server has ended: the last words"),
    ],
)
def test_a_process_that_ends_loses_the_jobs_that_it_left(model: str, aligner: str, left: int, cause: str) -> None:
    found = run_in_process(model, aligner)
    keys, hypotheses = [job.key for job in JOBS], untimed(found)
    assert {key: hypotheses[key] for key in keys[:left]} == {key: HYPOTHESES[key] for key in keys[:left]}
    assert {found.hypotheses[key].failure for key in keys[left:]} == {cause}
    assert list(found.hypotheses) == keys
    assert found.peak_bytes is None


def test_without_an_aligner_no_times_are_asked_for_and_a_failed_file_does_not_end_the_run() -> None:
    found = run_in_process("model", "", [Job("long", "too_long.wav"), JOBS[0]])
    assert found.hypotheses["long"].failure.endswith("too long")
    assert untimed(found)["a"] == Hypothesis("a.wav None False", "zh")


def test_the_package_ends_at_the_checkpoints_own_tokens() -> None:
    model = SimpleNamespace(
        generate=lambda eos_token_id=(151645, 151643), **given: (eos_token_id, given),
        generation_config=SimpleNamespace(eos_token_id=[539, 540]),
    )
    baseline.end_as_configured(model)
    assert model.generate(max_new_tokens=512) == ([539, 540], {"max_new_tokens": 512})
