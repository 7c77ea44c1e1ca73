"""How much audio may run together: exponential back-off when memory runs out, and a slow way up again."""

from __future__ import annotations

from math import inf

_MIN_AUDIO_S = 30.0  # the back-off goes no lower
# Answered audio after which the bound doubles: at most one batch in an hour of audio fails in finding out that it is
# still too large.
_RECOVERY_AUDIO_S = 3600.0


class OomBackoff:
    """`max_audio_s`: seconds of audio that may run together. The model thread reports; `reset` is for any thread."""

    def __init__(self) -> None:
        self.reset()

    def out_of_memory(self, audio_s: float) -> None:
        """Memory ran out with so much audio running: one request is too large, or other programs need the memory."""
        self._failed_audio_s = audio_s
        self.max_audio_s = max(audio_s / 2, _MIN_AUDIO_S)
        self._succeeded_audio_s = 0.0

    def succeeded(self, audio_s: float) -> None:
        """So much audio was answered. Enough of it doubles the bound, or lifts it where it has reached what failed."""
        self._succeeded_audio_s += audio_s
        if self._succeeded_audio_s >= _RECOVERY_AUDIO_S:
            self.max_audio_s = 2 * self.max_audio_s if self.max_audio_s < self._failed_audio_s else inf
            self._succeeded_audio_s = 0.0

    def reset(self) -> None:
        """Another model is loaded: nothing is known about its memory."""
        self.max_audio_s = self._failed_audio_s = inf
        self._succeeded_audio_s = 0.0
