"""A passage in another language than its recording: when it is heard again, and which answer stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
from answers import RATE, said, seconds, times
from hypothesis import given
from hypothesis import strategies as st

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import TranscribeOptions
from backend.pipeline.language_consistency import (
    LanguageHistory,
    asked_language_warnings,
    contradicting,
    is_written_in,
    likelier,
)
from backend.pipeline.recognized_chunk import (
    LOOP_COLLAPSED,
    NO_TEXT,
    OTHER_LANGUAGE,
    PROMPT_LEAKAGE,
    REPETITION_LOOP,
    STILL_NO_TEXT,
    TRUNCATED_ANSWER,
    RecognizedChunk,
    main_language,
)
from backend.process.request_warning import kinds_of
from backend.serving.protocols import Recognition, Utterance
from backend.transcript.speech_rate import spoken_letters

PLAIN = TranscribeOptions()
SURE, DOUBTFUL = 0.4, 0.2  # amplitudes; the detector of the fakes is twice as sure


@dataclass(frozen=True)
class Passage:
    """A passage that is heard as `text` in `language`, and in the recording's language as `again`."""

    language: str | None = "de"
    text: str = "Das ist ein Satz, der lang genug ist."
    again: str = "Noch einmal anders gehört."
    length_s: float = 5.0
    level: float = SURE


GERMAN = Passage()
SHORT = Passage("en", "Yeah, right.", "Ja, richtig.", 2.0)
LONG = Passage("en", "This is a sentence of five seconds.", "Dies ist ein Satz von fünf Sekunden.")
THIN = replace(LONG, text="This is that.")
SILENT = Passage(None, "", "")
TAGLESS = Passage(None, "And so on and so forth it goes.")


@pytest.fixture
def hear(transcribe, loader):
    """`await hear(passages, options)`: their transcript, and the numbers of those that were heard again, with how.

    Passages have 4 s of silence between them. Each has a level of its own, by which the recogniser knows it.
    """

    async def run(passages: list[Passage], options: TranscribeOptions = PLAIN, vad: bool = True):
        def number(utterance: Utterance) -> int:
            return round(100 * float(np.abs(utterance.samples).max())) % 20

        def answer(utterance: Utterance) -> Recognition:
            passage = passages[number(utterance)]
            if utterance.language is None:
                return said(passage.text, language=passage.language)
            return said(passage.again, language=utterance.language)

        rng, pieces = np.random.default_rng(1), []
        for at, passage in enumerate(passages):
            level = passage.level + at / 100
            pieces += [rng.uniform(-level, level, round(passage.length_s * RATE)), np.zeros(4 * RATE)]
        loader.recognizer.answer = answer
        transcript = await transcribe(np.concatenate(pieces[:-1]).astype(np.float32), options, vad=vad)
        forced = [u for u in loader.recognizer.utterances if u.language is not None]
        return transcript, sorted((number(u), u.language) for u in forced)

    return run


async def test_a_short_passage_is_heard_again_in_the_recordings_language(hear, loader) -> None:
    transcript, again = await hear([GERMAN, SHORT, GERMAN], TranscribeOptions(times=True, words=True))
    assert again == [(1, "de")]
    assert transcript.text == f"{GERMAN.text} Ja, richtig. {GERMAN.text}"
    assert transcript.warnings == (times(1, OTHER_LANGUAGE),)
    assert {(p.text, p.language) for p in loader.aligner.passages} == {(GERMAN.text, "de"), ("Ja, richtig.", "de")}


async def test_an_answer_that_stays_is_aligned_in_its_own_language(hear, loader) -> None:
    transcript, again = await hear(
        [GERMAN, replace(SHORT, again="Ja."), GERMAN], TranscribeOptions(times=True, words=True)
    )
    assert again == [(1, "de")]
    assert transcript.text == f"{GERMAN.text} Yeah, right. {GERMAN.text}"
    assert transcript.warnings == (times(1, OTHER_LANGUAGE),)
    assert (SHORT.text, "en") in {(p.text, p.language) for p in loader.aligner.passages}


