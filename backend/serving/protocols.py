"""What the engine promises: the Protocols of recogniser and aligner, and the values they take and give.

Imports no model, so that everything above the engine can be built and tested without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.options import LoadOptions

SAMPLE_RATE = 16_000  # Hz, of all samples here; as in audio/waveform.py, which stands on the same floor


@dataclass(frozen=True)
class Utterance:
    """A piece of a recording to recognise. `samples`: (n,) float32 mono at 16 kHz; `language`: a code, or None.

    `repetition_penalty`: what the logits of tokens that the answer already holds are divided by (1: nothing).
    """

    samples: NDArray[np.float32]
    language: str | None
    prompt: str
    max_new_tokens: int
    repetition_penalty: float = 1.0


class Token(NamedTuple):
    """A token of the model's vocabulary and the slice of the text that it wrote."""

    id: int
    begin: int
    end: int


@dataclass(frozen=True)
class Recognition:
    """What was heard. `language`: the code of what was spoken or forced, None for no speech.

    `finished` is False where the model did not end its answer: the token budget ran out, or it was stopped because it
    said one phrase over and over (`looped`).
    """

    text: str
    language: str | None
    finished: bool
    tokens: tuple[Token, ...]
    looped: bool = False


@dataclass(frozen=True)
class Passage:
    """A piece of a recording with its text, to align. `samples` as in Utterance; `language`: a code.

    `units`: the text as an aligner has split it before, where a part of a passage is aligned once more.
    """

    samples: NDArray[np.float32]
    text: str
    language: str
    units: tuple[str, ...] = ()


class AlignedUnit(NamedTuple):
    """A bare word or character as the aligner knows it, in seconds from the start of its passage.

    `outside`: the aligner would rather have put it beyond the passage's end; the times given are the best inside.
    """

    text: str
    start_s: float
    end_s: float
    outside: bool = False


class Session(Protocol):
    """Utterances that are being recognised together. Used by one thread at a time."""

    def __len__(self) -> int: ...

    def add(self, utterances: Sequence[Utterance]) -> None:
        """More of them. Nothing is changed if this raises."""
        ...

    def step(self) -> list[tuple[Utterance, Recognition]]:
        """Goes on by one token; the utterances that ended, as the objects that were added, each with what was heard."""
        ...

    def drop(self, utterance: Utterance) -> None:
        """Nobody waits for this one any more."""
        ...


class Recognizer(Protocol):
    @property
    def weight_bytes(self) -> int: ...

    @property
    def max_prefill_s(self) -> float:
        """Seconds of audio that are best read at once; what is more than that comes a step later."""
        ...

    def session(self) -> Session:
        """A session without utterances."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many of the model's tokens write the text: three for each byte of its UTF-8 at most. From any thread."""
        ...


def recognize(recognizer: Recognizer, utterances: Sequence[Utterance]) -> list[Recognition]:
    """One Recognition for each utterance, in order; all of them in one session."""
    session = recognizer.session()
    session.add(utterances)
    heard: dict[int, Recognition] = {}
    while len(session):
        heard |= {id(utterance): recognition for utterance, recognition in session.step()}
    return [heard[id(utterance)] for utterance in utterances]


class Aligner(Protocol):
    @property
    def weight_bytes(self) -> int: ...

    @property
    def max_prefill_s(self) -> float:
        """Seconds of audio that are best aligned at once."""
        ...

    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        """The units of each passage, in order. Called by one thread at a time."""
        ...


class Loader(Protocol):
    """Brings models into memory. Raises LoadRefused with the human cause."""

    def prepare(self) -> None:
        """Import what every load needs."""
        ...

    def inspect(self, options: LoadOptions) -> None:
        """Refuse what cannot be loaded by what can be read in a moment, before anything is given up for it."""
        ...

    def load_recognizer(self, options: LoadOptions) -> Recognizer: ...

    def load_aligner(self, options: LoadOptions) -> Aligner: ...

    def reclaim(self) -> None:
        """Give memory that dropped models held back to the system."""
        ...
