"""The engine's interface: the Protocols of recogniser, aligner and loader, and the values they take and return.

Rules: nothing here imports a model, so every room but the engine is built and tested without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backend.errors import AsrError
from backend.options.load_options import LoadOptions

SAMPLE_RATE = 16_000  # Hz, of all samples here; as in audio/waveform.py, which stands on the same floor


Kind = Literal["recognizer", "aligner"]  # of a checkpoint
Listener: TypeAlias = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class Utterance:
    """A piece of a recording to recognise. `samples`: (n,) float32, mono at 16 kHz, -1 to 1.

    `language`: the code to force, None to let the model detect it. `repetition_penalty`: divides the positive logits
    of tokens that the answer already holds, and multiplies the negative ones; 1 is none.

    `draft`: token ids, language tag included, that the answer is expected to begin with, such as those of the answer to
    an earlier part of the same sound. They are verified in the prefill: the answer is the one without a draft, but the
    tokens that it begins with need no step. The first `fixed` of them begin the answer in any case.

    `listener` is called after each step with all tokens of the answer so far, but not after the step that ends it. It
    is called by the model's thread, so it must return at once and raise nothing. An utterance that is decoded once
    more, after a failure, begins again with one token.
    """

    samples: NDArray[np.float32]
    language: str | None
    prompt: str
    max_new_tokens: int
    repetition_penalty: float = 1.0
    draft: tuple[int, ...] = field(default=(), kw_only=True)
    fixed: int = field(default=0, kw_only=True)
    listener: Listener | None = field(default=None, kw_only=True)


class Token(NamedTuple):
    """A token of the model's vocabulary and the slice [begin, end) of the text that it stands for."""

    id: int
    begin: int
    end: int


class Spelled(NamedTuple):
    """An answer's language tag and text. `language`: the code that was detected or forced, None for neither."""

    language: str | None
    text: str


@dataclass(frozen=True)
class Recognition:
    """What was recognised in an utterance. `language`: the code that was detected or forced, None for no speech.

    `finished` is False if the model did not end its answer: the token budget ran out, or decoding was stopped because
    the answer repeated one phrase over and over (`looped`). `ids`: the answer's tokens as they were generated, language
    tag included; it began with the first `agreed` of the utterance's draft.
    """

    text: str
    language: str | None
    finished: bool
    tokens: tuple[Token, ...]
    looped: bool = False
    ids: tuple[int, ...] = ()
    agreed: int = 0


@dataclass(frozen=True)
class Passage:
    """A piece of a recording with its text, to align. `samples` as in Utterance; `language`: a code.

    `units`: the text as the aligner has split it before, where a part of a passage is aligned again.
    """

    samples: NDArray[np.float32]
    text: str
    language: str
    units: tuple[str, ...] = ()


class AlignedUnit(NamedTuple):
    """A word or character without punctuation, with its times in seconds from the start of its passage.

    `outside`: the aligner's best guess lies beyond the passage's end; the times given are the best inside. `certainty`:
    the probability, 0 to 1, that the aligner gives to times close to these: low where a word is not spoken at all.
    """

    text: str
    start_s: float
    end_s: float
    outside: bool = False
    certainty: float = 1.0


@dataclass(frozen=True)
class Batching:
    """How a model's device is kept busy.

    `rows`: most items in a batch, unless the operator says otherwise. `prefill_s`: seconds of audio that are best added
    to it together. `in_groups`: adding one item costs many times a step, as on a GPU, which waits meanwhile: items are
    added to a batch that runs several at a time, and are prepared while they wait. `slow_prefill`: adding one stops the
    others for as long as a whole decode of captions, as on a CPU.
    """

    rows: int = 8
    prefill_s: float = inf
    in_groups: bool = False
    slow_prefill: bool = False


class Session(Protocol):
    """Utterances that are being decoded together. Used by one thread at a time."""

    def __len__(self) -> int: ...

    def add(self, utterances: Sequence[Utterance]) -> None:
        """Prefill: run their prompts, so that the next step decodes them too. Changes nothing if it raises."""
        ...

    def step(self) -> Sequence[tuple[Utterance, Recognition | AsrError]]:
        """Decode one token of every utterance. Returns the utterances that ended, the very objects that were added.

        An utterance that failed by itself ends with its error, and is not tried again. What is raised is a failure of
        all.
        """
        ...

    def drop(self, utterance: Utterance) -> None:
        """Stop decoding the utterance: its request was cancelled."""
        ...


class Recognizer(Protocol):
    """Speech to text. Used by one thread at a time, but for `prepare` and what is said to be for any thread."""

    @property
    def weight_bytes(self) -> int: ...

    @property
    def batching(self) -> Batching: ...

    def prepare(self, utterance: Utterance) -> Utterance:
        """The utterance with all that the host computes of it, for `Session.add`. From a thread beside the model's."""
        ...

    @property
    def chunk_s(self) -> float:
        """The longest passage that its checkpoint is made for, in seconds; options.MIN_CHUNK_S to MAX_CHUNK_S."""
        ...

    def session(self) -> Session:
        """A session without utterances."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens the text has, at most three for each byte of its UTF-8. From any thread."""
        ...

    def spell(self, ids: Sequence[int], language: str | None) -> Spelled:
        """The text of an answer that may go on; `language`: as in its Utterance. From any thread.

        It is a prefix of the answer's final text, without its language tag and without unfinished characters.
        """
        ...

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        """The tokens of a text, each with its slice of it. From any thread."""
        ...


def recognize(recognizer: Recognizer, utterances: Sequence[Utterance]) -> list[Recognition]:
    """Decode the utterances in one session, to the end. Returns one Recognition for each, in order.

    Raises what the session raises, and the error of an utterance that failed by itself.
    """
    session = recognizer.session()
    session.add(utterances)
    recognitions: dict[int, Recognition] = {}
    while len(session):
        for utterance, result in session.step():
            if isinstance(result, AsrError):
                raise result
            recognitions[id(utterance)] = result
    return [recognitions[id(utterance)] for utterance in utterances]


class Aligner(Protocol):
    """Speech and its text to times. Used by one thread at a time, but for `prepare`."""

    @property
    def weight_bytes(self) -> int: ...

    @property
    def batching(self) -> Batching: ...

    def prepare(self, passage: Passage) -> Passage:
        """The passage with all that the host computes of it, for `align`. From a thread beside the model's."""
        ...

    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        """The units of each passage, in order."""
        ...

    def units_of(self, text: str, language: str) -> tuple[str, ...]:
        """The units of a text, for Passage.units; none for punctuation alone. From any thread."""
        ...

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        """As Recognizer.tokens_of, by the aligner's tokenizer."""
        ...


class Loader(Protocol):
    """Loads models into memory. Raises LoadRefused with the cause; foreign exceptions may pass, see faults.py."""

    def inspect(self, options: LoadOptions) -> Kind:
        """What the model is; refuses options that cannot be loaded, by what a moment shows.

        The old model is still in memory then.
        """
        ...

    def load_recognizer(self, options: LoadOptions) -> Recognizer: ...

    def load_aligner(self, options: LoadOptions) -> Aligner:
        """The aligner that the options name, or, without one, the model that is an aligner itself."""
        ...

    def reclaim(self, *, idle: bool = False) -> None:
        """Return memory of dropped models to the operating system; `idle`: also what only makes a next load faster."""
        ...
