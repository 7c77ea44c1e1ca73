"""Law 3 for words: for any aligner output the words partition the text and their times are in order."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from units import assert_times, evenly

from backend.thresholds import MIN_WORD_S
from backend.transcript.words import Word, place, spread

SEEDED = settings(max_examples=150)
FRAGMENTS = (
    *(
        "Hello,",
        "it’s",
        "it's",
        "e-mail",
        "“Quoted.”",
        "(see",
        "3.14",
        "1,000",
        "naïve",
        "nai\u0308ve",
        "ﬁn",
        "Straße",
        "I",
    ),
    *(
        "Привет,",
        "мир!",
        "你好",
        "，世界。",
        "「東京」",
        "タワー",
        "ｶﾞ",
        "한국어를",
        "배워요.",
        "مرحبا،",
        "كيف؟",
        "कि",
        "नमस्ते।",
    ),
    *(
        "สวัสดี",
        "น้ำ",
        "ខ្មែរ",
        "မြန်မာ",
        "２０２４年",
        "iPhone手机",
        "½",
        "😀",
        "👩‍👩‍👧",
        "👍🏽",
        "🇩🇪🇫🇷",
        "«",
        "»",
        "!",
        "—",
        "¿Qué",
    ),
    *("\u0301", "\u200b", "\ufeff", "x²", "١٢٣", "J.", "www.example.com"),
)
SPACES = ("", "", " ", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u202f", "\x1f")
TEXTS = st.one_of(
    st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(SPACES)), max_size=25).map(
        lambda parts: "".join(map("".join, parts))
    ),
    st.text(max_size=30),
)
SECONDS = st.one_of(
    st.floats(-5, 40),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 10.0, 30.0, 1e308, -1e308]),
    st.integers(0, 375).map(lambda frame: frame * 0.08),
)
CHUNKS = st.tuples(
    st.sampled_from([0.0, 10.0, 3600.5]), st.one_of(st.floats(0.001, 60), st.sampled_from([1 / 16000, 0.02, 30.0]))
).map(lambda chunk: (chunk[0], chunk[0] + chunk[1]))


def bare_units(text: str) -> list[str]:
    """The aligner's units of a text: tokens without marks and punctuation, Han characters one by one."""
    return [
        unit
        for token in text.split()
        for unit in re.findall(
            r"[\u4e00-\u9fff]|[^\u4e00-\u9fff]+", "".join(c for c in token if c.isalnum() or c == "'")
        )
    ]


@st.composite
def alignments(draw: st.DrawFn) -> tuple[str, list[tuple[str, float, float]]]:
    """A text, and its units after anything that can go wrong: lost, doubled, foreign, shuffled, with any times."""
    text = draw(TEXTS)
    units = bare_units(text)
    fate = draw(st.lists(st.sampled_from("kkkkdfx"), min_size=len(units), max_size=len(units)))
    copies = {"k": 1, "d": 2, "f": 1, "x": 0}
    names = [
        draw(TEXTS) if end == "f" else unit for unit, end in zip(units, fate, strict=True) for _ in range(copies[end])
    ]
    if draw(st.booleans()):
        names = draw(st.permutations(names))
    if draw(st.booleans()):
        return text, [(name, draw(SECONDS), draw(SECONDS)) for name in names]
    return text, [
        (name, 0.4 * at, 0.4 * at + draw(st.sampled_from([0.0, 0.24, 0.4, 9.0]))) for at, name in enumerate(names)
    ]


def assert_partition(text: str, words: list[Word]) -> None:
    covered = [at for word in words for at in range(word.begin, word.end) if not text[at].isspace()]
    assert covered == [at for at, char in enumerate(text) if not char.isspace()]
    assert all(word.begin < word.end for word in words)


def texts_of(text: str, words: list[Word]) -> list[str]:
    return [text[word.begin : word.end] for word in words]


def placed(text: str, units: str) -> list[str]:
    aligned = evenly(units.split())
    return texts_of(text, place(text, aligned, start_s=0, end_s=len(aligned) + 1.0))


@SEEDED
@given(alignments(), CHUNKS)
def test_placed_words_partition_the_text_and_their_times_are_in_order_for_any_units(alignment, chunk) -> None:
    text, units = alignment
    words = place(text, units, start_s=chunk[0], end_s=chunk[1])
    assert_partition(text, words)
    assert_times(words, *chunk)


@SEEDED
@given(TEXTS, CHUNKS)
def test_spread_words_partition_the_text_and_their_times_are_in_order(text, chunk) -> None:
    words = spread(text, [(chunk[0], chunk[1])])
    assert_partition(text, words)
    assert_times(words, *chunk)


@SEEDED
@given(alignments(), CHUNKS)
def test_every_word_lasts_20_ms_where_that_fits(alignment, chunk) -> None:
    text, units = alignment
    words = place(text, units, start_s=chunk[0], end_s=chunk[1])
    shortest = min((word.end_s - word.start_s for word in words), default=math.inf)
    assert shortest >= min(MIN_WORD_S, (chunk[1] - chunk[0]) / max(len(words), 1)) - 1e-9


