"""Words are trimmed to the detected speech; SpeechClock stops during pauses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.thresholds import ALIGNER_TOLERANCE_S
from backend.transcript.pauses import SpeechClock, trim_to_speech
from backend.transcript.words import Word

SEEDED = settings(max_examples=200)
MARKS = st.lists(st.floats(0, 100).map(lambda t: round(t, 3)), min_size=2, max_size=40, unique=True).map(sorted)


def spans_of(marks: list[float]) -> list[tuple[float, float]]:
    return list(zip(marks[::2], marks[1::2], strict=False))


def cut(word: tuple[float, float], *spoken: tuple[float, float], text: str = "word") -> tuple[float, float]:
    (found,) = trim_to_speech(text, [Word(0, len(text), *word)], spoken)
    return found.start_s, found.end_s


def test_a_word_that_reaches_into_a_pause_is_trimmed_to_its_speech() -> None:
    assert cut((1.5, 4.0), (1.0, 2.0)) == (1.5, 2.0 + ALIGNER_TOLERANCE_S)
    assert cut((0.0, 1.4), (1.0, 2.0)) == (1.0 - ALIGNER_TOLERANCE_S, 1.4)


def test_a_word_over_a_long_pause_stays_with_the_larger_part_of_its_speech() -> None:
    assert cut((0.9, 4.9), (0.0, 1.0), (4.0, 6.0)) == (4.0 - ALIGNER_TOLERANCE_S, 4.9)


GROUPS = (0.2, 2.0), (2.6, 3.5), (4.1, 6.3)


@pytest.mark.parametrize("number", ["5558675309", "555-867-5309.", "１２３４５６７"])
def test_a_long_number_may_have_pauses_inside(number) -> None:
    assert cut((1.5, 4.9), *GROUPS, text=number) == (1.5, 4.9)
    # the first group is another word's
    assert cut((2.1, 4.9), *GROUPS, text=number) == (2.6 - ALIGNER_TOLERANCE_S, 4.9)


@pytest.mark.parametrize("word", ["1984", "number", "10,000", "1.500.000"])
def test_no_other_word_has_pauses_inside(word) -> None:
    assert cut((1.5, 4.9), *GROUPS, text=word) == (2.6 - ALIGNER_TOLERANCE_S, 3.5 + ALIGNER_TOLERANCE_S)


def test_a_long_number_that_fits_in_one_part_of_speech_gets_that_part() -> None:
    assert cut((0.9, 9.0), (0.8, 1.0), (4.0, 9.0), text="12345") == (4.0 - ALIGNER_TOLERANCE_S, 9.0)


def test_a_closure_inside_a_word_is_no_pause() -> None:
    assert cut((1.0, 2.0), (0.5, 1.4), (1.4 + 1.9 * ALIGNER_TOLERANCE_S, 3.0)) == (1.0, 2.0)


def test_the_aligner_is_trusted_a_little_beyond_the_detected_speech() -> None:
    assert cut((0.9, 2.1), (1.0, 2.0)) == (0.9, 2.1)


@pytest.mark.parametrize("word", [(5.0, 6.0), (2.0 + ALIGNER_TOLERANCE_S - 0.001, 3.0)])
def test_a_word_in_a_pause_altogether_stays(word) -> None:
    assert cut(word, (1.0, 2.0), (9.0, 10.0)) == word


def test_without_speech_words_keep_their_times() -> None:
    assert cut((5.0, 6.0)) == (5.0, 6.0)


@SEEDED
@given(MARKS, MARKS, st.randoms(use_true_random=False))
def test_words_stay_in_order_apart_and_long_enough(words, spans, rng) -> None:
    before = [Word(n, n + 6, start, end) for n, (start, end) in enumerate(spans_of(words)) if end - start >= 0.02]
    text = "".join(rng.choice("a1") for _ in range(40))
    after = trim_to_speech(text, before, spans_of(spans))
    assert [(w.begin, w.end) for w in after] == [(w.begin, w.end) for w in before]
    assert all(b.start_s <= a.start_s < a.end_s <= b.end_s for a, b in zip(after, before, strict=True))
    assert all(w.end_s - w.start_s >= 0.02 - 1e-9 for w in after)
    assert all(a.end_s <= b.start_s for a, b in pairwise(after))


def test_the_clock_runs_only_during_speech() -> None:
    clock = SpeechClock([(1.0, 2.0), (5.0, 7.0)])
    assert clock.total_s == 3.0
    assert (clock.word_start_s(0.0), clock.word_end_s(3.0)) == (1.0, 7.0)
    assert (clock.word_end_s(1.0), clock.word_start_s(1.0)) == (2.0, 5.0)
    assert clock.word_start_s(2.0) == clock.word_end_s(2.0) == 6.0


@SEEDED
@given(MARKS, st.lists(st.floats(0, 1), min_size=2, max_size=20, unique=True).map(sorted))
def test_the_clock_never_runs_backwards_and_stays_in_speech(marks, shares) -> None:
    spoken = spans_of(marks)
    clock = SpeechClock(spoken)
    times = [share * clock.total_s for share in shares]
    for earlier, later in pairwise(times):
        assert clock.word_end_s(earlier) <= clock.word_start_s(earlier) <= clock.word_end_s(later) + 1e-9
    for time in times:
        for real in (clock.word_start_s(time), clock.word_end_s(time)):
            assert any(start - 1e-9 <= real <= end for start, end in spoken)
