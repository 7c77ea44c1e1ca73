"""When each word of a reference was shown."""

from __future__ import annotations

import pytest

from devtools.eval.hypotheses import Word
from devtools.eval.live.word_lag import of_deltas, of_texts, rewrites

WORDS = (Word("Turn", 0.0, 0.4), Word("on", 0.5, 0.7), Word("the", 0.8, 1.0), Word("light", 1.1, 1.5))


def lags(arrivals) -> dict[str, float]:
    return {arrival.word.text: round(arrival.lag_s, 3) for arrival in arrivals}


def test_a_word_arrives_with_its_last_letter_and_before_its_full_stop() -> None:
    deltas = [(2.0, "Turn on th"), (3.0, "e light"), (4.0, ".")]
    assert lags(of_deltas(deltas, WORDS, "en")) == {"Turn": 1.6, "on": 1.3, "the": 2.0, "light": 1.5}


def test_words_that_are_wrong_or_missing_have_no_lag() -> None:
    assert lags(of_deltas([(2.0, "Turn off the")], WORDS, "en")) == {"Turn": 1.6, "the": 1.0}
    assert of_deltas([], WORDS, "en") == []


def test_a_chinese_word_arrives_with_its_last_character() -> None:
    words = (Word("零一", 0.0, 0.5), Word("二", 0.6, 1.0))
    assert lags(of_deltas([(1.0, "零"), (2.0, "一二。")], words, "zh")) == {"零一": 1.5, "二": 1.0}


def test_of_texts_that_replace_each_other_a_word_arrives_with_the_first_that_holds_it() -> None:
    texts = [(1.0, "Torn."), (2.0, "Turn on."), (3.0, "Turn on the light.")]
    assert lags(of_texts(texts, WORDS, "en")) == {"Turn": 1.6, "on": 1.3, "the": 2.0, "light": 1.5}


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["Turn.", "Turn on", "Turn on the"], 0),
        (["Tur.", "Turn on."], 0),  # the last word may grow
        (["Turn on the", "Turn of the light"], 1),
        (["A b c", "A x c", "A b c"], 2),
        ([], 0),
    ],
)
def test_a_rewrite_contradicts_words_that_were_shown(texts: list[str], count: int) -> None:
    assert rewrites(texts) == count