@pytest.mark.parametrize(
    ("passages", "numbers"),
    [
        ([GERMAN, GERMAN, GERMAN], []),
        ([GERMAN, LONG, GERMAN], [1]),  # alone between two of the main language
        ([LONG, GERMAN, GERMAN], []),  # the first has one neighbour only
        ([GERMAN, GERMAN, LONG], []),
        ([SHORT, GERMAN, GERMAN], [0]),
        ([GERMAN, GERMAN, SHORT], [2]),
        ([replace(LONG, level=DOUBTFUL), GERMAN, GERMAN], [0]),
        ([GERMAN, SHORT], [1]),
        ([GERMAN, LONG], []),  # which of the two is the main language?
        ([GERMAN, GERMAN, LONG, replace(LONG, length_s=5.5)], []),
        ([replace(GERMAN, length_s=2.5), SHORT], []),
        ([SHORT], []),
        # twice in a row: a switch, also with nothing between, and for the same language elsewhere
        ([GERMAN, GERMAN, SHORT, SHORT, GERMAN], []),
        ([GERMAN, GERMAN, SHORT, SILENT, SHORT, GERMAN], []),
        ([GERMAN, GERMAN, SHORT, TAGLESS, SHORT, GERMAN], []),
        ([GERMAN, SHORT, GERMAN, GERMAN, SHORT, SHORT, GERMAN], []),
        ([GERMAN, SHORT, GERMAN, SHORT, GERMAN], [1, 3]),
        ([GERMAN, GERMAN, SHORT, replace(SHORT, language="nl"), GERMAN], [2, 3]),
        # passages without text or language are no neighbours
        ([GERMAN, SILENT, LONG, SILENT, GERMAN], [2]),
        ([GERMAN, TAGLESS, GERMAN], []),
        ([GERMAN, replace(TAGLESS, length_s=2.0), LONG, GERMAN], [2]),
    ],
)
async def test_which_passages_are_heard_again(hear, passages: list[Passage], numbers: list[int]) -> None:
    transcript, again = await hear(passages)
    silent = [number for number, passage in enumerate(passages) if passage is SILENT]
    assert [(number, language) for number, language in again if number not in silent] == [(n, "de") for n in numbers]
    counted = [warning for warning in transcript.warnings if "other_language" in kinds_of(warning)]
    assert counted == ([times(len(numbers), OTHER_LANGUAGE)] if numbers else [])


async def test_a_given_language_is_the_clients_word(hear) -> None:
    passages = [GERMAN, SHORT, GERMAN]
    transcript, forced = await hear(passages, TranscribeOptions(language="de"))
    assert forced == [(number, "de") for number in range(3)]  # each once
    assert transcript.warnings == ()


async def test_a_passage_without_text_keeps_its_own_fallbacks(hear) -> None:
    transcript, _ = await hear([GERMAN, SILENT, SHORT, GERMAN])
    assert set(transcript.warnings) == {times(1, NO_TEXT), times(1, STILL_NO_TEXT), times(1, OTHER_LANGUAGE)}


async def test_without_a_detector_a_passage_is_as_long_as_its_audio(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 4:
            return said(GERMAN.text, language="de")
        return said(SHORT.again if utterance.language else SHORT.text, language=utterance.language or "en")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(6, 6, 2), PLAIN, vad=False, max_chunk_s=7)
    assert transcript.text.endswith("Ja, richtig.")
    transcript = await transcribe(bursts(6, 6, 3.5), PLAIN, vad=False, max_chunk_s=7)
    assert transcript.text.endswith("Yeah, right.")


async def test_pieces_of_a_split_passage_are_judged_as_passages(transcribe, loader, bursts) -> None:
    """The fallback of the whole passage stays."""

    def answer(utterance: Utterance) -> Recognition:
        if utterance.language:
            return said("Ja, richtig.", language=utterance.language)
        if seconds(utterance) > 6:
            return said("Das ist", finished=False, language="de")
        is_end = seconds(utterance) < 3
        return said("Yeah, right." if is_end else GERMAN.text, language="en" if is_end else "de")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(4.5, 2.2), PLAIN, vad=True)
    assert transcript.text == f"{GERMAN.text} Ja, richtig."
    assert set(transcript.warnings) == {times(1, TRUNCATED_ANSWER), times(1, OTHER_LANGUAGE)}


async def test_two_pieces_of_one_passage_are_no_switch_of_language(transcribe, loader, bursts) -> None:
    """What the model mistook once it mistakes twice."""

    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 10:
            return said(GERMAN.text, language="de")
        if utterance.language:
            return said("Ja, das ist richtig so.", language=utterance.language)
        return said("Yeah.", finished=seconds(utterance) < 4, language="en")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(10, 4, 10, pause_s=4), PLAIN, vad=True)
    assert transcript.text == f"{GERMAN.text} Ja, das ist richtig so. Ja, das ist richtig so. {GERMAN.text}"
    assert set(transcript.warnings) == {times(1, TRUNCATED_ANSWER), times(2, OTHER_LANGUAGE)}


