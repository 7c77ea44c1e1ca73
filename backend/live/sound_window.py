"""The sound of a live stream that is not recognised for good yet, and the likelihood of speech in its frames.

Positions are samples since the stream's beginning. Sound that is forgotten is gone: what is kept is bounded by the
longest window, whatever the length of the stream.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backend.audio.chunks import deepest_pause
from backend.audio.silero import FRAME
from backend.audio.vad import Speech, SpeechRules, all_speech, speech_of
from backend.audio.waveform import SAMPLE_RATE, Chunk, Samples
from backend.options.load_options import LoadOptions


class Piece(NamedTuple):
    """A part of the sound for the models. `chunk` and `speech` count from sample number `origin` of the stream."""

    chunk: Chunk
    speech: Speech
    origin: int

    @property
    def place(self) -> tuple[int, int]:
        """Where it begins and ends, in samples of the stream."""
        begin = self.origin + self.chunk.start
        return begin, begin + self.chunk.samples.size

    def speech_s(self, from_sample: int = 0) -> float:
        """Seconds of speech from that sample of the stream on."""
        return self.speech.seconds(max(from_sample - self.origin, self.chunk.start), self.chunk.end)


class SoundWindow:
    """`rules`: of the speech in it, by the operator's options. Where no detector runs all of it is speech."""

    def __init__(self, load: LoadOptions) -> None:
        self.rules = SpeechRules.of(load)
        self._is_all_speech = not load.vad
        # Sound is appended behind `_used`, and what is kept moves to a new array when one is full: pieces are views, so
        # no sample is ever written over, and a message costs as much as it is long.
        self._array: Samples = np.zeros(SAMPLE_RATE, np.float32)
        self._kept_from = self._used = 0
        self._likelihood: list[float] = []
        self._first_frame = 0  # of what is kept
        self.begin = 0  # what comes before it is recognised, or forgotten

    @property
    def end(self) -> int:
        """Where the sound ends whose likelihood is known."""
        return min(self._judged_frames * FRAME, self.received)

    @property
    def received(self) -> int:
        """Samples since the stream's beginning."""
        return self._first_frame * FRAME + self._used - self._kept_from

    @property
    def _samples(self) -> Samples:
        return self._array[self._kept_from : self._used]

    @property
    def _judged_frames(self) -> int:
        return self._first_frame + len(self._likelihood)

    def add(self, samples: Samples) -> None:
        """Append sound, (n,), whose likelihood is not known yet."""
        if self._used + samples.size > self._array.size:
            kept = self._samples
            self._array = np.empty(2 * (kept.size + samples.size), np.float32)
            self._array[: kept.size] = kept
            self._kept_from, self._used = 0, kept.size
        self._array[self._used : self._used + samples.size] = samples
        self._used += samples.size

    def judge(self, likelihood: float) -> None:
        """The likelihood of the next frame is known."""
        self._likelihood.append(likelihood)

    def likelihoods_from(self, frame: int) -> list[float]:
        """The likelihoods of the frames from number `frame` on."""
        return self._likelihood[max(frame - self._first_frame, 0) :]

    def forget_before(self, sample: int) -> None:
        """Nothing before `sample` will be asked for."""
        self.begin = max(self.begin, min(sample, self.end))
        frame = self.begin // FRAME
        self._kept_from += (frame - self._first_frame) * FRAME
        del self._likelihood[: frame - self._first_frame]
        self._first_frame = frame

    def piece(self, end: int) -> Piece:
        """The sound from `begin` to `end`, and the speech in it."""
        origin = self._first_frame * FRAME
        kept = self._samples[: end - origin]
        if self._is_all_speech:
            speech = all_speech(kept)
        else:
            frames = -(-kept.size // FRAME)
            speech = speech_of(np.array(self._likelihood[:frames], np.float32), self.rules, kept.size)
        return Piece(Chunk(self.begin - origin, kept[self.begin - origin :]), speech, origin)

    def deepest_pause(self, length: int) -> int:
        """Where the pause is deepest in the second half of the first `length` samples."""
        chunk, speech, _ = self.piece(self.begin + length)
        size = chunk.samples.size
        return self.begin + deepest_pause(chunk, speech, earliest=size // 2, latest=size, target=size)
