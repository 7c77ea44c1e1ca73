"""Law 3 for words: whatever the aligner says, the words are the text and their times can be shown."""

from __future__ import annotations

import math
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.thresholds import MIN_WORD_S
from backend.transcript.timing import credible
from backend.transcript.words import Word, place, spread

SEEDED = settings(derandomize=True, deadline=None, max_examples=150)

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
    """What the aligner makes of a text: tokens without marks and punctuation, Han one by one."""
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


def assert_times(words: list[Word], start_s: float, end_s: float) -> None:
    edge = start_s
    for word in words:
        assert edge <= word.start_s < word.end_s <= end_s
        edge = word.end_s


def texts_of(text: str, words: list[Word]) -> list[str]:
    return [text[word.begin : word.end] for word in words]


def evenly(units: list[str], start_s: float = 0.0) -> list[tuple[str, float, float]]:
    """Each unit a second after the one before, half a second long."""
    return [(unit, start_s + at, start_s + at + 0.5) for at, unit in enumerate(units)]


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
def test_a_word_never_begins_with_what_clings_to_the_character_before(text) -> None:
    for word in spread(text, [(0, 10)]):
        clings = re.match(
            r"[\u0300-\u036f\u093e-\u094d\u0e31\u0e33-\u0e3a\u0e47-\u0e4e\ufe0f\u200d🏻-🏿]", text[word.begin :]
        )
        assert not clings or word.begin == 0 or text[word.begin - 1].isspace()


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


def test_a_word_keeps_the_time_of_its_unit() -> None:
    words = place("Hi, there.", [("Hi", 0.24, 2.32), ("there", 2.4, 2.8)], start_s=0, end_s=12)
    assert words == [Word(0, 3, 0.24, 2.32), Word(4, 10, 2.4, 2.8)]  # 0.24 + (2.32 - 0.24) would not be 2.32


def test_several_units_in_one_word_span_its_time() -> None:
    assert place("e-mail", [("e", 1.0, 1.2), ("mail", 1.2, 1.8)], start_s=0, end_s=3) == [Word(0, 6, 1.0, 1.8)]


def test_a_unit_over_two_words_shares_its_time_by_letters() -> None:
    words = place("New York", [("NewYork", 1.0, 1.7)], start_s=0, end_s=3)
    assert words[0].end_s == pytest.approx(1.3)
    assert words[1] == Word(4, 8, pytest.approx(1.3), 1.7)


def test_a_word_the_aligner_lost_lies_between_its_neighbours() -> None:
    words = place("one two three", [("one", 0.0, 0.4), ("three", 1.0, 1.4)], start_s=0, end_s=2)
    assert words[1] == Word(4, 7, 0.4, 1.0)


def test_lost_text_shares_its_stretch_by_length() -> None:
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


def test_a_foreign_or_doubled_unit_moves_no_other_word() -> None:
    text = "the cat sat on the mat and the dog"
    units = evenly(text.split())
    words = place(text, [("xyz", 0, 0), units[0], ("the", 0.6, 0.7), *units[1:]], start_s=0, end_s=10)
    assert [(word.start_s, word.end_s) for word in words] == [(start, end) for _, start, end in units]


def test_a_short_unit_is_not_mistaken_for_the_beginning_of_a_longer_word() -> None:
    text = "We are a team"
    words = place(text, [("We", 0.0, 0.5), ("a", 2.0, 2.5), ("team", 3.0, 3.5)], start_s=0, end_s=4)
    assert [word.start_s for word in words] == [0.0, 0.5, 2.0, 3.0]


def test_units_are_found_under_compatibility_case_and_lost_marks() -> None:
    units = evenly(["straße", "fine", "x2", "nave", "नमसत", "10", "ΣΟΦΟΣ"])
    words = place("STRASSE ﬁne x² na\u0308ve नमस्ते １０ σοφός", units, start_s=0, end_s=9)
    assert [(word.start_s, word.end_s) for word in words] == [(start, end) for _, start, end in units]


def test_a_common_word_inside_a_lost_stretch_does_not_take_the_time_of_a_later_one() -> None:
    names = [f"w{at}" for at in range(150)]
    names[8] = names[100] = "the"
    units = evenly(names)
    words = place(" ".join(names), units[:2] + units[100:], start_s=0, end_s=200)
    assert words[8].end_s < 20
    assert words[100].start_s == 100


def test_a_unit_that_lacks_letters_is_still_found() -> None:
    words = place("a Křečkovice b", [("a", 0.0, 0.5), ("Kečovice", 1.0, 1.5), ("b", 2.0, 2.5)], start_s=0, end_s=3)
    assert words[1].start_s == 1.0


def test_a_long_stretch_without_units_does_not_lose_what_follows() -> None:
    names = [f"w{at}" for at in range(200)]
    units = evenly(names)
    words = place(" ".join(names), units[:50] + units[150:], start_s=0, end_s=200)
    assert [word.start_s for word in words[150:]] == [float(at) for at in range(150, 200)]


