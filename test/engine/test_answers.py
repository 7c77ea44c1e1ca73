"""How an answer of the recogniser ends: by itself, at its budget, or where it has begun to repeat itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from backend.engine.loading import CheckpointLoader
from backend.engine.loops import LEAST_TOKENS, TURNS
from backend.engine.qwen import AnswerWatch, QwenRecognizer, RepetitionPenalties
from backend.engine.recognizer import Utterance
from backend.options import LoadOptions

EOS = 9
NO_SCORES = torch.empty(0)


def steps(watch: AnswerWatch, *answers: list[int], prompt: int = 4) -> list[list[bool]]:
    """What the watch says after each token of these answers of one length, behind a prompt that repeats itself."""
    ids = torch.tensor([[7] * prompt + answer for answer in answers])
    return [watch(ids[:, : prompt + size], NO_SCORES).tolist() for size in range(1, len(answers[0]) + 1)]


def test_each_row_ends_at_its_own_budget_or_loop_and_an_ended_row_is_left_alone() -> None:
    length = 40
    talks = list(range(100, 100 + length))
    loops = [*range(100, 110), *[1, 2, 3] * 10]
    ended = [5, 6, *[EOS] * (length - 2)]  # padding behind an end is no loop
    watch = AnswerWatch(4, [length + 1, length, length, 12], [EOS])
    said = steps(watch, talks, loops, ended, talks)
    third_turn = 10 + max(3 * TURNS, LEAST_TOKENS)
    assert watch.stopped == {1: third_turn, 3: 12}
    assert watch.looped == {1}
    assert [row[1] for row in said].index(True) == third_turn - 1
    assert not any(row[0] or row[2] for row in said)


def test_the_prompt_is_no_part_of_a_loop() -> None:
    watch = AnswerWatch(200, [50], [EOS])
    assert not any(stop for (stop,) in steps(watch, [7, 7, 7, 7, 7], prompt=200))


def test_each_row_has_its_own_penalty_on_what_its_answer_holds() -> None:
    ids = torch.tensor([[0, 1, 2], [0, 2, 2], [0, 3, 3]])  # 0 is the prompt
    scores = torch.tensor([[4.0, 4.0, -4.0, 4.0]]).repeat(3, 1)
    found = RepetitionPenalties(1, [2.0, 1.0, 4.0])(ids, scores)
    assert found.tolist() == [[4, 2, -8, 4], [4, 4, -4, 4], [4, 4, -4, 1]]


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
