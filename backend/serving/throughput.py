"""The best throughput of the engine so far, so that a request that cannot meet its deadline is refused at once."""

from __future__ import annotations

_SAFETY_FACTOR = 2.0  # a request is refused only if twice the best throughput were too slow for it
_WINDOW_S = 60.0  # of compute, after which a server that is never idle is measured all the same


class Throughput:
    """Seconds of audio answered per second of compute. The model thread reports; the other methods are for any.

    Measured over busy periods: between two moments without any job, all compute was for audio that was answered or
    given up. A busy period that lasts is measured in windows. What is running at the end of a window counts as if it
    had been answered, so the throughput is never taken for less than it was.
    """

    def __init__(self) -> None:
        self._best = 0.0
        self._audio_s = self._compute_s = 0.0  # of the current busy period

    def add_compute(self, compute_s: float, occupancy: float, running_audio_s: float = 0.0) -> None:
        """So much compute, in sessions with this share of their places taken (0 to 1), and what runs in them still.

        It counts as if every place had been taken at no cost: one job's speed says nothing about that of a full batch.
        """
        self._compute_s += compute_s * occupancy
        if self._compute_s >= _WINDOW_S and self._audio_s:
            self._audio_s += running_audio_s
            self.end_window()

    def add_audio(self, audio_s: float) -> None:
        """So much audio was answered."""
        self._audio_s += audio_s

    def end_window(self) -> None:
        """No job waits or runs: the compute so far was for the audio so far and nothing else."""
        if self._audio_s:
            self._best = max(self._best, self._audio_s / max(self._compute_s, 1e-9))
        self._audio_s = self._compute_s = 0.0

    def duration_s(self, audio_s: float) -> float:
        """The time that so much audio takes at the best; 0 before the first window with an answer has ended."""
        return audio_s / self._best if self._best else 0.0

    def min_duration_s(self, audio_s: float) -> float:
        """A lower bound on that time."""
        return self.duration_s(audio_s) / _SAFETY_FACTOR

    def reset(self) -> None:
        """Another model is loaded: nothing is known about its speed."""
        self._best = self._audio_s = self._compute_s = 0.0
