"""Pieces of text to a recognition: what a listener hears, drafts, fixed tokens and loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chat_format.spelling import Spelling
from backend.options.load_options import LoadOptions
from backend.remote.event_stream import Piece
from backend.remote.faults_of_servers import ServerFailure
from backend.remote.remote_answer import RemoteAnswer
from backend.remote.remote_loader import small_files
from backend.serving.protocols import Utterance

FOLDER = Path(__file__).parents[1] / "models/asr"
SPELLING = Spelling(small_files(LoadOptions("demo", model_file=str(FOLDER)))[1])
SOUND = np.zeros(16_000, np.float32)
TAG = "language English<asr_text>"


def answer_to(draft: str = "", fixed: int = 0, language: str | None = None, budget: int = 200) -> RemoteAnswer:
    ids = tuple(SPELLING.ids_of(draft))
    return RemoteAnswer(Utterance(SOUND, language, "", budget, draft=ids, fixed=fixed), SPELLING)


def said(answer: RemoteAnswer, text: str, finish: str = "stop") -> RemoteAnswer:
    answer.add(Piece(text, ""))
    answer.add(Piece("", finish))
    return answer


@given(st.lists(st.text(max_size=12), max_size=8), st.sampled_from([None, "en"]))
def test_what_a_listener_hears_is_a_prefix_of_the_text(pieces: list[str], language: str | None) -> None:
    """In any script, with combining marks that the tokenizer would compose, too."""
    answer = answer_to(language=language)
    heard = []
    for piece in ([] if language else [TAG]) + pieces:
        if answer.add(Piece(piece, "")):
            break
        heard.append(SPELLING.spell(tuple(answer.ids), language, ended=False).text)
    answer.add(Piece("", "stop"))
    text = answer.recognition().text
    assert all(text.startswith(part) for part in heard)


def test_the_text_is_the_servers_to_the_byte() -> None:
    decomposed = "Tie\u0302\u0301ng Vie\u0323\u0302t, re\u0301sume\u0301 \u1100\u1161"
    recognition = said(answer_to(), TAG + decomposed).recognition()
    assert recognition.text == decomposed
    assert "".join(decomposed[token.begin : token.end] for token in recognition.tokens)


def test_the_agreement_with_a_draft_is_what_both_begin_with() -> None:
    draft = TAG + "The quick brown"
    recognition = said(answer_to(draft), TAG + "The quick red fox").recognition()
    assert SPELLING.text_of(recognition.ids[: recognition.agreed]) == TAG + "The quick"
    assert recognition.ids[recognition.agreed] != SPELLING.ids_of(draft)[recognition.agreed]


@pytest.mark.parametrize("language", [None, "en"])
def test_fixed_tokens_begin_the_answer(language: str | None) -> None:
    draft = ("" if language else TAG) + "The quick brown"
    fixed = len(SPELLING.ids_of(draft)) - 2
    answer = answer_to(draft, fixed, language)
    given_text = SPELLING.text_of(answer.fixed)
    assert answer.beginning == (TAG if language else "") + given_text
    assert answer.max_tokens == 200 - fixed
    recognition = said(answer, "wn fox").recognition()
    assert recognition.text == given_text.removeprefix(TAG) + "wn fox"
    assert recognition.ids[:fixed] == answer.fixed
    assert recognition.agreed >= fixed


def test_a_loop_ends_the_answer_at_its_token() -> None:
    answer = answer_to(budget=5000)
    answer.add(Piece(TAG + "Well", ""))
    pieces = 0
    while not answer.add(Piece(" no no", "")):
        pieces += 1
        assert pieces < 200
    recognition = answer.recognition()
    assert (recognition.looped, recognition.finished) == (True, False)
    assert recognition.text.startswith("Well no no")


def test_a_budget_that_ran_out_is_no_finished_answer() -> None:
    recognition = said(answer_to(), TAG + "The", "length").recognition()
    assert (recognition.looped, recognition.finished, recognition.text) == (False, False, "The")


@pytest.mark.parametrize("tag", [TAG, " language Chinese<asr_text>", "language English,Chinese<asr_text>"])
def test_an_answer_that_begins_anew_is_none(tag: str) -> None:
    with pytest.raises(ServerFailure, match="does not go on"):
        said(answer_to(language="en"), tag + "The fox").recognition()
    said(answer_to(), tag + "The fox").recognition()
