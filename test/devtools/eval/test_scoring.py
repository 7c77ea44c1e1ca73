"""Scores against cases computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.eval import normalization
from devtools.eval.compare.specs import BACKEND, PACKAGE
from devtools.eval.hypotheses import Hypothesis, Word
from devtools.eval.manifest import Entry
from devtools.eval.report import ALL, NO_SPEECH, Report
from devtools.eval.scoring import Count, Scored, figures, matches, order_violations, score, zero_length


def entry(text: str, language: str = "en", words: tuple[Word, ...] = ()) -> Entry:
    return Entry("a", Path("a.wav"), text, language, words)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words"),
    [
        ("Open the door.", "open the door", Count(0, 3)),
        ("Open the door.", "Open a big door.", Count(2, 3)),
        ("Open the door.", "", Count(3, 3)),
        ("Open the door.", "Open the the door now", Count(2, 3)),
        ("It's fifteen colours.", "it is 15 colors", Count(0, 4)),  # it is 15 colors
        ("One two three.", "One two four.", Count(1, 1)),  # digits in a row are one word: 123
    ],
)
def test_english_words_are_counted_after_whispers_normaliser(reference: str, hypothesis: str, words: Count) -> None:
    assert score(entry(reference), Hypothesis(hypothesis, "en")).words == words


def test_characters_of_english_include_the_spaces_between_words() -> None:
    assert score(entry("Open door"), Hypothesis("Open doors", "en")).characters == Count(1, 9)


def test_chinese_is_counted_in_characters_for_both() -> None:
    found = score(entry("一二三四五。六七。", "zh"), Hypothesis("一二 三四，八六", "zh"))  # 五 is wrong, 七 is missing
    assert found.words == found.characters == Count(2, 7)


def test_other_languages_lose_case_width_and_punctuation() -> None:
    assert normalization.words("¡Ｓtraße, «GROSS»!", "de") == ["strasse", "gross"]
    assert normalization.words("नमस्ते दुनिया।", "hi") == ["नमस्ते", "दुनिया"]  # marks belong to their letters
    assert normalization.words("สวัสดี ครับ", "th") == list("สวัสดีครับ")


REFERENCE = (Word("Hello", 0.2, 0.6), Word("wide", 0.7, 0.9), Word("world", 1.0, 1.5))


def test_boundaries_are_measured_on_words_that_match_whatever_their_case_and_punctuation() -> None:
    hypothesis = (Word("hello,", 0.25, 0.6), Word("white", 0.7, 0.9), Word("World!", 1.1, 1.4))
    found = score(entry("Hello wide world", words=REFERENCE), Hypothesis("hello, white World!", "en", hypothesis))
    assert found.matches == ((0, 0), (2, 2))
    assert found.edge_errors_s == pytest.approx((0.05, 0.0, 0.1, 0.1))
    assert found.edge_mean_s == pytest.approx(0.0625)


def test_a_missing_word_and_lone_punctuation_do_not_shift_the_pairs() -> None:
    hypothesis = (Word("Hello", 0.2, 0.6), Word("…", 0.6, 0.7), Word("world", 1.0, 1.5))
    assert list(matches(REFERENCE, hypothesis)) == [(0, 0), (2, 2)]


@pytest.mark.parametrize(("reference", "hypothesis"), [((), REFERENCE), (REFERENCE, ()), ((), ())])
def test_without_words_on_either_side_nothing_matches(
    reference: tuple[Word, ...], hypothesis: tuple[Word, ...]
) -> None:
    assert list(matches(reference, hypothesis)) == []


def test_words_of_no_length_and_words_out_of_order_are_counted() -> None:
    words = (Word("a", 0.0, 0.5), Word("b", 0.4995, 0.7), Word("c", 0.69, 0.69), Word("d", 0.8, 0.75))
    assert zero_length(words) == 2  # c, and d that ends before it starts
    assert order_violations(words) == 1  # c; b is within 1 ms


def test_a_failed_recording_counts_as_an_empty_hypothesis() -> None:
    found = score(
        entry("Open the door.", words=REFERENCE), Hypothesis("Open the door.", "en", REFERENCE, failure="INTERNAL: no")
    )
    assert found.words == Count(3, 3)
    assert (found.matches, found.timed_words, found.right_language) == ((), 0, False)


def test_a_text_without_speech_is_invented_and_no_word_error() -> None:
    found = score(entry("", ""), Hypothesis(" you", "en"))
    assert found.invented
    assert found.words.units == 0
    assert found.right_language is None
    assert not score(entry("", ""), Hypothesis(" ", "")).invented


def test_errors_of_a_group_are_added_up_before_they_are_divided() -> None:
    long = entry("open the door and turn on the light please now")
    short = entry("stop")
    scored = [
        Scored(e, a, score(e, a), 10.0)
        for e, a in ((long, Hypothesis(long.text, "en")), (short, Hypothesis("play", "zh")))
    ]
    found = figures(scored)
    assert found.wer == pytest.approx(1 / 11)  # not the mean of 0 and 1
    assert found.language == 0.5
    assert found.boundaries is None
    assert found.zero_length is None
    assert found.order_violations is None
    assert found.speed is None  # nothing took any time


def test_the_figures_of_a_report_by_hand(report: Report) -> None:
    backend, package = report.systems[BACKEND].figures, report.systems[PACKAGE].figures
    assert list(backend) == ["English", "Chinese", NO_SPEECH, ALL]
    assert backend["English"].wer == 0
    assert backend["English"].boundaries is not None
    assert backend["English"].boundaries.mean_s == pytest.approx((0.01 + 0.02) / 6)
    assert backend["Chinese"].wer == pytest.approx(2 / 2)  # 二 became 三, and a b came along
    assert backend[ALL].wer == pytest.approx(2 / 5)
    assert backend[ALL].speed == pytest.approx(6 / 1.1)
    assert (backend[NO_SPEECH].silent, backend[NO_SPEECH].invented) == (1, 0)
    assert package["English"].wer == pytest.approx(1 / 3)
    assert package["English"].zero_length == pytest.approx(1 / 2)
    assert package["English"].boundaries is not None
    assert package["English"].boundaries.close == pytest.approx(2 / 4)  # 200 ms twice, then 40 and 60
    assert (package["Chinese"].failures, package["Chinese"].wer, package["Chinese"].language) == (1, 1.0, 0.0)
    assert package[NO_SPEECH].invented == 1


def test_the_worst_recording_comes_first(report: Report) -> None:
    assert [r.entry.id for r in report.worst_first] == ["bad <script>", "good", "nobody"]
