"""How the model is run on a chunk, and what its first run alone is given."""

from __future__ import annotations

from dataclasses import dataclass

from backend.serving.protocols import Listener, Recognition
from backend.thresholds import REPETITION_PENALTIES


@dataclass(frozen=True)
class DecodeSettings:
    """How a chunk is decoded. `loops`: how many repetition loops occurred in it, or in the chunks it is a half of."""

    language: str | None
    prompt: str
    loops: int = 0

    @property
    def repetition_penalty(self) -> float:
        return REPETITION_PENALTIES[min(self.loops, len(REPETITION_PENALTIES)) - 1] if self.loops else 1.0


@dataclass(frozen=True)
class FirstRun:
    """What the first run of the model on a whole chunk is given, see protocols.Utterance; its fallbacks are not.

    `known`: the answer, where the model has been run on the same chunk already; then it is not run.
    """

    listener: Listener | None = None
    draft: tuple[int, ...] = ()
    fixed: int = 0
    known: Recognition | None = None


NOTHING_KNOWN = FirstRun()