@pytest.mark.parametrize(
    "wild",
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
def test_a_wild_time_costs_one_word_its_time_and_no_other(wild) -> None:
    units = evenly(list("abcde"))
    units[1] = ("b", *wild)
    words = place("a b c d e", units, start_s=0, end_s=5)
    assert [word.start_s for word in words] == [0.0, 0.5, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "wild", [(math.nan, 1), (0, math.nan), (-math.inf, 1), (0, math.inf), (1, 0), (-2, -1), (3, 4)], ids=str
)
def test_a_time_that_says_nothing_is_not_believed(wild) -> None:
    assert credible([wild], 0.0, 2.0) == [None]


def test_times_of_most_words_survive_an_aligner_that_errs_in_one_unit_of_five() -> None:
    rng = random.Random(7)
    vocabulary = [
        "the",
        "a",
        "of",
        "cat",
        "house",
        "running",
        "is",
        "it",
        "Berlin",
        "very",
        "old",
        "we",
        "never",
        "there",
    ]
    names = [rng.choice(vocabulary) for _ in range(2000)]
    units = evenly(names)
    kept = [unit for unit in units if rng.random() > 0.1]
    sent = [(rng.choice(names), *unit[1:]) if rng.random() < 0.1 else unit for unit in kept]
    words = place(" ".join(names), sent, start_s=0, end_s=2000)
    right = sum(word.start_s == unit[1] for word, unit in zip(words, units, strict=True))
    assert right > 0.9 * sum(sent_unit == unit for sent_unit, unit in zip(sent, kept, strict=True))


@pytest.mark.parametrize("units", ["same", "foreign", "shuffled"])
def test_two_thousand_words_take_well_under_a_second(units) -> None:
    names = [f"w{at}" for at in range(2000)]
    sent = {"same": names, "foreign": ["w"] * 2000, "shuffled": random.Random(1).sample(names, 2000)}[units]
    began = time.process_time()
    assert len(place(" ".join(names), evenly(sent), start_s=0, end_s=2000)) == 2000
    assert time.process_time() - began < 1.5


def test_a_unit_that_overlaps_the_next_ends_where_that_begins() -> None:
    words = place("a b", [("a", 0.0, 2.0), ("b", 1.0, 1.5)], start_s=0, end_s=3)
    assert words == [Word(0, 1, 0.0, 1.0), Word(2, 3, 1.0, 1.5)]


def test_more_words_than_fit_share_the_chunk_evenly() -> None:
    words = place("a b c d", [("a", 0.0, 0.01)], start_s=0, end_s=0.04)
    assert [word.start_s for word in words] == pytest.approx([0, 0.01, 0.02, 0.03])


def test_rounding_carries_no_word_out_of_a_chunk_that_is_just_long_enough() -> None:
    end_s = 0.1800000000001002  # nine words of 20 ms, summed up from the end, begin 7e-18 s before 0
    assert_times(place("a b c d e f g h i", [("a", 0.0, 0.0)], start_s=0, end_s=end_s), 0, end_s)


def test_words_on_one_instant_are_laid_side_by_side() -> None:
    words = place("a b c", [("a", 1.0, 1.0), ("b", 1.0, 1.0), ("c", 1.0, 1.0)], start_s=0, end_s=2)
    assert [word.start_s for word in words] == pytest.approx([1.0, 1.02, 1.04])


def test_spreading_gives_longer_words_more_time_and_sentences_a_pause() -> None:
    first, second, third = spread("ab. Abcd, ab", [(0, 11)])
    assert first.end_s == pytest.approx(4)  # two letters and the pause of a sentence
    assert second.end_s - second.start_s == pytest.approx(5)
    assert third.end_s == 11


def test_what_clings_to_a_letter_takes_no_time_of_its_own() -> None:
    first, second = spread("น้ำก", [(0, 2)])
    assert (first.end_s, second.end_s) == (pytest.approx(1), 2)


def test_a_shifted_word_moves_in_the_text_and_not_in_time() -> None:
    assert Word(1, 3, 0.5, 0.9).shifted(10) == Word(11, 13, 0.5, 0.9)


@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.nan)])
def test_a_chunk_without_room_is_refused(start_s, end_s) -> None:
    with pytest.raises(ValueError, match="no room"):
        spread("word", [(start_s, end_s)])


@pytest.mark.parametrize(
    ("text", "units"), [("№5 open", "5 open"), ("㈜삼성 전자", "삼성 전자"), ("℡555 call", "555 call")]
)
def test_a_sign_that_is_written_with_letters_does_not_cost_its_word_the_time(text: str, units: str) -> None:
    words = place(text, evenly(units.split()), start_s=0, end_s=3)
    assert [(word.start_s, word.end_s) for word in words] == [(0, 0.5), (1, 1.5)]