@SEEDED
@given(TEXTS, CHUNKS)
def test_without_units_placing_is_spreading(text, chunk) -> None:
    placed, coarse = place(text, [], start_s=chunk[0], end_s=chunk[1]), spread(text, [chunk])
    assert [(w.begin, w.end) for w in placed] == [(w.begin, w.end) for w in coarse]
    assert [w.start_s for w in placed] == pytest.approx([w.start_s for w in coarse])
    assert [w.end_s for w in placed] == pytest.approx([w.end_s for w in coarse])


@SEEDED
@given(TEXTS)
def test_a_word_never_begins_with_a_combining_character(text) -> None:
    for word in spread(text, [(0, 10)]):
        combines = re.match(
            r"[\u0300-\u036f\u093e-\u094d\u0e31\u0e33-\u0e3a\u0e47-\u0e4e\ufe0f\u200d🏻-🏿]", text[word.begin :]
        )
        assert not combines or word.begin == 0 or text[word.begin - 1].isspace()


@pytest.mark.parametrize(
    ("text", "units", "words"),
    [
        ("“Hello,” she said.", "Hello she said", ["“Hello,”", "she", "said."]),
        ("Don’t stop, it's 3.14!", "Dont stop it's 314", ["Don’t", "stop,", "it's", "3.14!"]),
        ("An e-mail (re-sent).", "An email resent", ["An", "e-mail", "(re-sent)."]),
        ("An e-mail came", "An e mail came", ["An", "e-mail", "came"]),
        ("¿Qué? ¡No!", "Qué No", ["¿Qué?", "¡No!"]),
        ("Er sagte: „Guten Tag“, dann", "Er sagte Guten Tag dann", ["Er", "sagte:", "„Guten", "Tag“,", "dann"]),
        ("«\u00a0espace\u202f» oui\u00a0!", "espace oui", ["«\u00a0espace\u202f»", "oui\u00a0!"]),
        ("你好，“世界”。我", "你 好 世 界 我", ["你", "好，", "“世", "界”。", "我"]),
        ("Hello世界", "Hel lo世 界", ["Hello世", "界"]),
        ('他说"好"了', "他 说 好 了", ["他", "说", '"好"', "了"]),
        ("買iPhone 15手機", "買 iPhone 15 手 機", ["買", "iPhone", "15", "手", "機"]),
        ("「東京タワー」へ行く。", "東京 タワー へ 行く", ["「東京", "タワー」", "へ", "行く。"]),
        ("नमस्ते, दुनिया।", "नमसत दनय", ["नमस्ते,", "दुनिया।"]),
        ("학교에 갔어요.", "학교 에 갔어요", ["학교에", "갔어요."]),
        ("STRASSE ﬁne x²", "straße fine x2", ["STRASSE", "ﬁne", "x²"]),
        ("New York", "NewYork", ["New", "York"]),
    ],
)
def test_bare_units_get_their_punctuation_and_marks_back(text, units, words) -> None:
    assert placed(text, units) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("สวัสดีครับ น้ำ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ", "น้ำ"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("ｶﾞｽ", ["ｶﾞ", "ｽ"]),
        ("👩‍👩‍👧 👍🏽", ["👩‍👩‍👧 👍🏽"]),
        ("😀 oui 👍🏽 non", ["😀 oui 👍🏽", "non"]),
        ("— Привет. — Как дела?", ["— Привет.", "— Как", "дела?"]),
        ("so - or so — maybe", ["so -", "or", "so —", "maybe"]),
        ('" Stop now. " Yes.', ['" Stop', 'now. "', "Yes."]),
        ("¿ Qué ?", ["¿ Qué ?"]),
        ("It costs 5 % or 3 €.", ["It", "costs", "5", "%", "or", "3", "€."]),
        ("我们用的是GPT。OpenAI的", ["我", "们", "用", "的", "是", "GPT。", "OpenAI", "的"]),
        ("100，200，“OK！Good！”", ["100，", "200，", "“OK！", "Good！”"]),
        ("GPT（Open）AI，12：30", ["GPT（Open）AI，", "12：30"]),
        ("日本（Tokyo）へ", ["日", "本", "（Tokyo）", "へ"]),
        ("f(x) is", ["f(x)", "is"]),
        ("你（）好", ["你（）", "好"]),
        ("日本🇩🇪🇫🇷へ", ["日", "本🇩🇪🇫🇷", "へ"]),
        ("…好", ["…好"]),
        ("한국어 배워요", ["한국어", "배워요"]),
        (" \n\u3000", []),
        ("", []),
    ],
)
def test_text_without_units_is_split_as_its_script_is_written(text, words) -> None:
    assert texts_of(text, spread(text, [(0, 5)])) == words
