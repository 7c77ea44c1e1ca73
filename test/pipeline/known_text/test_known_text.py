"""A known text through the pipeline, with fakes: each burst of noise says what the test makes it say."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from backend.errors import (
    AlignerMissing,
    AlignmentLanguageUnknown,
    CheckpointRefused,
    InvalidRequest,
    NoKnownText,
    NothingHeard,
)
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcript_builder import Transcript
from backend.serving.protocols import AlignedUnit, Passage, Recognition
from backend.serving.resident import Resident

VERSE = [
    "The fox jumps over the dog.",
    "Good morning to you all.",
    "Please open the red door.",
    "Turn on the light again.",
]


def known(lines: list[str] | str, language: str | None = None) -> TranscribeOptions:
    text = lines if isinstance(lines, str) else "\n".join(lines)
    return TranscribeOptions(language=language, times=True, words=True, known_text=text)


@pytest.fixture
def sing(transcribe, loader, bursts):
    """`await sing(heard, text)`: passages of 4 s that say the texts `heard`, and the transcript of the known text."""

    async def run(heard: list[str], text: list[str] | str, language: str | None = None, **load) -> Transcript:
        samples = bursts(*[4.0] * len(heard), pause_s=4.0)
        starts = {samples[8 * 16_000 * n + 1000 :][:100].tobytes(): said for n, said in enumerate(heard)}

        def answer(utterance) -> Recognition:
            said = next((s for key, s in starts.items() if key in utterance.samples.tobytes()), "")
            return Recognition(said, utterance.language or "en", True, ())

        loader.recognizer.answer = answer
        options = {"task": "align", "vad": True, **load}
        transcript = await transcribe(samples, known(text, language), **options)
        check(transcript)
        return transcript

    return run


def check(transcript: Transcript) -> None:
    """Law 3, and words in every segment."""
    words = [word for segment in transcript.segments for word in segment.words]
    edges = [edge for word in words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert all(word.end_s > word.start_s for word in words)
    assert edges[0] >= 0
    assert edges[-1] <= transcript.duration_s + 1e-9
    spelled = "".join(transcript.text[word.begin : word.end] for word in words)
    assert "".join(spelled.split()) == "".join(transcript.text.split())
    assert transcript.words == tuple(segment.words for segment in transcript.segments)
    assert all(transcript.tokens)


def shown(transcript: Transcript) -> list[str]:
    return [transcript.text[segment.begin : segment.end] for segment in transcript.segments]


def passages(transcript: Transcript) -> list[int]:
    """In which passage, from 0, each line begins."""
    return [int((segment.start_s + 1.5) // 8) for segment in transcript.segments]  # 1 s of margin, and a frame


async def test_lines_are_segments_where_they_were_heard(sing) -> None:
    transcript = await sing(VERSE, VERSE)
    assert shown(transcript) == VERSE
    assert passages(transcript) == [0, 1, 2, 3]
    assert transcript.warnings == ()
    assert transcript.language == "en"


async def test_marks_of_lyrics_are_not_sung_and_the_rest_is_unchanged(sing) -> None:
    text = ["[ar:x]", "[Chorus]", "[00:01.00]The fox   jumps over the dog!! (x2)", "", "— Good MORNING, to you all…"]
    transcript = await sing(VERSE[:2], text)
    assert shown(transcript) == ["The fox   jumps over the dog!!", "— Good MORNING, to you all…"]
    assert transcript.text == "The fox   jumps over the dog!!\n\n— Good MORNING, to you all…"


async def test_a_chorus_that_comes_again_is_found_again(sing) -> None:
    text = [VERSE[0], VERSE[1], VERSE[2], VERSE[1], VERSE[3], VERSE[1]]
    transcript = await sing(text, text)
    assert passages(transcript) == [0, 1, 2, 3, 4, 5]
    assert transcript.warnings == ()


async def test_speech_that_the_text_has_not_pulls_no_line_away(sing) -> None:
    transcript = await sing([VERSE[0], "Somebody speaks of other things", "and goes on and on", VERSE[1]], VERSE[:2])
    assert passages(transcript) == [0, 3]
    assert transcript.warnings == ()


async def test_lines_that_are_not_heard_are_named_and_lie_between_their_neighbours(sing) -> None:
    text = ["[Verse]", VERSE[0], "Never sung at any time", "Nor this strange sentence", VERSE[1]]
    transcript = await sing(VERSE[:2], text)
    assert passages(transcript)[0] == 0
    assert passages(transcript)[-1] == 1
    assert transcript.warnings == ("2 lines are not heard (lines 3, 4); their times are between their neighbours",)


async def test_a_text_longer_than_the_recording_names_its_end(sing) -> None:
    transcript = await sing(VERSE[:2], VERSE + ["more of it"] * 200)
    assert passages(transcript)[:2] == [0, 1]
    assert transcript.warnings[0].startswith("202 lines are not heard (lines 3, 4, 5, ")


async def test_of_two_lines_that_changed_places_one_is_named(sing) -> None:
    transcript = await sing([VERSE[0], VERSE[2], VERSE[1], VERSE[3]], VERSE)
    (warning,) = transcript.warnings
    assert warning in {f"1 line is not heard (line {n}); its times are between its neighbours" for n in (2, 3)}
    assert passages(transcript)[0] == 0
    assert passages(transcript)[3] == 3


async def test_wrong_words_in_a_line_leave_it_where_it_was_heard(sing) -> None:
    text = ["Lovely fox jumps over the dog.", "Good evening to you all.", "Please open the red, red door.", VERSE[3]]
    transcript = await sing(VERSE, text)
    assert shown(transcript) == text
    assert passages(transcript) == [0, 1, 2, 3]
    assert transcript.segments[0].start_s < 1
    assert transcript.warnings == ()


async def test_a_line_of_punctuation_is_a_segment_and_no_warning(sing) -> None:
    transcript = await sing(VERSE[:2], [VERSE[0], "♪ ♪", "...", VERSE[1]])
    assert shown(transcript) == [VERSE[0], "♪ ♪", "...", VERSE[1]]
    assert transcript.warnings == ()


async def test_a_text_without_line_breaks_has_sentences(sing) -> None:
    transcript = await sing(VERSE[:2], f"{VERSE[0]} {VERSE[1]} Nobody ever said this.")
    assert shown(transcript)[:2] == VERSE[:2]
    assert transcript.warnings[0].startswith("1 sentence is not heard (sentence 3)")


async def test_chinese_is_matched_by_characters(sing) -> None:
    transcript = await sing(["一二三四五。", "六七八九零。"], ["一二三四五", "六七吧九零"], "zh")
    assert passages(transcript) == [0, 1]
    assert [len(segment.words) for segment in transcript.segments] == [5, 5]
    assert transcript.warnings == ()


async def test_the_text_is_no_prompt_of_the_recogniser(sing, loader) -> None:
    await sing(VERSE[:2], VERSE[:2])
    assert {utterance.prompt for utterance in loader.recognizer.utterances} == {""}


async def test_the_aligner_is_given_no_more_text_than_its_sound_can_hold(sing, loader) -> None:
    flood = ["x" * 100_000, "'" * 100_000, "never heard " * 5000]
    await sing(VERSE[:2], [VERSE[0], *flood, f"Good {flood[1]} morning to you all."])
    assert max(len(passage.text) + sum(map(len, passage.units)) for passage in loader.aligner.passages) < 1000


@pytest.mark.parametrize(
    ("heard", "text", "language", "error"),
    [
        (["Something else altogether"], VERSE, None, NothingHeard),
        ([""], VERSE, None, NothingHeard),
        (VERSE[:1], ["[Chorus]", "(x2)"], None, NoKnownText),
        (VERSE[:1], VERSE, "th", AlignmentLanguageUnknown),
    ],
)
async def test_what_cannot_be_aligned_is_refused(sing, heard, text, language, error: type[InvalidRequest]) -> None:
    with pytest.raises(error):
        await sing(heard, text, language)


async def test_an_aligner_that_does_not_load_is_a_failure_and_no_guess(sing, loader) -> None:
    loader.refusals["aligner"] = CheckpointRefused("broken")
    with pytest.raises(AlignerMissing, match="cannot be loaded"):
        await sing(VERSE[:1], VERSE[:1])


async def test_a_model_that_is_freed_meanwhile_loads_its_aligner_once(sing, loader, monkeypatch) -> None:
    loop, load = asyncio.get_running_loop(), Resident.load

    async def load_and_free_when_aligned(resident: Resident, options: LoadOptions) -> None:
        await load(resident, options)

        def answer(passage: Passage) -> list[AlignedUnit]:
            asyncio.run_coroutine_threadsafe(resident.free(), loop).result(20)
            loader.aligner.answer = None
            return loader.aligner.align([passage])[0]

        loader.aligner.answer = answer

    monkeypatch.setattr(Resident, "load", load_and_free_when_aligned)
    assert shown(await sing(VERSE[:1], VERSE[:1])) == VERSE[:1]
    assert loader.events.count("align al") == 1


async def test_an_aligner_alone_times_a_text(transcribe, loader, bursts) -> None:
    loader.kind = "aligner"
    options = known(VERSE, "en")
    transcript = await transcribe(bursts(*[4.0] * 4, pause_s=4.0), options, forced_aligner="", vad=True)
    check(transcript)
    assert shown(transcript) == VERSE
    assert passages(transcript) == [0, 1, 2, 3]
    assert not any(event.startswith("load") for event in loader.events)


@pytest.mark.parametrize(
    ("options", "error"), [(known(VERSE), AlignmentLanguageUnknown), (TranscribeOptions(), NoKnownText)]
)
async def test_an_aligner_alone_needs_a_text_and_its_language(transcribe, loader, bursts, options, error) -> None:
    loader.kind = "aligner"
    with pytest.raises(error):
        await transcribe(bursts(4.0), options, forced_aligner="", vad=True)


async def test_silence_is_no_recording_of_a_text(transcribe) -> None:
    with pytest.raises(NothingHeard):
        await transcribe(np.zeros(64_000, np.float32), known(VERSE), vad=True, task="align")