async def test_the_prompt_is_used_again(hear, loader) -> None:
    names = "Zoë Kravitz, Nguyễn Văn An, Bärbel Bohley"
    await hear([GERMAN, SHORT, GERMAN], TranscribeOptions(prompt=names))
    assert [u.prompt for u in loader.recognizer.utterances if u.language] == [names]


async def test_a_prompt_that_leaked_into_the_first_answer_is_not_used_again(transcribe, loader, bursts) -> None:
    names, asked = "Zoë Kravitz, Nguyễn Văn An, Bärbel Bohley", []

    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 4:
            return said(GERMAN.text, language="de")
        asked.append((utterance.language, utterance.prompt))
        return said(names if utterance.prompt else "Yeah, right.", language=utterance.language or "en")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(5, 0.8, pause_s=4), TranscribeOptions(prompt=names), vad=True)
    assert asked == [(None, names), (None, ""), ("de", "")]
    assert set(transcript.warnings) == {times(1, PROMPT_LEAKAGE), times(1, OTHER_LANGUAGE)}


SPEECH = Speech(((0, 60 * RATE),), np.ones(60 * RATE // 512, np.float32))


def part(text: str, language: str | None, length_s: float = 2.0, **recognition: bool) -> RecognizedChunk:
    return RecognizedChunk(
        Chunk(0, np.zeros(round(length_s * RATE), np.float32)), said(text, language=language, **recognition)
    )


@pytest.mark.parametrize(
    ("first", "again", "kept"),
    [
        ("Yeah, right.", "Ja, richtig.", True),
        ("Yeah, right.", "Ja, so.", False),  # less of the speech has text
        ("Yeah, right.", "", False),
        ("Yeah, right.", "Да, верно, так и есть.", False),  # told a language, the model wrote another one
        ("Yeah, right.", "ja " * 40, False),  # nobody says that in two seconds
        ("yeah right " * 12, "Ja, richtig.", True),  # nor this
        ("Ура, товарищи, вперёд.", "Ja, so.", True),  # called English by the model
        ("1984", "1984", True),
    ],
)
def test_of_a_short_passage_the_answer_in_the_main_language_is_kept_if_it_is_likely(
    first: str, again: str, kept: bool
) -> None:
    before, after = part(first, "en"), part(again, "de")
    assert likelier(before, after, SPEECH).recognition is (after if kept else before).recognition


@pytest.mark.parametrize(
    ("main", "again", "kept"), [("zh", "对，没错。", True), ("zh", "对。", False), ("el", "Ναι, σωστά.", True)]
)
def test_letters_are_compared_across_scripts(main: str, again: str, kept: bool) -> None:
    before, after = part("Yeah, right.", "en"), part(again, main)
    assert (likelier(before, after, SPEECH).recognition is after.recognition) == kept


@pytest.mark.parametrize("fault", [{"finished": False}, {"finished": False, "looped": True}])
def test_an_answer_that_did_not_end_is_not_kept(fault: dict[str, bool]) -> None:
    before, after = part("Yeah, right.", "en"), part("Ja, richtig, richtig.", "de", **fault)
    assert likelier(before, after, SPEECH) is before


@pytest.mark.parametrize(("passage", "kept"), [(LONG, False), (THIN, True)])
async def test_a_long_clear_passage_is_replaced_by_much_more_text_only(hear, passage: Passage, kept: bool) -> None:
    """Else a sentence in another language would be replaced by its translation."""
    transcript, again = await hear([GERMAN, passage, GERMAN])
    assert again == [(1, "de")]
    assert transcript.text == f"{GERMAN.text} {passage.again if kept else passage.text} {GERMAN.text}"
    assert transcript.warnings == (times(1, OTHER_LANGUAGE),)


def test_the_kept_answer_has_the_fallbacks_of_both_but_not_what_was_said_of_the_lost_text() -> None:
    before = replace(part("Yeah", "en", looped=True, finished=False), fallbacks=(REPETITION_LOOP, LOOP_COLLAPSED))
    after = replace(part("Ja, richtig.", "de"), fallbacks=(PROMPT_LEAKAGE,))
    assert likelier(before, after, SPEECH) == replace(after, fallbacks=(REPETITION_LOOP, PROMPT_LEAKAGE))


def test_nothing_is_doubted_without_text() -> None:
    assert contradicting([], "", SPEECH) == frozenset()
    assert contradicting([[part("", None)]], "", SPEECH) == frozenset()


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Ja, genau.", "de", True), ("Ja, genau.", "vi", True), ("Ja, genau.", "ru", False), ("Да", "mk", True),
        ("我用 Python 写程序。", "zh", True), ("I said 我", "zh", False), ("コーヒーを飲む", "ja", True),
        ("東京", "ja", True), ("東京", "ko", True), ("한국", "ko", True), ("한국", "ja", False), ("नमस्ते", "hi", True),
        ("สวัสดี", "th", True),
        ("سلام", "fa", True), ("سلام", "en", False), ("1984!", "el", True), ("", "en", True), ("Ｏｋ", "en", True),
    ],
)  # fmt: skip
def test_the_script_of_a_language(text: str, language: str, expected: bool) -> None:
    assert is_written_in(text, language) == expected


