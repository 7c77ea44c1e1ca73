"""Segments: sentences, gaps and limits, and law 3 for all of them."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.languages import ALIGNABLE
from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.words import Word, place, spread

FRAGMENTS = (
    *(
        "Hello,",
        "world.",
        "Mr.",
        "3.",
        "Mai",
        "»",
        "«",
        "!",
        "...",
        '"',
        "—",
        "e.g.",
        "J.",
        "“Yes.”",
        "you",
        "?",
        "no.",
    ),
    *("Sept.", "z.", "B.", "av.", "J.-C.", "So...", "I", "U.S.", "He", "(.", "「はい。」", "と言う", "(e.g.)", "V."),
    *("你好，世界。", "東京タワー", "नमस्ते।", "สวัสดีครับ", "مرحبا؟", "한국어.", "😀", "Как", "дела?", ";", "\u0301"),
)
TEXTS = st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(["", " ", " ", "\n"])), max_size=25).map(
    lambda parts: "".join(map("".join, parts))
)
LIMITS = st.builds(
    SegmentRules,
    gap_threshold_s=st.one_of(st.none(), st.floats(0, 2)),
    max_seconds=st.one_of(st.none(), st.floats(0, 8)),
    max_chars=st.one_of(st.none(), st.integers(0, 40)),
)

LANGUAGES = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([*sorted(ALIGNABLE), "nl", ""])), max_size=3)


def timed(text: str, gaps_s: dict[str, float] | None = None) -> list[Word]:
    """The words of `text`, 0.2 s each, 0.05 s apart, or as far as `gaps_s` says after a word."""
    words, clock_s = [], 0.0
    for word in spread(text, [(0, 1000)]):
        words.append(Word(word.begin, word.end, clock_s, clock_s + 0.2))
        clock_s += 0.2 + (gaps_s or {}).get(text[word.begin : word.end], 0.05)
    return words


def sentences(text: str, gaps_s: dict[str, float] | None = None, **rules: Any) -> list[str]:
    merged = merge(text, timed(text, gaps_s), SegmentRules(**rules))
    return [text[segment.begin : segment.end] for segment in merged]


def assert_law(text: str, words: list[Word], segments: list[Segment]) -> None:
    assert [word for segment in segments for word in segment.words] == words
    assert all(segment.words for segment in segments)
    assert all(segment.begin == segment.words[0].begin and segment.end == segment.words[-1].end for segment in segments)
    edges = [0, *(edge for segment in segments for edge in (segment.begin, segment.end)), len(text)]
    assert all(text[end:begin].strip() == "" for end, begin in list(pairwise(edges))[::2])
    assert all(before.end_s <= after.start_s for before, after in pairwise(segments))
    assert all(segment.start_s < segment.end_s for segment in segments)


@settings(max_examples=150)
@given(TEXTS, LIMITS, LANGUAGES, st.randoms(use_true_random=False))
def test_segments_partition_the_words_and_keep_the_limits(text, rules, languages, rng) -> None:
    units = [(unit, rng.uniform(0, 20), rng.uniform(0, 20)) for unit in re.findall(r"\w+", text)]
    words = place(text, sorted(units, key=lambda unit: unit[1]), start_s=0, end_s=20)
    segments = merge(text, words, rules, sorted(languages))
    assert_law(text, words, segments)
    for segment in segments:
        if len(segment.words) > 1:
            assert rules.max_chars is None or segment.end - segment.begin <= rules.max_chars
            assert rules.max_seconds is None or segment.end_s - segment.start_s <= rules.max_seconds + 1e-5
        if rules.gap_threshold_s is not None:
            gaps = [after.start_s - before.end_s for before, after in pairwise(segment.words)]
            assert all(gap < rules.gap_threshold_s for gap in gaps)


@pytest.mark.parametrize(
    "parts",
    [
        ["Hello there.", "How are you?", "Fine!", "Good"],
        ["He said “No.”", "Then (it was late.)", "We left."],
        ['"Really?" she said.', '"Yes!"', "He nodded."],
        ["Well... maybe not.", "Or…", "Yes."],
        ["你好。", "你好吗？", "他说：“好！”", "再见。"],
        ["東京です。", "「はい。」", "そうですか？"],
        ["यह है।", "वह है॥", "क्या?"],
        ["كيف حالك؟", "بخير۔", "نعم."],
        ["Բարեւ։", "Այո։"],
        ["Τι κάνεις;", "Καλά."],
        ["Er sagte: „Anführungszeichen.“", "Dann ging er."],
        ["« Bonjour ! »", "Il part.", "Quoi ?", "« Rien. »"],
        ["« Bonjour ! » dit-il.", "Puis rien."],
        ["¿Qué?", "¡No!", "¿ Sí ?"],
        ["네.", "알겠습니다."],
        ["是.", "我来."],
        ["— Привет.", "— Как дела?"],
        ["- Hello there.", "- Hi, you.", "- Fine."],
        ["That was fun. 🎉", "Bye now."],
        ['" Stop now. "', "Yes."],
        ["我用GPT。", "OpenAI很好。"],
    ],
)
def test_a_sentence_ends_with_its_mark_and_the_closing_marks_after_it(parts) -> None:
    separator = "" if "。" in parts[0] else " "
    assert sentences(separator.join(parts)) == parts


@pytest.mark.parametrize(
    "parts",
    [
        ["Mr. Smith met Dr. Jones, e.g. here.", "They left."],
        ["Apples, pears, etc. are fine.", "We like apples, etc.", "They do not."],
        ["At 5 p.m. we left.", "We met at 5 p.m.", "It rained."],
        ["J. R. Tolkien wrote it.", "The U.S. Army came."],
        ["So do I.", "Good."],
        ["No.", "See No. 5 now."],
        ["Pi is 3.14 or so.", "It costs 5.", "Then we paid 3.50.", "Done."],
        ["Am 3. Mai im 19. Jahrhundert.", "Es waren 12.", "Dann ging er z. B. weg, d. h. heim."],
        ["Den 3. maj kom hun.", "2024. aasta oli hea."],
        ["1. First item.", "2. Second item."],
        ["Go to www.example.com or a@b.org.", "Open file.txt now."],
        ["El Sr. García vino.", "Mme. Dupont aussi."],
        ["и т. д. и т. п.", "Потом всё."],
        ["We use bzw. need it vs. them."],
        ["The Dept. of State and EE. UU. ganó."],
        ["Am 5. Tag kam der 2. Mann.", "Der 1. FC Köln gewann zum 12. Mal.", "Es waren 12.", "Dann ging er."],
        ["เขาเกิดเมื่อ พ.ศ. 2560 ที่กรุงเทพ ดร.สมชายมา"],
        ["قال د. أحمد نعم.", "ثم ذهب."],
        ["श्री ए. पी. जे. अब्दुल आए।", "वह गया।"],
        ["음... 그래서 왔어요.", "네.", "알겠습니다."],
        ["यह अच्छा है.", "मैं जाता हूँ.", "जी.", "तुम कौन हो?"],
        ["Das sind 5 %.", "Wir zahlen 20 €.", "Es sind 20 °C.", "Gut.", "See № 5."],
        ["I am 12.", "My sister is 10.", "Abro das 8.", "Depois fecho."],
        ["Uh...", "2 of them.", "Il dit...", "— « Oui. »"],
        ["well, okay.", "right.", "so we go."],
        ["ok.", "iPhone sales are up."],
        ["يعني... لا أعرف.", "نعم أعرف."],
    ],
)
def test_a_full_stop_inside_a_sentence_does_not_end_it(parts) -> None:
    assert sentences(" ".join(parts)) == parts


def test_an_ellipsis_does_not_end_a_sentence_in_a_script_without_capitals() -> None:
    assert sentences("那个……我想说，这是对的。好。") == ["那个……我想说，这是对的。", "好。"]


def test_a_host_name_beside_han_is_not_cut() -> None:
    assert sentences("访问www.例子.com。好。") == ["访问www.例子.com。", "好。"]


def test_a_long_gap_ends_a_segment_without_any_mark() -> None:
    assert sentences("one two three four", {"two": 0.3}) == ["one two", "three four"]


def test_the_threshold_grows_with_the_usual_gap() -> None:
    text = "a b c d e f"
    slow = dict.fromkeys("abcde", 0.2)
    assert sentences(text, slow | {"c": 0.7}) == [text]
    assert sentences(text, slow | {"c": 0.81}) == ["a b c", "d e f"]


def test_a_gap_threshold_of_the_user_replaces_the_derived_one() -> None:
    assert sentences("one two three", {"one": 0.5}, gap_threshold_s=0.6) == ["one two three"]
    assert sentences("one two three", {"one": 0.5}, gap_threshold_s=0.5) == ["one", "two three"]


def test_a_sentence_that_is_too_long_is_cut_at_clause_marks_first() -> None:
    text = "aaa bbb, ccc ddd eee; fff ggg"
    assert sentences(text, {"ccc": 0.2}, max_chars=22) == ["aaa bbb,", "ccc ddd eee; fff ggg"]
    assert sentences(text, {"ccc": 0.2}, max_chars=13) == ["aaa bbb,", "ccc ddd eee;", "fff ggg"]
    assert sentences("aaa co-ddd - fff", {"aaa": 0.2}, max_chars=13) == ["aaa co-ddd -", "fff"]


def test_a_clause_that_is_too_long_is_cut_at_its_widest_gap() -> None:
    assert sentences("aaa bbb ccc ddd", {"aaa": 0.2}, max_chars=14) == ["aaa", "bbb ccc ddd"]
    assert sentences("aaa bbb ccc ddd", {"aaa": 0.2}, max_seconds=0.9) == ["aaa", "bbb ccc ddd"]


def test_equal_gaps_are_cut_at_a_space_near_the_middle() -> None:
    assert sentences("สวัส ดีครับผม", max_chars=9) == ["สวัส", "ดีครับผม"]
    assert sentences("あいうえおか", max_chars=4) == ["あいう", "えおか"]


def test_a_single_word_may_exceed_every_limit() -> None:
    assert sentences("Donaudampfschifffahrt", max_chars=3, max_seconds=0.01) == ["Donaudampfschifffahrt"]


def test_no_words_make_no_segments() -> None:
    assert merge(" ", [], SegmentRules()) == []
