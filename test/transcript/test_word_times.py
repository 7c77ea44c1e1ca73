"""The times of words: from their units, interpolated between them, or spread over speech."""

from __future__ import annotations

import math

import pytest
from units import assert_times, evenly

from backend.transcript.timing import credible
from backend.transcript.words import Word, place, spread


def test_a_word_keeps_the_time_of_its_unit() -> None:
    words = place("Hi, there.", [("Hi", 0.24, 2.32), ("there", 2.4, 2.8)], start_s=0, end_s=12)
    assert words == [Word(0, 3, 0.24, 2.32), Word(4, 10, 2.4, 2.8)]  # 0.24 + (2.32 - 0.24) would not be 2.32


def test_several_units_in_one_word_span_its_time() -> None:
    assert place("e-mail", [("e", 1.0, 1.2), ("mail", 1.2, 1.8)], start_s=0, end_s=3) == [Word(0, 6, 1.0, 1.8)]


def test_a_unit_over_two_words_shares_its_time_by_letters() -> None:
    words = place("New York", [("NewYork", 1.0, 1.7)], start_s=0, end_s=3)
    assert words[0].end_s == pytest.approx(1.3)
    assert words[1] == Word(4, 8, pytest.approx(1.3), 1.7)  # type: ignore[arg-type] # compares as a float


def test_a_word_the_aligner_lost_lies_between_its_neighbours() -> None:
    words = place("one two three", [("one", 0.0, 0.4), ("three", 1.0, 1.4)], start_s=0, end_s=2)
    assert words[1] == Word(4, 7, 0.4, 1.0)


def test_lost_words_share_their_gap_by_length() -> None:
    text = "start of something end"
    words = place(text, [("start", 0.0, 1.0), ("end", 2.1, 3.0)], start_s=0, end_s=4)
    assert words[1].end_s - words[1].start_s == pytest.approx(0.2)
    assert words[2].end_s - words[2].start_s == pytest.approx(0.9)


@pytest.mark.parametrize("opening", ["«", "¿", "“", "—"])
def test_punctuation_that_stands_alone_takes_no_time_from_the_pause_beside_it(opening) -> None:
    words = place(f"— Quoi ! {opening} Oui", [("Quoi", 1.0, 1.5), ("Oui", 4.0, 4.5)], start_s=0, end_s=5)
    assert words == [Word(0, 8, 1.0, 1.5), Word(9, 14, 4.0, 4.5)]


def test_a_unit_over_a_full_width_mark_is_two_words() -> None:
    words = place("用GPT。OpenAI的", [("用", 0.0, 0.2), ("GPTOpenAI", 1.0, 1.9), ("的", 2.0, 2.2)], start_s=0, end_s=3)
    assert [w.start_s for w in words] == pytest.approx([0.0, 1.0, 1.3, 2.0])


@pytest.mark.parametrize(
    "outlier",
    [
        (math.nan, 2.0),
        (math.inf, math.inf),
        (2.5, 1.0),
        (1.4, 1.0),
        (900.0, 901.0),
        (-9.0, -8.0),
        (4.9, 5.0),
        (-math.inf, 1.5),
        (1.2, math.inf),
    ],
)
def test_an_outlier_costs_one_word_its_time_and_no_other(outlier) -> None:
    units = evenly(list("abcde"))
    units[1] = ("b", *outlier)
    words = place("a b c d e", units, start_s=0, end_s=5)
    assert [word.start_s for word in words] == [0.0, 0.5, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "outlier", [(math.nan, 1), (0, math.nan), (-math.inf, 1), (0, math.inf), (1, 0), (-2, -1), (3, 4)], ids=str
)
def test_an_impossible_time_is_dropped(outlier) -> None:
    assert credible([outlier], 0.0, 2.0) == [None]


def test_a_unit_that_overlaps_the_next_ends_where_that_begins() -> None:
    words = place("a b", [("a", 0.0, 2.0), ("b", 1.0, 1.5)], start_s=0, end_s=3)
    assert words == [Word(0, 1, 0.0, 1.0), Word(2, 3, 1.0, 1.5)]


def test_more_words_than_fit_share_the_chunk_evenly() -> None:
    words = place("a b c d", [("a", 0.0, 0.01)], start_s=0, end_s=0.04)
    assert [word.start_s for word in words] == pytest.approx([0, 0.01, 0.02, 0.03])


def test_rounding_carries_no_word_out_of_a_chunk_that_is_just_long_enough() -> None:
    end_s = 0.1800000000001002  # nine words of 20 ms, summed up from the end, begin 7e-18 s before 0
    assert_times(place("a b c d e f g h i", [("a", 0.0, 0.0)], start_s=0, end_s=end_s), 0, end_s)


def test_words_at_the_same_time_are_laid_side_by_side() -> None:
    words = place("a b c", [("a", 1.0, 1.0), ("b", 1.0, 1.0), ("c", 1.0, 1.0)], start_s=0, end_s=2)
    assert [word.start_s for word in words] == pytest.approx([1.0, 1.02, 1.04])


def test_spreading_gives_longer_words_more_time_and_sentences_a_pause() -> None:
    first, second, third = spread("ab. Abcd, ab", [(0, 11)])
    assert first.end_s == pytest.approx(4)  # two letters and the pause of a sentence
    assert second.end_s - second.start_s == pytest.approx(5)
    assert third.end_s == 11


def test_combining_characters_take_no_time_of_their_own() -> None:
    first, second = spread("น้ำก", [(0, 2)])
    assert (first.end_s, second.end_s) == (pytest.approx(1), 2)


def test_a_shifted_word_moves_in_the_text_and_not_in_time() -> None:
    assert Word(1, 3, 0.5, 0.9).shifted(10) == Word(11, 13, 0.5, 0.9)


@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.nan)])
def test_a_chunk_without_room_is_refused(start_s, end_s) -> None:
    with pytest.raises(ValueError, match="no room"):
        spread("word", [(start_s, end_s)])