def test_the_passages_of_these_tests_are_as_long_as_they_say() -> None:
    assert spoken_letters(LONG.text) < 1.25 * spoken_letters(LONG.again) < 1.5 * spoken_letters(LONG.text)
    assert 1.25 * spoken_letters(THIN.text) < spoken_letters(THIN.again)


@pytest.mark.parametrize(
    ("asked", "text", "speech_s", "signs"),
    [
        ("de", "Das ist ein Satz, der lang genug ist.", 9.0, []),
        ("de", "Das ist ein Satz.", 9.0, ["there is little text for 9 s of speech; is the language"]),
        ("de", "Das ist ein Satz.", 7.0, []),
        ("en", "今天天气很好，我们一起去公园散步吧。", 9.0, ["the text is in another script; is the language"]),
        ("zh", "The quick brown fox jumps over the lazy dog.", 7.0, ["the text is in another script"]),
        (None, "Das.", 60.0, []),
        ("de", "", 60.0, []),
        ("de", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", 9.0, []),
    ],
)  # fmt: skip
def test_a_language_that_is_not_spoken_is_questioned(asked, text, speech_s, signs) -> None:
    samples = np.full(int(speech_s * RATE), SURE, np.float32)
    part = RecognizedChunk(Chunk(0, samples), said(text, language=asked))
    warnings = [*asked_language_warnings(asked, [part], SPEECH)]
    assert len(warnings) == len(signs)
    assert all(warning.startswith(sign) for warning, sign in zip(warnings, signs, strict=True))
    assert all(kinds_of(warning) == ("asked_language",) for warning in warnings)


@given(
    st.lists(st.tuples(st.sampled_from(["de", "en", "zh", None]), st.integers(1, 8)), min_size=1, max_size=8), st.data()
)
def test_a_history_judges_the_next_chunk_as_all_chunks_do_that_are_known(chunks, data) -> None:
    """Of a live stream the next chunk is the last that is known; of a file, later ones may be known as well."""
    ends = np.cumsum([length for _, length in chunks]) * RATE
    speech = Speech(tuple((int(end) - length * RATE, int(end)) for (_, length), end in zip(chunks, ends, strict=True)),
                    np.ones(int(ends[-1]) // 512 + 1, np.float32))  # fmt: skip
    parts = [
        RecognizedChunk(Chunk(begin, np.zeros(end - begin, np.float32)), said("Text.", language=language))
        for (language, _), (begin, end) in zip(chunks, speech.spans, strict=True)
    ]
    pieces = [*in_chunks(parts, data)]
    history = LanguageHistory()
    for number, of_chunk in enumerate(pieces):
        for count in {number + 1, data.draw(st.integers(number + 1, len(pieces)))}:
            known, all_known = pieces[number:count], pieces[:count]
            main = main_language(chain(*all_known), speech)
            assert main_language(chain(*known), speech, history.speech_ms) == main
            first = sum(map(len, pieces[:number]))
            judged = {at - first for at in contradicting(all_known, main, speech) if 0 <= at - first < len(of_chunk)}
            assert {*range(len(of_chunk))} & contradicting(known, main, speech, history) == judged
            if count == number + 1 and history.main == main and len(of_chunk) == 1 and judged:
                assert history.doubts(of_chunk[0].recognition.language, of_chunk[0].chunk, speech)  # nothing was shown
        history.add(of_chunk, speech)


def in_chunks(parts, data):
    """The parts as pieces of chunks of one to three."""
    at = 0
    while at < len(parts):
        size = data.draw(st.sampled_from([1, 1, 2, 3]))
        yield parts[at : at + size]
        at += size
