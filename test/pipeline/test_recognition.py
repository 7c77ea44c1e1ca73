"""A recogniser that loops, is truncated or has too little text: which fallbacks run, and which answer is kept."""

from __future__ import annotations

import pytest
from answers import RATE, said, seconds, times

from backend.options.load_options import TranscribeOptions
from backend.pipeline.recognized_chunk import (
    LOOP_COLLAPSED,
    REPETITION_LOOP,
    STILL_TRUNCATED,
    TOO_LITTLE_TEXT,
    TRUNCATED_ANSWER,
)
from backend.serving.protocols import Recognition, Token, Utterance

PLAIN = TranscribeOptions()


async def test_a_truncated_answer_is_retried_in_halves_without_a_penalty(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said(f"{seconds(u):.1f} s of it.", finished=seconds(u) < 6)
    transcript = await transcribe(bursts(5, 5), PLAIN, vad=True)
    assert transcript.text == "5.5 s of it. 5.5 s of it."
    assert transcript.warnings == (times(1, TRUNCATED_ANSWER),)
    assert {u.repetition_penalty for u in loader.recognizer.utterances} == {1.0}
    assert sum(u.samples.size for u in loader.recognizer.utterances) == 2 * 11 * RATE


async def test_an_answer_that_stays_truncated_keeps_its_text_with_a_warning(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: said("one two", finished=False)
    transcript = await transcribe(bursts(3.9), PLAIN, vad=True)
    assert transcript.text == "one two one two"
    assert set(transcript.warnings) == {
        times(1, TRUNCATED_ANSWER),
        times(2, STILL_TRUNCATED),
    }


async def test_a_repetition_loop_is_retried_in_halves_with_a_growing_penalty(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        return said("la la la", finished=False, looped=True) if seconds(utterance) > 4 else said("Good.")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(14), PLAIN, vad=True)
    assert transcript.text == "Good. Good. Good. Good."
    found = sorted((round(seconds(u), 1), u.repetition_penalty) for u in loader.recognizer.utterances)
    assert found == [(3.5, 1.1)] * 4 + [(7.0, 1.05)] * 2 + [(14.0, 1.0)]
    assert transcript.warnings == (times(3, REPETITION_LOOP),)


async def test_a_loop_in_one_chunk_penalises_no_other_chunk(transcribe, loader, bursts) -> None:
    samples = bursts(8, 3)

    def answer(utterance: Utterance) -> Recognition:
        loops = seconds(utterance) > 6
        return said("la la la" if loops else "All is fine.", finished=not loops, looped=loops)

    loader.recognizer.answer = answer
    await transcribe(samples, PLAIN, vad=True, max_chunk_s=9.5)
    assert sorted(u.repetition_penalty for u in loader.recognizer.utterances) == [1.0, 1.0, 1.05, 1.05]


async def test_a_loop_that_outlives_every_fallback_is_collapsed_and_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: said("Well, " + "so it is " * 8, finished=False, looped=True)
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert transcript.text == "Well, so it is"
    assert [u.repetition_penalty for u in loader.recognizer.utterances] == [1.0, 1.15]
    assert set(transcript.warnings) == {
        times(1, LOOP_COLLAPSED),
        times(1, REPETITION_LOOP),
    }
    assert transcript.tokens == ((1, 1, 1, 1),)


async def test_a_short_loop_that_ends_at_the_retry_is_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: (
        said("So so so.", finished=False, looped=True) if u.repetition_penalty == 1 else said("So so.")
    )
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert (transcript.text, transcript.warnings) == ("So so.", (times(1, REPETITION_LOOP),))


@pytest.mark.parametrize("length_s", [1.5, 14])
@pytest.mark.parametrize("again", ["", "No."])
async def test_a_retry_of_a_loop_that_lost_nearly_all_text_is_not_kept(
    transcribe, loader, bursts, length_s, again
) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if utterance.repetition_penalty > 1:
            return said(again)
        return said("We went down to the river. And then " + "the end. " * 9, finished=False, looped=True)

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(length_s), PLAIN, vad=True)
    assert transcript.text == "We went down to the river. And then the end."
    assert times(1, LOOP_COLLAPSED) in transcript.warnings


async def test_a_truncated_answer_is_kept_if_its_halves_have_less_text(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One two three four.", finished=False) if seconds(u) > 9 else said("")
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert transcript.text == "One two three four."
    assert set(transcript.warnings) == {
        times(1, TRUNCATED_ANSWER),
        times(1, STILL_TRUNCATED),
    }


@pytest.mark.parametrize(
    ("vad", "second", "kept"),
    [
        (True, "Yes.", False),
        (False, "Yes.", False),
        (True, "", True),
        (False, "", True),
        (True, "Yes, so", True),
    ],
)
async def test_complete_halves_replace_a_truncated_answer(transcribe, loader, bursts, vad, second, kept) -> None:
    """Unless a half with speech has no text, or a half is truncated, too."""
    ramble = "one hundred and one, one hundred and two, one hundred and three"
    halves: list[str] = []

    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 3:
            return said(ramble, finished=False)
        halves.append("Yes." if not halves else second)
        return said(halves[-1], finished=halves[-1] in ("Yes.", ""))

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(3.5), PLAIN, vad=vad)
    assert transcript.text == (ramble if kept else "Yes. Yes.")


async def test_complete_halves_without_text_take_no_text_away(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One two three four.", finished=False) if seconds(u) > 3 else said("")
    transcript = await transcribe(bursts(0.3, 0.3, pause_s=2.6), PLAIN, vad=True)
    assert len(loader.recognizer.utterances) == 3
    assert transcript.text == "One two three four."


@pytest.mark.parametrize("marks", [".", "♪", "…", "~"])
async def test_punctuation_alone_is_no_text(transcribe, loader, bursts, marks) -> None:
    loader.recognizer.answer = lambda u: said(marks if seconds(u) > 5 else "Now I hear it.")
    transcript = await transcribe(bursts(8), PLAIN, vad=True)
    assert transcript.text == "Now I hear it. Now I hear it."
    loader.recognizer.answer = lambda _: said(marks, language="ja")
    transcript = await transcribe(bursts(8), PLAIN, vad=False)
    assert (transcript.text, transcript.language, transcript.segments) == ("", "", ())


@pytest.mark.parametrize("text", ["It cost 1000", "I think that...", "www", "call 0800 000 000"])
async def test_a_truncated_answer_that_is_no_loop_is_not_collapsed(transcribe, loader, bursts, text: str) -> None:
    loader.recognizer.answer = lambda _: said(text, finished=False)
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert (transcript.text, transcript.warnings) == (text, (times(1, STILL_TRUNCATED),))


async def test_a_phrase_that_ends_inside_a_token_keeps_its_token(transcribe, loader, bursts) -> None:
    loop = Recognition("哈" * 30, "zh", False, tuple(Token(5, at, at + 3) for at in range(0, 30, 3)), looped=True)
    loader.recognizer.answer = lambda _: loop
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert (transcript.text, transcript.tokens) == ("哈", ((5,),))


async def test_fallbacks_of_an_answer_that_is_not_kept_are_not_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("Hallelujah, amen.") if seconds(u) > 9 else said("A.", finished=False)
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert (transcript.text, transcript.warnings) == (
        "Hallelujah, amen.",
        (times(1, TOO_LITTLE_TEXT),),
    )


async def test_too_little_text_is_retried_and_the_longer_text_kept(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One." if seconds(u) > 9 else "One two three four five.")
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert transcript.text == "One two three four five. One two three four five."
    assert transcript.warnings == (times(1, TOO_LITTLE_TEXT),)


async def test_little_text_is_kept_if_the_halves_have_no_more(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("Hallelujah." if seconds(u) > 9 else "")
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert transcript.text == "Hallelujah."


async def test_without_a_detector_little_text_is_not_retried(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One." if seconds(u) > 9 else "One two three four five.")
    transcript = await transcribe(bursts(10), PLAIN, vad=False)
    assert (transcript.text, transcript.warnings) == ("One.", ())
