"""Who is refused, and when: at the door, or never."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.errors import Cancelled, EngineFailure, Overloaded, TooLittleAudioMemory
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.admission import Admission
from backend.pipeline.transcriber import Transcriber
from backend.process.request_stats import RequestStats
from backend.serving.protocols import Recognition, Utterance
from backend.serving.resident import Resident

RATE = 16_000
PLAIN, TIMES = TranscribeOptions(), TranscribeOptions(times=True, words=True)


@pytest.mark.parametrize("end", [None, EngineFailure(), asyncio.CancelledError()])
def test_requests_beyond_the_limit_are_rejected_until_one_has_ended_however_it_ends(end: BaseException | None) -> None:
    admission, asked = Admission(max_audio_s=10, max_requests=1), RequestStats()
    with ExitStack() as ended:
        ended.enter_context(pytest.raises(type(end)) if end else ExitStack())
        ended.enter_context(admission.admitted(asked))
        admission.reserve(asked, 60)
        with pytest.raises(Overloaded), admission.admitted(RequestStats()):
            pass
        if end:
            raise end
    assert admission.audio_s == 0
    with admission.admitted(RequestStats()):
        pass


def test_audio_beyond_the_limit_is_rejected_unless_no_other_is_in_memory() -> None:
    admission, first, second, third = Admission(max_audio_s=1000), RequestStats(), RequestStats(), RequestStats()
    with admission.admitted(second), admission.admitted(third):
        with admission.admitted(first):
            admission.reserve(first, 900)
            with pytest.raises(Overloaded):
                admission.reserve(second, 101)
            admission.reserve(second, 100)
        with pytest.raises(Overloaded):
            admission.reserve(third, 1000)
    with admission.admitted(first):
        admission.reserve(first, 10_000)


def test_a_short_recording_is_admitted_beside_any_others() -> None:
    admission, recording, command = Admission(max_audio_s=1000), RequestStats(), RequestStats()
    with admission.admitted(recording):
        admission.reserve(recording, 5000)
        with admission.admitted(command):
            admission.reserve(command, 60)
            assert admission.audio_s == 5060


MB = 1_000_000
HOUR_MB = 3600 * RATE * 4 * 2.1 / MB  # samples, and what the detector needs
RESERVE_MB = (128 << 20) / MB


def test_a_long_recording_must_fit_into_what_is_free_beside_the_reserve() -> None:
    free_mb, request = HOUR_MB + RESERVE_MB, RequestStats()
    admission = Admission(available=lambda: free_mb * MB)
    with admission.admitted(request):
        admission.reserve(request, 60, 3600)
        free_mb -= 0.1
        with pytest.raises(TooLittleAudioMemory):
            admission.reserve(request, 3600, 3601)
        admission.reserve(request, 3500)  # it is shorter than was promised, so nothing can refuse it any more


def test_what_was_promised_and_not_taken_is_not_free() -> None:
    first, second = RequestStats(), RequestStats()
    admission = Admission(available=lambda: (2 * HOUR_MB + RESERVE_MB) * MB)
    with admission.admitted(first), admission.admitted(second):
        admission.reserve(first, 60, 3600)
        with pytest.raises(TooLittleAudioMemory):
            admission.reserve(second, 60, 3601)
        admission.reserve(second, 60, 3600)
        admission.reserve(first, 3600, 7200, held_bytes=HOUR_MB * MB)


def test_what_the_detector_needed_is_free_again_behind_it() -> None:
    first, second = RequestStats(), RequestStats()
    admission = Admission(available=lambda: (HOUR_MB + RESERVE_MB) * MB)
    with admission.admitted(first), admission.admitted(second):
        admission.reserve(first, 3600)
        with pytest.raises(TooLittleAudioMemory):
            admission.reserve(second, 3600)
        admission.settle(first)
        admission.reserve(second, 3600)


def test_a_short_recording_may_use_the_reserve_and_nothing_that_is_not_there() -> None:
    free_mb, long, short = HOUR_MB + RESERVE_MB, RequestStats(), RequestStats()
    admission = Admission(available=lambda: free_mb * MB)
    with admission.admitted(long), admission.admitted(short):
        admission.reserve(long, 60, 3600)
        admission.reserve(short, 0, 60)
    admission = Admission(available=lambda: 8 * MB)
    with admission.admitted(short), pytest.raises(TooLittleAudioMemory):
        admission.reserve(short, 0, 60)


def test_the_audio_of_all_requests_is_bounded_by_the_option_but_for_short_ones() -> None:
    first, second, short = RequestStats(), RequestStats(), RequestStats()
    admission = Admission(available=lambda: math.inf)
    with admission.admitted(first), admission.admitted(second), admission.admitted(short):
        admission.reserve(first, 3600, max_bytes=1.5 * HOUR_MB * MB)
        with pytest.raises(TooLittleAudioMemory):
            admission.reserve(second, 1801, max_bytes=1.5 * HOUR_MB * MB)
        admission.reserve(second, 1800, max_bytes=1.5 * HOUR_MB * MB)
        admission.reserve(short, 60, max_bytes=1.5 * HOUR_MB * MB)


def test_a_decoder_of_a_request_that_has_ended_gets_no_memory() -> None:
    admission, request = Admission(), RequestStats()
    with admission.admitted(request):
        pass
    with pytest.raises(Cancelled):
        admission.reserve(request, 0, 60)


@pytest.fixture
async def house(loader, decoder_pool, scheduler, tmp_path: Path):
    """`house(admission)`: transcribes so many seconds of noise, one passage of ten seconds at a time."""
    resident = Resident(loader)
    await resident.load(LoadOptions(model="m", forced_aligner="al", vad=False, max_chunk_s=10, batch_max_size=1))

    def make(admission: Admission) -> Callable[..., asyncio.Task]:
        transcriber = Transcriber(resident, scheduler, decoder_pool, admission=admission)

        def transcribe(seconds: float, options: TranscribeOptions = PLAIN) -> asyncio.Task:
            path = tmp_path / f"{seconds}.wav"
            soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, round(seconds * RATE)), RATE)
            return asyncio.create_task(transcriber.transcribe(str(path), options))

        return transcribe

    return make


async def test_admitted_work_is_retried_and_aligned_while_other_requests_are_rejected(house, loader, scheduler) -> None:
    """Its passages are asked for one by one; in between, nothing of it waits."""
    asked: list[Utterance] = []

    def loops_once(utterance: Utterance) -> str | Recognition:
        asked.append(utterance)
        return Recognition("no no no no", "en", False, (), looped=True) if len(asked) == 1 else "Heard this."

    loader.recognizer.answer = loops_once
    loader.recognizer.gate = threading.Event()
    transcribe = house(Admission(max_requests=3))
    first = transcribe(8, TIMES)
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    others = [transcribe(30), transcribe(11)]
    with pytest.raises(Overloaded):
        await transcribe(1)
    while scheduler.waiting[1] < 41:
        await asyncio.sleep(0.001)
    loader.recognizer.gate.set()
    transcript = await first
    assert transcript.text == "Heard this. Heard this."
    assert sum(map(len, transcript.words)) == 4
    assert not any("not available" in warning for warning in transcript.warnings)
    await asyncio.gather(*others)


async def test_the_audio_of_a_cancelled_or_failed_request_is_released(house, loader) -> None:
    admission = Admission(max_audio_s=200)
    transcribe = house(admission)
    loader.recognizer.gate = threading.Event()
    gone = transcribe(135)
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    with pytest.raises(Overloaded):
        await transcribe(66)
    assert admission.audio_s == 135
    gone.cancel()
    await asyncio.wait([gone])
    loader.recognizer.gate.set()
    loader.recognizer.answer = lambda _: 1 / 0
    with pytest.raises(EngineFailure):
        await transcribe(16)
    assert admission.audio_s == 0


async def test_a_recording_without_memory_for_it_is_refused_while_it_is_decoded_and_the_next_is_served(house) -> None:
    free = (128 << 20) + 60 * MB
    transcribe = house(Admission(available=lambda: free))
    with pytest.raises(TooLittleAudioMemory, match="max_audio_memory_mb"):
        await transcribe(600)
    assert (await transcribe(5)).text
    assert (await transcribe(300)).text
