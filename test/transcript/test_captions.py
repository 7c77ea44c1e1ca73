"""Captions: the bounds hold wherever the words' times allow it, and breaks lie where a reader wants them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.subtitles.captions import Caption, CaptionRules, captions, line_rules
from backend.transcript.subtitles.line_breaks import Break, Layout, break_before, wrapped
from backend.transcript.words import Word
from devtools.eval.caption_bounds import RULES, faults, main, plain_layout, recording, timed

RECORDINGS = st.builds(recording, st.randoms(use_true_random=False))
SHORT = st.builds(recording, st.randoms(use_true_random=False), most=st.just(6))


@settings(max_examples=150)
@given(RECORDINGS)
def test_captions_are_slices_in_order_with_times_that_do_not_overlap(spoken: tuple[str, list[Word]]) -> None:
    text, words = spoken
    duration_s = words[-1].end_s + 0.2
    segments = merge(text, words, SegmentRules(captions=RULES), [(0, "en")], duration_s)
    assert [word for segment in segments for word in segment.words] == words
    assert "".join(text[s.begin : s.end] for s in segments).replace(" ", "") == text.replace(" ", "")
    for segment in segments:
        assert segment.start_s < segment.end_s <= duration_s
        assert segment.words[-1].start_s < segment.end_s
    for before, after in pairwise(segments):
        assert before.end_s <= after.start_s


@settings(max_examples=60)
@given(SHORT)
def test_no_cut_has_fewer_captions_out_of_bounds(spoken: tuple[str, list[Word]]) -> None:
    text, all_words = spoken
    words = all_words[:7]
    layout = plain_layout(text, words)
    fewest = len(words) * 5
    for inner in range(len(words)):
        for places in combinations(range(1, len(words)), inner):
            cut = with_ends(words, layout, places)
            found = list(faults(words, layout, cut))
            too_much = [number for number, fault in found if fault in {"lines", "long"}]
            if all(cut[number].after - cut[number].first == 1 for number in too_much):
                fewest = min(fewest, len(found))
    assert sum(1 for _ in faults(words, layout, captions(text, words, RULES))) <= fewest


def with_ends(words: Sequence[Word], layout: Layout, places: Sequence[int]) -> list[Caption]:
    """The cut at these places, each caption shown as long as its readers want it and the next one allows."""
    cut = []
    for first, after in pairwise([0, *places, len(words)]):
        start_s = words[first].start_s
        room_s = (words[after].start_s if after < len(words) else inf) - start_s - RULES.gap_s
        to_read_s = min(max(RULES.min_s, layout.chars(first, after) / 17), RULES.max_s)
        cut.append(Caption(first, after, start_s + min(max(words[after - 1].end_s - start_s, to_read_s), room_s)))
    return cut


@settings(max_examples=100)
@given(RECORDINGS)
def test_a_caption_out_of_bounds_is_a_single_word_or_has_no_room(spoken: tuple[str, list[Word]]) -> None:
    text, words = spoken
    cut = captions(text, words, RULES)
    for number, fault in faults(words, plain_layout(text, words), cut):
        caption = cut[number]
        if fault in {"lines", "long"}:
            assert caption.after - caption.first == 1
        else:  # the next caption begins too early
            next_s = words[caption.after].start_s if caption.after < len(words) else inf
            assert caption.end_s >= min(next_s - RULES.gap_s, words[caption.first].start_s + RULES.max_s) - 1e-6


def shown(
    text: str, language: str = "en", rules: CaptionRules = RULES, gap_s: float = 0.02, word_s: float = 0.3
) -> list[str]:
    words = timed(text, [(gap_s, word_s)])
    return [slice_of(text, s) for s in merge(text, words, SegmentRules(captions=rules), [(0, language)])]


def slice_of(text: str, segment: Segment) -> str:
    return text[segment.begin : segment.end]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (
            "We left early in the morning. The road was empty for many miles, and nobody said a word until noon.",
            "en",
            ["We left early in the morning.", "The road was empty for many miles, and nobody said a word until noon."],
        ),
        (
            "When the rain had stopped at last, we walked along the river to the bridge and looked for the boat.",
            "en",
            ["When the rain had stopped at last,", "we walked along the river to the bridge and looked for the boat."],
        ),
        ("Yes. I do.", "en", ["Yes. I do."]),
        (
            "今天天气很好，我们一起去公园散步吧。明天也许会下雨，所以要带伞。",
            "zh",
            ["今天天气很好，我们一起去公园散步吧。", "明天也许会下雨，所以要带伞。"],
        ),
    ],
)  # fmt: skip
def test_breaks_lie_at_sentences_and_clauses(text: str, language: str, expected: list[str]) -> None:
    assert shown(text, language) == expected


@pytest.mark.parametrize(
    ("before", "after", "language", "is_together"),
    [
        ("the", "house", "en", True), ("das", "Haus", "de", True), ("la", "casa", "es", True),
        ("house", "is", "en", False),
        ("10", "000", "en", True), ("3", "kg", "en", True), ("€", "5", "en", True), ("Anna", "Smith", "en", True),
        ("said", "Anna", "en", False), ("the", "Haus", "", False), ("I", "Will", "en", False),
    ],
)  # fmt: skip
def test_what_belongs_together(before: str, after: str, language: str, is_together: bool) -> None:
    text = f"{before} {after}"
    left, right = Word(0, len(before), 0, 1), Word(len(before) + 1, len(text), 1, 2)
    assert (break_before(text, left, right, language) is Break.WITHIN_UNIT) == is_together


def test_lines_end_neither_in_an_article_nor_inside_a_number() -> None:
    text = "The committee has decided to give to the 12 000 people of the village a new school and a library"
    words = timed(text, [(0.0, 0.2)])
    breaks = [Break.SENTENCE, *(break_before(text, *pair, "en") for pair in pairwise(words))]
    layout = Layout(text, words, breaks, line_rules(CaptionRules(line_chars=60)))
    at = layout.line_break(0, len(words))
    assert at is not None
    assert breaks[at] is Break.WORD
    assert max(layout.width(0, at), layout.width(at, len(words))) <= 1


def test_the_lower_line_is_the_longer_one() -> None:
    text = "eight of nine words here are of equal size"
    words = timed(text, [(0.0, 0.2)])
    layout = Layout(text, words, [Break.WORD] * len(words), line_rules(CaptionRules(line_chars=30)))
    at = layout.line_break(0, len(words))
    assert at is not None
    assert layout.width(0, at) <= layout.width(at, len(words))


def test_a_long_sentence_without_marks_is_cut_within_the_bounds() -> None:
    text = " ".join(["alpha beta gamma delta"] * 25)
    parts = shown(text)
    assert len(parts) > 5
    assert max(map(len, parts)) <= 84


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Short enough for a line.", "en", ["Short enough for a line."]),
        (
            "The road was empty for many miles, and nobody said a word until noon.",
            "en",
            ["The road was empty for many miles,", "and nobody said a word until noon."],
        ),
        ("今天天气很好，我们一起去公园散步吧。", "zh", ["今天天气很好，", "我们一起去公园散步吧。"]),
        ("supercalifragilistic" * 5, "en", ["supercalifragilistic" * 5]),
        ("", "en", [""]),
    ],
)
def test_a_client_wraps_a_caption_into_lines(text: str, language: str, expected: list[str]) -> None:
    assert wrapped(text, language, line_rules(RULES)) == expected


def test_without_captions_segments_end_with_their_words() -> None:
    text = "One two. Three four."
    words = timed(text, [(0.0, 0.3)])
    assert [s.end_s for s in merge(text, words, SegmentRules())] == [words[1].end_s, words[3].end_s]


def test_the_measurement_counts_sentences_and_captions_of_the_same_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["40"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    kinds = ("demo set, sentences", "demo set, captions", "40 random texts, sentences", "40 random texts, captions")
    assert all(row.startswith(kind) for row, kind in zip(rows, kinds, strict=True))
    shares = [float(row.partition(" %")[0].split()[-1]) for row in rows]
    assert shares[0] < shares[1] <= 100
    assert shares[2] < shares[3] <= 100
