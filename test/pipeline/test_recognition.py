"""A recogniser that loops, stops short, stays silent or recites on cue: what is heard again, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from backend.options import TranscribeOptions
from backend.pipeline import recognition
from backend.pipeline.transcriber import PASSAGES
from backend.serving.protocols import Recognition, Token, Utterance

RATE = 16_000
PLAIN = TranscribeOptions()


def seconds(utterance: Utterance) -> float:
    return utterance.samples.size / RATE


def said(text: str, *, finished: bool = True, looped: bool = False, language: str | None = "en") -> Recognition:
    """A recognition of `text`, with a token for each of its words."""
    tokens, at = [], 0
    for word in text.split():
        begin = text.index(word, at)
        at = begin + len(word)
        tokens.append(Token(1, begin, at))
    return Recognition(text, language if text else None, finished, tuple(tokens), looped)


def times(count: int, remedy: str) -> str:
    return PASSAGES.format(count=count, remedy=remedy)


Answer = Callable[[Utterance], Recognition]


async def test_a_chunk_that_does_not_end_is_heard_again_in_halves_without_a_penalty(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said(f"{seconds(u):.1f} s of it.", finished=seconds(u) < 6)
    transcript = await transcribe(bursts(5, 5), PLAIN, vad=True)
    assert transcript.text == "5.5 s of it. 5.5 s of it."
    assert transcript.warnings == (times(1, recognition.UNFINISHED),)
    assert {u.repetition_penalty for u in loader.recognizer.utterances} == {1.0}
    assert sum(u.samples.size for u in loader.recognizer.utterances) == 2 * 11 * RATE


async def test_a_chunk_that_never_ends_keeps_its_text_and_says_so(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: said("one two", finished=False)
    transcript = await transcribe(bursts(3.9), PLAIN, vad=True)
    assert transcript.text == "one two one two"
    assert set(transcript.warnings) == {times(1, recognition.UNFINISHED), times(2, recognition.CUT)}


async def test_a_loop_is_heard_again_in_halves_with_a_penalty_that_grows(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        return said("la la la", finished=False, looped=True) if seconds(utterance) > 4 else said("Good.")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(14), PLAIN, vad=True)
    assert transcript.text == "Good. Good. Good. Good."
    found = sorted((round(seconds(u), 1), u.repetition_penalty) for u in loader.recognizer.utterances)
    assert found == [(3.5, 1.1)] * 4 + [(7.0, 1.05)] * 2 + [(14.0, 1.0)]
    assert transcript.warnings == (times(3, recognition.LOOPED),)


async def test_a_loop_in_one_chunk_penalises_no_other(transcribe, loader, bursts) -> None:
    samples = bursts(8, 3)

    def answer(utterance: Utterance) -> Recognition:
        loops = seconds(utterance) > 6
        return said("la la la" if loops else "All is fine.", finished=not loops, looped=loops)

    loader.recognizer.answer = answer
    await transcribe(samples, PLAIN, vad=True, max_chunk_s=9.5)
    assert sorted(u.repetition_penalty for u in loader.recognizer.utterances) == [1.0, 1.0, 1.05, 1.05]


async def test_a_loop_that_outlives_every_remedy_is_said_once_and_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: said("Well, " + "so it is " * 8, finished=False, looped=True)
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert transcript.text == "Well, so it is"
    assert [u.repetition_penalty for u in loader.recognizer.utterances] == [1.0, 1.15]
    assert set(transcript.warnings) == {times(1, recognition.COLLAPSED), times(1, recognition.LOOPED)}
    assert transcript.tokens == ((1, 1, 1, 1),)


async def test_a_short_loop_that_ends_the_second_time_is_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: (
        said("So so so.", finished=False, looped=True) if u.repetition_penalty == 1 else said("So so.")
    )
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert (transcript.text, transcript.warnings) == ("So so.", (times(1, recognition.LOOPED),))


@pytest.mark.parametrize("length_s", [1.5, 14])
@pytest.mark.parametrize("again", ["", "No."])
async def test_a_second_hearing_of_a_loop_that_lost_nearly_all_is_not_kept(
    transcribe, loader, bursts, length_s, again
) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if utterance.repetition_penalty > 1:
            return said(again)
        return said("We went down to the river. And then " + "the end. " * 9, finished=False, looped=True)

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(length_s), PLAIN, vad=True)
    assert transcript.text == "We went down to the river. And then the end."
    assert times(1, recognition.COLLAPSED) in transcript.warnings


async def test_an_unfinished_text_is_kept_where_its_halves_have_less(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One two three four.", finished=False) if seconds(u) > 9 else said("")
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert transcript.text == "One two three four."
    assert set(transcript.warnings) == {times(1, recognition.UNFINISHED), times(1, recognition.CUT)}


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
async def test_an_answer_that_rambled_on_gives_way_to_halves_that_ended(
    transcribe, loader, bursts, vad, second, kept
) -> None:
    """Unless somebody speaks in a half that says nothing, or a half did not end either."""
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


async def test_halves_that_ended_with_nothing_take_no_text_away_however_little_was_heard(
    transcribe, loader, bursts
) -> None:
    loader.recognizer.answer = lambda u: said("One two three four.", finished=False) if seconds(u) > 3 else said("")
    transcript = await transcribe(bursts(0.3, 0.3, pause_s=2.6), PLAIN, vad=True)
    assert len(loader.recognizer.utterances) == 3
    assert transcript.text == "One two three four."


@pytest.mark.parametrize("marks", [".", "♪", "…", "~"])
async def test_marks_alone_are_no_text(transcribe, loader, bursts, marks) -> None:
    loader.recognizer.answer = lambda u: said(marks if seconds(u) > 5 else "Now I hear it.")
    transcript = await transcribe(bursts(8), PLAIN, vad=True)
    assert transcript.text == "Now I hear it. Now I hear it."
    loader.recognizer.answer = lambda _: said(marks, language="ja")
    transcript = await transcribe(bursts(8), PLAIN, vad=False)
    assert (transcript.text, transcript.language, transcript.segments) == ("", "", ())


@pytest.mark.parametrize("text", ["It cost 1000", "I think that...", "www", "call 0800 000 000"])
async def test_what_is_cut_and_no_loop_is_not_collapsed(transcribe, loader, bursts, text: str) -> None:
    loader.recognizer.answer = lambda _: said(text, finished=False)
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert (transcript.text, transcript.warnings) == (text, (times(1, recognition.CUT),))


async def test_a_phrase_in_the_middle_of_a_token_keeps_its_token(transcribe, loader, bursts) -> None:
    loop = Recognition("哈" * 30, "zh", False, tuple(Token(5, at, at + 3) for at in range(0, 30, 3)), looped=True)
    loader.recognizer.answer = lambda _: loop
    transcript = await transcribe(bursts(1.5), PLAIN, vad=True)
    assert (transcript.text, transcript.tokens) == ("哈", ((5,),))


async def test_no_piece_without_speech_is_given_to_the_model(transcribe, loader, bursts) -> None:
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


async def test_a_recited_prompt_does_not_come_back(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        return said(NAMES) if utterance.prompt else said("so it is " * 8, finished=False, looped=True)

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(0.6), TranscribeOptions(prompt=NAMES), vad=True)
    assert [u.prompt for u in loader.recognizer.utterances] == [NAMES, "", ""]
    assert transcript.text == "so it is"


async def test_a_hearing_without_the_prompt_keeps_its_language(transcribe, loader, bursts) -> None:
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


async def test_remedies_of_a_hearing_that_is_not_kept_are_not_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: (
        said("Hallelujah, praise be.") if seconds(u) > 9 else said("Ha.", finished=False)
    )
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert (transcript.text, transcript.warnings) == ("Hallelujah, praise be.", (times(1, recognition.SHORT),))


async def test_little_text_for_much_speech_is_heard_again_and_the_longer_text_kept(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One." if seconds(u) > 9 else "One two three four five.")
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert transcript.text == "One two three four five. One two three four five."
    assert transcript.warnings == (times(1, recognition.SHORT),)


async def test_little_text_is_kept_where_the_halves_have_no_more(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("Hallelujah." if seconds(u) > 9 else "")
    transcript = await transcribe(bursts(10), PLAIN, vad=True)
    assert transcript.text == "Hallelujah."


async def test_without_a_detector_nobody_knows_that_there_is_too_little(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("One." if seconds(u) > 9 else "One two three four five.")
    transcript = await transcribe(bursts(10), PLAIN, vad=False)
    assert (transcript.text, transcript.warnings) == ("One.", ())


async def test_speech_without_text_is_heard_again_in_the_recordings_language(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 7:
            return said("Ein Satz, der lang genug ist.", language="de")
        return said("Noch einer." if utterance.language == "de" else "", language="de")

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(8, 3), PLAIN, vad=True, max_chunk_s=9.5)
    assert transcript.text == "Ein Satz, der lang genug ist. Noch einer."
    assert transcript.warnings == (times(1, recognition.SILENT),)
    assert [u.language for u in loader.recognizer.utterances] == [None, None, "de"]


@pytest.mark.parametrize(("level", "text"), [(0.02, "Noch einer."), (0.5, "so " * 40)])
async def test_what_may_be_noise_is_not_asked_for_in_the_recordings_language(
    transcribe, loader, bursts, level, text
) -> None:
    """Where the detector is in doubt, and where more is answered than anybody could have said."""

    def answer(utterance: Utterance) -> Recognition:
        if seconds(utterance) > 7:
            return said("Ein Satz, der lang genug ist.", language="de")
        return said(text if utterance.language == "de" else "", language="de")

    loader.recognizer.answer = answer
    samples = np.concatenate([bursts(8), np.zeros(RATE, np.float32), bursts(3, level=level)])
    transcript = await transcribe(samples, PLAIN, vad=True, max_chunk_s=9.5)
    assert transcript.text == "Ein Satz, der lang genug ist."
    assert times(1, recognition.UNHEARD) in transcript.warnings
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


async def test_speech_without_text_and_language_is_heard_again_in_halves(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("" if seconds(u) > 5 else "Now I hear it.")
    transcript = await transcribe(bursts(8), PLAIN, vad=True)
    assert transcript.text == "Now I hear it. Now I hear it."
    assert transcript.warnings == (times(1, recognition.SILENT),)


async def test_speech_that_stays_without_text_is_said(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: said("")
    transcript = await transcribe(bursts(3), PLAIN, vad=True)
    assert (transcript.text, transcript.segments) == ("", ())
    assert set(transcript.warnings) == {times(1, recognition.SILENT), times(1, recognition.UNHEARD)}


async def test_where_nobody_speaks_nothing_is_asked_of_the_model(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(3) * 0.001, TranscribeOptions(language="en"), vad=True)
    assert loader.recognizer.utterances == []
    assert (transcript.text, transcript.segments, transcript.warnings) == ("", (), ())
    assert transcript.duration_s == 3


async def test_a_pause_of_seconds_is_not_given_to_the_model(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(2, 2, pause_s=40), PLAIN, vad=True)
    assert sorted(seconds(u) for u in loader.recognizer.utterances) == [pytest.approx(3.0, abs=0.05)] * 2
    assert transcript.segments[1].start_s == pytest.approx(42, abs=0.05)


NAMES = "Zoë Kravitz, Nguyễn Văn An, Bärbel"


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
async def test_a_recited_prompt_is_heard_again_without_it(transcribe, loader, bursts, text, level, again) -> None:
    loader.recognizer.answer = lambda u: said(text if u.prompt else "Hm.")
    transcript = await transcribe(bursts(3, level=level), TranscribeOptions(prompt=NAMES), vad=True)
    assert transcript.text == ("Hm." if again else text)
    assert [u.prompt for u in loader.recognizer.utterances] == [NAMES, ""][: 1 + again]
    assert transcript.warnings == ((times(1, recognition.LEAKED),) if again else ())


@pytest.mark.parametrize(("level", "again"), [(0.02, True), (0.5, False)])
async def test_a_prompt_of_one_word_may_be_recited_too(transcribe, loader, bursts, level, again) -> None:
    loader.recognizer.answer = lambda u: said("Kubernetes." if u.prompt else "Hm.")
    transcript = await transcribe(bursts(3, level=level), TranscribeOptions(prompt="Kubernetes"), vad=True)
    assert transcript.text == ("Hm." if again else "Kubernetes.")


async def test_a_prompt_recited_faster_than_anybody_speaks_is_heard_again(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said(NAMES if u.prompt else "Hm.")
    transcript = await transcribe(bursts(0.6), TranscribeOptions(prompt=NAMES), vad=True)
    assert transcript.text == "Hm."


async def test_a_forced_language_holds_for_every_second_hearing(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda u: said("" if seconds(u) > 5 else "Ja, das stimmt.", language="de")
    transcript = await transcribe(bursts(8), TranscribeOptions(language="de"), vad=True)
    assert (transcript.text, transcript.language) == ("Ja, das stimmt. Ja, das stimmt.", "de")
    assert {u.language for u in loader.recognizer.utterances} == {"de"}


async def test_the_language_is_the_one_with_most_speech_not_with_most_sound(transcribe, loader, bursts) -> None:
    """Two words of French in 10 s of pauses, then 5 s of German."""
    samples = bursts(0.5, 0.5, 0.5, 0.5, pause_s=2.5)
    german = bursts(5)

    def answer(utterance: Utterance) -> Recognition:
        return said("Ja, so ist es eben.", language="de" if seconds(utterance) < 8 else "fr")

    loader.recognizer.answer = answer
    whole = np.concatenate([samples, np.zeros(4 * RATE, np.float32), german])
    assert (await transcribe(whole, PLAIN, vad=True)).language == "de"
