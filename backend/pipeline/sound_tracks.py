"""Which sound track of a file is transcribed: the container's default, or the first other one with speech.

- One track is decoded, and another only where the detector found no speech in those before it.
- The others together may be as long as the longest recording: a request's work stays bounded.
- An empty answer is a claim, so the loudest second is measured where no track holds speech.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from backend.audio.decoding.pool import DecoderPool
from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Decoded, Flaw, Samples
from backend.errors import UndecodableAudio
from backend.pipeline.admission import AudioMemory
from backend.process.request_stats import RequestStats
from backend.process.request_warning import RequestWarning
from backend.thresholds import LOUD_DBFS

TRUNCATED = RequestWarning(
    "the audio file ends early or is damaged; what could be decoded was transcribed", "damaged_file"
)
CANCELLED = RequestWarning(
    "channels of the file cancel each other out (one is inverted); one of them was turned over where they do",
    "cancelled_channels",
)
UNREAD = RequestWarning(
    "the file holds much more than its headers account for; that part is no known sound and was left out",
    "unread_bytes",
)
TRACKS = "the file has {count} sound tracks, number {number} was transcribed"
NO_SPEECH = RequestWarning("the recording is not silent, but no speech was found in it", "no_speech")

_FLAW_WARNINGS = {Flaw.TRUNCATED: TRUNCATED, Flaw.CANCELLED: CANCELLED, Flaw.UNREAD: UNREAD}


@dataclass(frozen=True)
class SpokenTrack:
    """The track that is transcribed, and its speech. `is_loud`: no track holds speech, and one is not silent."""

    recording: Decoded
    speech: Speech
    is_loud: bool = False

    def warnings(self) -> Iterator[str]:
        """What the reply says about the file, for x-asr-warning."""
        yield from (text for flaw, text in _FLAW_WARNINGS.items() if flaw in self.recording.flaws)
        if self.recording.tracks > 1:
            text = TRACKS.format(count=self.recording.tracks, number=self.recording.track)
            yield RequestWarning(text, "several_tracks")
        if self.is_loud:
            yield NO_SPEECH


async def spoken_track(
    path: str,
    decoder_pool: DecoderPool,
    find_speech: Callable[[Samples], Awaitable[Speech]],
    stats: RequestStats,
    *,
    max_audio_s: float,
    memory: AudioMemory,
) -> SpokenTrack:
    """The track of the file at `path` that is transcribed. Raises what DecoderPool.decode and `memory` raise."""
    first: SpokenTrack | None = None
    is_loud, left_s, attempt = False, max_audio_s, 0
    while True:
        try:
            with stats.measure("decode"):
                recording = await decoder_pool.decode(path, max_seconds=left_s, attempt=attempt, reserve=memory.reserve)
        except UndecodableAudio:
            if first is None:
                raise
            break  # there is no further track, or none that can be read or is short enough
        memory.reserve(recording.samples.size / SAMPLE_RATE)
        stats.audio_s = recording.duration_s
        with stats.measure("vad"):
            speech = await find_speech(recording.samples)
        memory.settle()
        if speech.spans:
            return SpokenTrack(recording, speech)
        is_loud = is_loud or await asyncio.to_thread(level_dbfs, recording.samples) > LOUD_DBFS
        if first is None:
            first = SpokenTrack(recording, speech)
        else:
            left_s -= recording.duration_s
        attempt = recording.attempt + 1
        if recording.tracks <= attempt or left_s <= 0:
            break
        first = replace(first, recording=replace(first.recording, samples=first.recording.samples[:0].copy()))
        del recording, speech  # one track at a time is in memory, and nothing of this one will be transcribed
    stats.audio_s = first.recording.duration_s
    return replace(first, is_loud=is_loud)


def level_dbfs(samples: Samples) -> float:
    """The level of the loudest second, its mean square without its mean, in dB below full scale."""
    loudest = 0.0
    for begin in range(0, samples.size, SAMPLE_RATE):
        second = samples[begin : begin + SAMPLE_RATE]
        if second.size >= SAMPLE_RATE or begin == 0:
            loudest = max(loudest, float(second.var()) * second.size / SAMPLE_RATE)
    return float(10 * np.log10(max(loudest, 1e-24)))
