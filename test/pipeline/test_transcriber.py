"""The data's way with fakes at its ends: what happens to texts, times, languages and failures between the rooms."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.errors import CheckpointRefused, DeadlineTooShort, Overloaded, UndecodableAudio
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.admission import Admission
from backend.pipeline.sound_tracks import TRUNCATED
from backend.pipeline.transcriber import Transcriber
from backend.pipeline.transcript_builder import Transcript
from backend.serving.protocols import Recognition, Token, Utterance
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler

RATE = 16_000
TIMES = TranscribeOptions(times=True, words=True)


def check(transcript: Transcript) -> None:
    """Law 3."""
    text = transcript.text
    assert "".join(text[s.begin : s.end] for s in transcript.segments).replace(" ", "") == text.replace(" ", "")
    words = [word for segment in transcript.segments for word in segment.words]
    edges = [t for word in words for t in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert all(0 <= w.start_s < w.end_s <= transcript.duration_s + 1e-9 for w in words)
    assert all(transcript.tokens)
    assert len(transcript.tokens) == len(transcript.segments)


async def test_a_long_recording_is_split_into_chunks_that_lose_no_sample(transcribe, loader, bursts) -> None:
    samples = bursts(8, 8, 8, 8)
    transcript = await transcribe(samples, max_chunk_s=10)
    heard = sorted((u.samples.tobytes() for u in loader.recognizer.utterances), key=samples.tobytes().find)
    assert b"".join(heard) == samples.tobytes()
    assert all(u.samples.size <= 10 * RATE for u in loader.recognizer.utterances)
    assert len(loader.recognizer.utterances) >= 4
    assert transcript.text.count("Heard") == len(loader.recognizer.utterances)
    assert transcript.duration_s == pytest.approx(35.0)
    check(transcript)


async def test_chunks_are_joined_in_order_and_by_script(transcribe, loader, bursts) -> None:
    texts = iter(["你好。", "再见", "The end.", "Next"])
    loader.recognizer.answer = lambda _: next(texts)
    transcript = await transcribe(bursts(5, 5, 5, 5), TranscribeOptions(), max_chunk_s=6.5, batch_max_size=1)
    assert transcript.text == "你好。再见 The end. Next"
    check(transcript)


@pytest.mark.parametrize(("language", "count"), [("en", 1), ("es", 2)])
async def test_segments_follow_the_language_of_their_passage(transcribe, loader, bursts, language, count) -> None:
    loader.recognizer.answer = lambda _: Recognition("Chanel No. 5 minutos.", language, True, ())
    assert len((await transcribe(bursts(3), TranscribeOptions())).segments) == count


@pytest.mark.parametrize(
    ("chunk_s", "load", "longest_s"), [(6.5, {}, 5.5), (12, {}, 11.5), (6.5, {"max_chunk_s": 12}, 11.5)]
)
async def test_passages_are_as_long_as_the_checkpoint_or_the_operator_says(
    transcribe, loader, bursts, chunk_s, load, longest_s
) -> None:
    loader.recognizer.chunk_s = chunk_s
    await transcribe(bursts(5, 5, 5, 5), TranscribeOptions(), **load)
    assert max(u.samples.size / RATE for u in loader.recognizer.utterances) == pytest.approx(longest_s, abs=0.6)


async def test_the_budget_grows_with_the_chunk_and_the_operator_may_lower_it(transcribe, loader, bursts) -> None:
    await transcribe(bursts(10), TranscribeOptions())
    await transcribe(bursts(1), TranscribeOptions())
    await transcribe(bursts(10), TranscribeOptions(), max_new_tokens=20)
    budgets = [u.max_new_tokens for u in loader.recognizer.utterances]
    assert budgets[0] >= 100 > budgets[1] > 32
    assert budgets[2] == 20


async def test_prompt_and_forced_language_reach_every_chunk(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(8, 8), TranscribeOptions(language="de", prompt="Zoë"), max_chunk_s=9)
    assert {(u.language, u.prompt) for u in loader.recognizer.utterances} == {("de", "Zoë")}
    assert transcript.language == "de"


async def test_the_language_is_the_one_with_most_speech(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        language = "fr" if utterance.samples.size > 5 * RATE else "en"
        return Recognition("Mot.", language, True, (Token(1, 0, 4),))

    loader.recognizer.answer = answer
    assert (await transcribe(bursts(3, 8), TranscribeOptions(), max_chunk_s=9)).language == "fr"


async def test_the_aligners_times_are_shifted_to_the_chunks_place(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: "One two."
    transcript = await transcribe(bursts(6, 6, pause_s=2), max_chunk_s=8)
    assert transcript.text == "One two. One two."
    words = [word for segment in transcript.segments for word in segment.words]
    assert words[0].start_s == 0
    assert words[2].start_s == pytest.approx(7, abs=0.6)
    assert words[3].end_s == pytest.approx(14, abs=0.1)
    assert words == [word for some in transcript.words for word in some]
    check(transcript)


async def test_segments_alone_use_the_aligner_and_carry_no_words(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(3), TranscribeOptions(times=True))
    assert loader.aligner.passages
    assert not any(transcript.words)


async def test_a_plain_request_never_loads_the_aligner(transcribe, loader, bursts) -> None:
    transcript = await transcribe(bursts(3), TranscribeOptions())
    assert not any(event.startswith("align") for event in loader.events)
    assert transcript.warnings == ()
    assert transcript.segments[0].end_s > transcript.segments[0].start_s
    check(transcript)


@pytest.mark.parametrize("kind", ["cannot load", "fails", "foreign language", "none"])
async def test_if_alignment_fails_the_transcript_has_coarse_times(transcribe, loader, kind, bursts) -> None:
    if kind == "cannot load":
        loader.refusals["aligner"] = CheckpointRefused("broken")
    if kind == "fails":
        loader.aligner.fault = RuntimeError("boom")
    language = "th" if kind == "foreign language" else None
    options = TranscribeOptions(language=language, times=True, words=True)
    transcript = await transcribe(bursts(3), options, forced_aligner="" if kind == "none" else "al")
    assert transcript.text.startswith("Heard")
    assert not any(transcript.words)
    assert any("estimates" in warning for warning in transcript.warnings)
    if kind == "foreign language":
        assert not loader.aligner.passages
    check(transcript)


async def test_one_chunk_without_the_aligner_does_not_cost_the_others_their_words(transcribe, loader, bursts) -> None:
    def answer(utterance: Utterance) -> Recognition:
        thai = utterance.samples.size < 5 * RATE
        text = "สวัสดี" if thai else "Hello there."
        return Recognition(text, "th" if thai else "en", True, (Token(1, 0, len(text)),))

    loader.recognizer.answer = answer
    transcript = await transcribe(bursts(8, 3), max_chunk_s=9.5)
    assert transcript.text == "Hello there. สวัสดี"
    words = [transcript.text[w.begin : w.end] for some in transcript.words for w in some]
    assert words == ["Hello", "there."]
    assert len(transcript.segments) == 2
    assert any("estimates" in warning for warning in transcript.warnings)
    check(transcript)


async def test_silence_has_no_segments_and_needs_no_aligner(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: ""
    transcript = await transcribe(bursts(3))
    assert (transcript.text, transcript.segments, transcript.language, transcript.warnings) == ("", (), "", ())
    assert not any(event.startswith("align") for event in loader.events)


async def test_one_sample_is_a_recording(transcribe) -> None:
    transcript = await transcribe(np.full(1, 0.1, np.float32))
    assert transcript.duration_s == pytest.approx(1 / RATE)
    check(transcript)


async def test_a_recording_with_a_damaged_tail_is_transcribed_with_a_warning(
    loader, decoder_pool, tmp_path: Path, bursts
) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, bursts(4), RATE)
    path.write_bytes(path.read_bytes()[:60_000])
    resident, scheduler = Resident(loader), Scheduler()
    await resident.load(LoadOptions(model="m", vad=False))
    transcript = await Transcriber(resident, scheduler, decoder_pool).transcribe(str(path), TranscribeOptions())
    scheduler.stop()
    assert transcript.warnings == (TRUNCATED,)
    assert transcript.text


async def test_a_rejected_request_does_not_read_its_file(loader, decoder_pool, scheduler, tmp_path: Path) -> None:
    resident = Resident(loader)
    await resident.load(LoadOptions(model="m", vad=False))
    full = Transcriber(resident, scheduler, decoder_pool, admission=Admission(max_requests=0))
    with pytest.raises(Overloaded):  # and not that there is no such file
        await full.transcribe(str(tmp_path / "none"), TranscribeOptions())


class RealTime(Scheduler):
    """Has never heard faster than people speak."""

    def min_duration_s(self, audio_s: float) -> float:
        return audio_s


async def test_a_request_that_cannot_meet_its_deadline_is_not_started(
    loader, decoder_pool, tmp_path: Path, bursts
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, bursts(4), RATE)
    resident, scheduler = Resident(loader), RealTime()
    await resident.load(LoadOptions(model="m", vad=False))
    transcriber = Transcriber(resident, scheduler, decoder_pool)
    with pytest.raises(DeadlineTooShort):
        await transcriber.transcribe(str(path), TranscribeOptions(), deadline_s=time.monotonic() + 1)
    assert not loader.recognizer.batches
    assert (await transcriber.transcribe(str(path), TranscribeOptions(), deadline_s=time.monotonic() + 600)).text
    scheduler.stop()


async def test_a_recording_beyond_the_operators_limit_is_refused(transcribe, bursts) -> None:
    with pytest.raises(UndecodableAudio):
        await transcribe(bursts(3), TranscribeOptions(), max_audio_s=2)


@pytest.mark.parametrize(("rules", "most"), [({"max_segment_chars": 12}, 12), ({"max_segment_chars": 30}, 30)])
async def test_segments_obey_the_operators_limits(transcribe, loader, rules, most, bursts) -> None:
    loader.recognizer.answer = lambda _: "one two, three four five, six seven eight nine ten"
    transcript = await transcribe(bursts(6), **rules)
    assert max(s.end - s.begin for s in transcript.segments) <= most
    check(transcript)
