"""How an answer of the recogniser ends: by itself, at its budget, or where it has begun to repeat itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from backend.engine.loader import CheckpointLoader
from backend.engine.model.recognizer import QwenRecognizer
from backend.options import LoadOptions
from backend.serving.protocols import Utterance


@pytest.fixture(scope="module")
def endless(asr_folder: Path) -> QwenRecognizer:
    """The demo recogniser without the token that ends its answers: it cannot but go on."""
    recognizer = CheckpointLoader().load_recognizer(LoadOptions(model=str(asr_folder), dtype="float32"))
    recognizer.eos_ids = [10**6]
    return recognizer


@pytest.fixture(scope="module")
def pangram(recordings: Path) -> Utterance:
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    return Utterance(samples[: round(6.3 * 16_000)], None, "", 400)


def test_a_model_that_cannot_end_is_stopped_in_its_loop_far_below_its_budget(endless, pangram) -> None:
    (found,) = endless.recognize([pangram])
    assert found.text.startswith("The quick brown fox jumps over the lazy dog.")
    assert found.looped
    assert not found.finished
    assert len(found.tokens) < 100


def test_a_row_that_loops_costs_its_neighbours_nothing(recognizer, endless, pangram) -> None:
    short = replace(pangram, max_new_tokens=8)
    penalised = replace(pangram, repetition_penalty=1.1)
    cut, whole, again = recognizer.recognize([short, pangram, penalised])
    assert (cut.text, cut.finished, cut.looped) == ("The quick brown fox jumps", False, False)
    assert whole == recognizer.recognize([pangram])[0]
    assert whole.finished
    assert again.text == whole.text


@pytest.mark.parametrize("tag", ["language English", "language None", "language"])
def test_an_answer_that_was_cut_inside_its_tag_says_nothing(recognizer, pangram, tag: str) -> None:
    ids = recognizer.processor.tokenizer(tag)["input_ids"]
    assert recognizer._read(pangram, ids, False, False).text == ""
    forced = replace(pangram, language="en")
    assert recognizer._read(forced, ids, False, False).text  # where no tag is due, it is what was said
