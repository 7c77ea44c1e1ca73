"""Whole recordings through the whole pipeline: decoding, VAD, chunks, recogniser, aligner, words and segments."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.engine.loader import CheckpointLoader
from backend.options.load_options import TranscribeOptions
from backend.pipeline import recognized_chunk
from backend.pipeline.transcriber import Transcriber
from backend.pipeline.transcript_builder import Transcript
from backend.process.request_warning import kinds_of
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from devtools.eval.nonspeech import KINDS, sound

pytestmark = pytest.mark.slow

TIMES = TranscribeOptions(times=True, words=True)


@pytest.fixture
async def transcribe(demo_options, decoder_pool, tmp_path: Path) -> AsyncIterator[Callable]:
    """`await transcribe(path or samples, options, **load options)` with the demo checkpoints."""
    scheduler = Scheduler()
    residents: dict[tuple, Resident] = {}

    async def run(audio: Path | np.ndarray, options: TranscribeOptions = TIMES, **load) -> Transcript:
        key = tuple(load.items())
        if key not in residents:
            residents[key] = Resident(CheckpointLoader())
            await residents[key].load(replace(demo_options, **load))
        if isinstance(audio, np.ndarray):
            path = tmp_path / "recording.wav"
            soundfile.write(path, audio, 16_000, subtype="FLOAT")
            audio = path
        return await Transcriber(residents[key], scheduler, decoder_pool).transcribe(str(audio), options)

    yield run
    scheduler.stop()


def truth_of(recordings: Path, name: str) -> dict:
    return json.loads((recordings / f"{name}.json").read_text())


def bare(text: str) -> list[str]:
    return text.lower().replace(".", "").split()


@pytest.mark.parametrize("name", ["chinese", "left_out", "long"])
async def test_their_words_and_times_are_right(transcribe, recordings, name: str) -> None:
    """The longest recording has 3 minutes."""
    truth = truth_of(recordings, name)
    transcript = await transcribe(next(recordings.glob(f"{name}.[wf]*")))
    words = [(transcript.text[w.begin : w.end].strip("。."), w) for some in transcript.words for w in some]
    found, spoken = [text.lower() for text, _ in words], [word.lower() for word, _, _ in truth["words"]]
    pairs = [
        (words[j + k][1], truth["words"][i + k])
        for i, j, size in SequenceMatcher(None, spoken, found, autojunk=False).get_matching_blocks()
        for k in range(size)
    ]
    assert len(pairs) >= 0.97 * max(len(spoken), len(found))
    errors = [abs(word.start_s - start) + abs(word.end_s - end) for word, (_, start, end) in pairs]
    assert np.mean(errors) / 2 < 0.04
    assert transcript.language == truth["language"]


async def test_a_token_budget_that_is_too_small_halves_chunks_and_loses_no_word(transcribe, recordings) -> None:
    truth = truth_of(recordings, "demo")
    transcript = await transcribe(recordings / "demo.wav", TranscribeOptions(), max_new_tokens=14)
    assert bare(transcript.text) == bare(truth["text"])
    assert transcript.text.count(".") > truth["text"].count(".")  # so chunks were cut within sentences
    (warning,) = transcript.warnings
    assert kinds_of(warning) == kinds_of(recognized_chunk.TRUNCATED_ANSWER)


async def test_speech_at_one_percent_of_full_scale_is_recognized(transcribe, recordings) -> None:
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    transcript = await transcribe(samples * np.float32(0.01), TranscribeOptions())
    assert transcript.text == truth_of(recordings, "demo")["text"]


async def test_twenty_kinds_of_sound_without_speech_have_no_text_at_any_level_in_any_language(transcribe) -> None:
    assert len(KINDS) == 20
    for kind in KINDS:
        for level, language in ((1.0, "en"), (0.1, "zh"), (0.01, None)):
            transcript = await transcribe(sound(kind, seconds=4, level=level), TranscribeOptions(language=language))
            assert (kind, transcript.text, transcript.segments) == (kind, "", ())


async def test_a_recording_between_minutes_of_noise_costs_only_its_speech(transcribe, recordings) -> None:
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    noise = sound("pink noise", seconds=8, level=0.02)
    whole = np.concatenate([*[noise] * 4, samples, *[noise] * 4])
    transcript = await transcribe(whole)
    assert transcript.text == truth_of(recordings, "demo")["text"]
    first = truth_of(recordings, "demo")["words"][0][1]
    assert transcript.words[0][0].start_s == pytest.approx(32 + first, abs=0.25)
