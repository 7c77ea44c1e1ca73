"""Sounds without speech, speech without text, prompt leakage: what is retried, and what is not given to the model."""

from __future__ import annotations

import numpy as np
import pytest
from answers import RATE, said, seconds, times

from backend.options.load_options import TranscribeOptions
from backend.pipeline.recognized_chunk import (
    NO_TEXT,
    PROMPT_LEAKAGE,
    STILL_NO_TEXT,
)
from backend.serving.protocols import Recognition, Utterance

PLAIN = TranscribeOptions()
NAMES = "Zoë Kravitz, Nguyễn Văn An, Bärbel"


async def test_a_piece_without_speech_is_not_given_to_the_model(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        return said("One two three four five." if np.abs(utterance.samples).any() else "Thank you for watching!")

    loader.recognizer.answer = answer
    quiet = np.zeros(round(3.9 * RATE), np.float32)
    for samples, load in (
        (np.concatenate([bursts(12), quiet]), {}),
        (np.concatenate([quiet, bursts(5), quiet]), {}),
        (bursts(4, 4, pause_s=2.9), {"max_chunk_s": 2}),
    ):
        transcript = await transcribe(samples, TranscribeOptions(language="en"), vad=True, **load)
        assert "watching" not in transcript.text
        assert all(np.abs(u.samples).any() for u in loader.recognizer.utterances)


async def test_a_leaked_prompt_is_not_used_in_later_retries(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        return said(NAMES) if utterance.prompt else said("so it is " * 8, finished=False, looped=True)

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(0.6), TranscribeOptions(prompt=NAMES), vad=True)
    assert [u.prompt for u in loader.recognizer.utterances] == [NAMES, "", ""]
    assert transcript.text == "so it is"


async def test_a_retry_without_the_prompt_keeps_its_language(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 7:
            return said("Ein Satz, der lang genug ist.", language="de")
        if utterance.language is None:
            return said("", language=None)
        return said(f"{NAMES} {NAMES}" if utterance.prompt else "Ja, das stimmt so.", language="de")

    loader.recognizer.answer = answer
    samples = np.concatenate([bursts(8), np.zeros(RATE, np.float32), bursts(0.65)])
    transcript = await transcribe(samples, TranscribeOptions(prompt=NAMES), vad=True, max_chunk_s=9.5)
    assert transcript.text == "Ein Satz, der lang genug ist. Ja, das stimmt so."
    assert [(u.language, u.prompt) for u in loader.recognizer.utterances][2:] == [("de", NAMES), ("de", "")]


async def test_speech_without_text_is_retried_in_the_recordings_language(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 7:
            return said("Ein Satz, der lang genug ist.", language="de")
        return said("Noch einer." if utterance.language == "de" else "", language="de")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(8, 3), PLAIN, vad=True, max_chunk_s=9.5)
    assert transcript.text == "Ein Satz, der lang genug ist. Noch einer."
    assert transcript.warnings == (times(1, NO_TEXT),)
    assert [u.language for u in loader.recognizer.utterances] == [None, None, "de"]


@pytest.mark.parametrize(("level", "text"), [(0.02, "Noch einer."), (0.5, "so " * 60)])
async def test_a_possible_hallucination_in_the_recordings_language_is_not_kept(
    transcribe, loader, bursts, level, text
) -> None:
    """Where the speech is doubtful, and where there is more text than anybody could have said."""

    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 7:
            return said("Ein Satz, der lang genug ist.", language="de")
        return said(text if utterance.language == "de" else "", language="de")

    loader.recognizer.answer = answer
    samples = np.concatenate([bursts(8), np.zeros(RATE, np.float32), bursts(3, level=level)])
    transcript = await transcribe(samples, PLAIN, vad=True, max_chunk_s=9.5)
    assert transcript.text == "Ein Satz, der lang genug ist."
    assert times(1, STILL_NO_TEXT) in transcript.warnings
    assert ("de" in {u.language for u in loader.recognizer.utterances}) == (level > 0.1)


async def test_a_loop_in_the_recordings_language_is_no_text(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 7:
            return said("Ein Satz, der lang genug ist.", language="de")
        if utterance.language == "de":
            return said("ja " * 30, finished=False, looped=True)
        return said("" if seconds(utterance) > 2.2 else "Na gut.", language="de")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(8, 3), PLAIN, vad=True, max_chunk_s=9.5)
    assert transcript.text == "Ein Satz, der lang genug ist. Na gut. Na gut."


async def test_speech_without_text_and_language_is_retried_in_halves(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("" if seconds(u) > 5 else "Now I hear it.")
    transcript = await transcribe(bursts(8), PLAIN, vad=True)
    assert transcript.text == "Now I hear it. Now I hear it."
    assert transcript.warnings == (times(1, NO_TEXT),)


async def test_speech_that_stays_without_text_has_a_warning(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: said("")
    transcript = await transcribe(bursts(3), PLAIN, vad=True)
    assert (transcript.text, transcript.segments) == ("", ())
    assert set(transcript.warnings) == {times(1, NO_TEXT), times(1, STILL_NO_TEXT)}


async def test_without_speech_the_model_is_not_run(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(3) * 0.001, TranscribeOptions(language="en"), vad=True)
    assert loader.recognizer.utterances == []
    assert (transcript.text, transcript.segments, transcript.warnings) == ("", (), ())
    assert transcript.duration_s == 3


async def test_a_pause_of_seconds_is_not_given_to_the_model(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(2, 2, pause_s=40), PLAIN, vad=True)
    assert sorted(seconds(u) for u in loader.recognizer.utterances) == [pytest.approx(3.0, abs=0.05)] * 2
    assert transcript.segments[1].start_s == pytest.approx(42, abs=0.05)


@pytest.mark.parametrize(
    ("text", "level", "again"),
    [
        ("Zoë Kravitz, Nguyễn Văn An.", 0.02, True),  # recited over something faint
        ("Zoë Kravitz, Nguyễn Văn An.", 0.5, False),  # really said
        ("zoe kravitz nguyen van an barbel", 0.02, True),
        ("Bärbel Zoë Văn Kravitz An", 0.02, False),  # not in its order
        ("Bärbel.", 0.02, False),  # an answer
        ("We met Zoë Kravitz and Bärbel at the lake yesterday.", 0.02, False),
        (f"{NAMES} {NAMES}.", 0.02, True),
    ],
)
async def test_prompt_leakage_is_retried_without_the_prompt(transcribe, loader, bursts, text, level, again) -> None:
    loader.recognizer.answer = lambda u: said(text if u.prompt else "Hm.")
    transcript = await transcribe(bursts(3, level=level), TranscribeOptions(prompt=NAMES), vad=True)
    assert transcript.text == ("Hm." if again else text)
    assert [u.prompt for u in loader.recognizer.utterances] == [NAMES, ""][: 1 + again]
    assert transcript.warnings == ((times(1, PROMPT_LEAKAGE),) if again else ())


@pytest.mark.parametrize(("level", "again"), [(0.02, True), (0.5, False)])
async def test_a_prompt_of_one_word_may_leak_too(transcribe, loader, bursts, level, again) -> None:
    loader.recognizer.answer = lambda u: said("Kubernetes." if u.prompt else "Hm.")
    transcript = await transcribe(bursts(3, level=level), TranscribeOptions(prompt="Kubernetes"), vad=True)
    assert transcript.text == ("Hm." if again else "Kubernetes.")


async def test_a_prompt_faster_than_anybody_speaks_is_leakage(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said(NAMES if u.prompt else "Hm.")
    transcript = await transcribe(bursts(0.6), TranscribeOptions(prompt=NAMES), vad=True)
    assert transcript.text == "Hm."


async def test_a_forced_language_holds_for_every_retry(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("" if seconds(u) > 5 else "Ja, das stimmt.", language="de")
    transcript = await transcribe(bursts(8), TranscribeOptions(language="de"), vad=True)
    assert (transcript.text, transcript.language) == ("Ja, das stimmt. Ja, das stimmt.", "de")
    assert {u.language for u in loader.recognizer.utterances} == {"de"}


async def test_the_main_language_has_the_most_speech_and_not_the_most_audio(transcribe, loader, bursts) -> None:
    """Two words of French in 10 s of pauses, then 5 s of German."""
    samples = bursts(0.5, 0.5, 0.5, 0.5, pause_s=2.5)
    german = bursts(5)

    def answer(utterance: Utterance) -> Recognition:
        return said("Ja, so ist es eben.", language="de" if seconds(utterance) < 8 else "fr")

    loader.recognizer.answer = answer
    whole = np.concatenate([samples, np.zeros(4 * RATE, np.float32), german])
    assert (await transcribe(whole, PLAIN, vad=True)).language == "de"
