"""Which sound track is transcribed, how many are decoded for it, and what the reply says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from backend.audio.decoding.causes import DAMAGED, NO_SOUND_TRACK
from backend.audio.decoding.process import Reserve
from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Decoded, Flaw, Samples
from backend.errors import Overloaded, UndecodableAudio
from backend.pipeline.admission import Admission, AudioMemory
from backend.pipeline.sound_tracks import (
    CANCELLED,
    NO_SPEECH,
    TRACKS,
    TRUNCATED,
    UNREAD,
    SpokenTrack,
    level_dbfs,
    spoken_track,
)
from backend.process.request_stats import RequestStats

SPEECH, MUSIC, SILENCE = 0.5, 0.2, 0.0


@dataclass
class FakePool:
    """Tracks of one level each; None: a track that cannot be read. The level SPEECH is speech."""

    tracks: list[float | None]
    seconds: float = 3.0
    flaws: Flaw = Flaw.NONE
    asked: list[tuple[int, float]] = field(default_factory=list)

    async def decode(self, _path: str, *, max_seconds: float, attempt: int = 0, reserve: Reserve) -> Decoded:
        reserve(0.0, 60.0, 0.0)
        self.asked.append((attempt, max_seconds))
        if attempt >= len(self.tracks):
            raise UndecodableAudio(NO_SOUND_TRACK)
        level = self.tracks[attempt]
        if level is None or self.seconds > max_seconds:
            raise UndecodableAudio(DAMAGED)
        alternating = np.where(np.arange(round(self.seconds * SAMPLE_RATE)) % 2, level, -level).astype(np.float32)
        return Decoded(alternating, self.seconds, self.flaws, len(self.tracks), attempt + 1, attempt)


async def chosen(pool: FakePool, max_audio_s: float = 60, admission: Admission | None = None) -> SpokenTrack:
    async def find_speech(samples: Samples) -> Speech:
        is_speech = bool(samples.max(initial=0) == SPEECH)
        return Speech(((0, samples.size),) if is_speech else (), np.zeros(1, np.float32))

    stats, admission = RequestStats(), admission or Admission()
    memory = AudioMemory(admission, stats)
    with admission.admitted(stats):
        return await spoken_track("path", pool, find_speech, stats, max_audio_s=max_audio_s, memory=memory)  # type: ignore[arg-type]


def tracks(count: int, number: int) -> str:
    return TRACKS.format(count=count, number=number)


@pytest.mark.parametrize(
    ("levels", "attempts", "warnings"),
    [
        ([SPEECH], [0], []),
        ([SILENCE], [0], []),
        ([MUSIC], [0], [NO_SPEECH]),
        ([SPEECH, SPEECH], [0], [tracks(2, 1)]),
        ([SILENCE, SPEECH, SPEECH], [0, 1], [tracks(3, 2)]),
        ([MUSIC, SILENCE, SPEECH], [0, 1, 2], [tracks(3, 3)]),
        ([SILENCE, SILENCE], [0, 1], [tracks(2, 1)]),
        ([SILENCE, MUSIC], [0, 1], [tracks(2, 1), NO_SPEECH]),
    ],
)
async def test_the_first_track_with_speech_is_taken_and_none_is_decoded_in_vain(levels, attempts, warnings) -> None:
    pool = FakePool(levels)
    track = await chosen(pool)
    assert [attempt for attempt, _ in pool.asked] == attempts
    assert list(track.warnings()) == warnings
    assert bool(track.recording.samples.size) == (SPEECH in levels or len(levels) == 1)


async def test_a_track_that_cannot_be_read_ends_the_search_and_not_the_request() -> None:
    track = await chosen(FakePool([SILENCE, None]))
    assert (track.recording.track, list(track.warnings())) == (1, [tracks(2, 1)])
    with pytest.raises(UndecodableAudio, match=DAMAGED):
        await chosen(FakePool([None, SPEECH]))


async def test_the_other_tracks_together_are_as_long_as_the_longest_recording() -> None:
    pool = FakePool([SILENCE] * 8, seconds=3.0)
    assert (await chosen(pool, max_audio_s=7)).recording.track == 1
    assert pool.asked == [(0, 7), (1, 7), (2, 4), (3, 1)]


async def test_what_each_track_holds_is_reserved() -> None:
    reserved: list[tuple[float, ...]] = []

    class Noting(Admission):
        def reserve(self, request: RequestStats, *amounts: Any) -> None:
            reserved.append(amounts)
            if len(reserved) > full_at:
                raise Overloaded
            super().reserve(request, *amounts)

        def settle(self, request: RequestStats) -> None:
            reserved.append(())
            super().settle(request)

    full_at = 100
    await chosen(FakePool([SILENCE, SPEECH]), admission=Noting())
    of_a_track = [(0.0, 60.0, 0.0, None), (3.0, None, 0.0, None), ()]
    assert reserved == 2 * of_a_track
    reserved, full_at = [], 3
    with pytest.raises(Overloaded):
        await chosen(FakePool([SILENCE, SPEECH]), admission=Noting())


async def test_flaws_of_the_file_are_warnings() -> None:
    everything = Flaw.TRUNCATED | Flaw.CANCELLED | Flaw.UNREAD
    assert list((await chosen(FakePool([SPEECH], flaws=everything))).warnings()) == [TRUNCATED, CANCELLED, UNREAD]


def test_the_level_is_that_of_the_loudest_second() -> None:
    sound = np.zeros(10 * SAMPLE_RATE, np.float32)
    sound[5 * SAMPLE_RATE : 6 * SAMPLE_RATE : 2] = 0.2
    assert level_dbfs(sound) == pytest.approx(-20, abs=0.1)
    assert level_dbfs(np.full(SAMPLE_RATE, 0.5, np.float32)) < -60  # an offset is no sound
    assert level_dbfs(np.zeros(1, np.float32)) < -60
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[0] = 0.5
    assert level_dbfs(click) < -40
