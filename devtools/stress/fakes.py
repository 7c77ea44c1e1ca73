"""Models behind the engine's Protocols whose text is a hash, and which take time and fail as their plan says.

The backend's one model thread calls recognizer and aligner, so their counters need no lock.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.engine.recognizer import AlignedUnit, Passage, Recognition, Token, Utterance
from backend.errors import LoadRefused
from backend.options import LoadOptions
from devtools.stress.plan import Kind, Plan
from devtools.stress.sounds import is_marked, text_of

_SLOW_S = 2.0  # a hundred times a normal step


class AcceleratorError(RuntimeError):
    """Named like torch's error for a lost device."""


_ERRORS: Mapping[Kind, tuple[type[Exception], str]] = {
    "out of memory": (MemoryError, "DefaultCPUAllocator: can't allocate memory"),
    "exception": (ValueError, "a fault by plan: connection refused"),  # a text that must not reach the client
    "lost device": (AcceleratorError, "CUDA error: an illegal memory access was encountered"),
}


class Faults:
    """Counts the calls and applies the faults of the plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._calls: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()

    def call(self, where: str, marked: bool = False) -> set[Kind]:
        """Raises, hangs or sleeps; returns the kinds that the caller has to apply."""
        self._calls[where] += 1
        self._marked[where] += marked
        numbers = self._calls[where], self._marked[where] if marked else 0
        kinds = {fault.kind for fault in self._plan.faults if fault.where == where and fault.strikes(*numbers)}
        for kind in kinds & _ERRORS.keys():
            error, text = _ERRORS[kind]
            raise error(text)
        if "hang" in kinds:
            threading.Event().wait()
        if "slow" in kinds:
            time.sleep(_SLOW_S)
        return kinds


@dataclass(eq=False)
class HashRecognizer:
    """See sounds.text_of. Refers to itself, as models do, so only the garbage collector can delete it."""

    plan: Plan
    weight_bytes: int = 1000
    at_once_s: float = math.inf
    leaked: list[Samples] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults = Faults(self.plan)
        self.itself = self

    def session(self) -> HashSession:
        self.faults.call("session")
        return HashSession(self)

    def count_tokens(self, text: str) -> int:
        return len(text)


@dataclass(eq=False)
class HashSession:
    recognizer: HashRecognizer
    left: dict[int, tuple[Utterance, int]] = field(default_factory=dict)  # by id, because utterances hold arrays

    def __len__(self) -> int:
        return len(self.left)

    def add(self, utterances: Sequence[Utterance]) -> None:
        self._call("add", utterances)
        if self.recognizer.plan.leaks:
            self.recognizer.leaked += [utterance.samples.copy() for utterance in utterances]
        steps = self.recognizer.plan.steps_of
        self.left |= {id(utterance): (utterance, steps(utterance.prompt)) for utterance in utterances}

    def step(self) -> list[tuple[Utterance, Recognition]]:
        kinds = self._call("step", [utterance for utterance, _ in self.left.values()])
        time.sleep(self.recognizer.plan.step_s)
        self.left = {key: (utterance, steps - 1) for key, (utterance, steps) in self.left.items()}
        done = [utterance for utterance, steps in self.left.values() if steps <= 0]
        for utterance in done:
            del self.left[id(utterance)]
        return [(utterance, _recognition(utterance, kinds)) for utterance in done]

    def drop(self, utterance: Utterance) -> None:
        self._call("drop", [utterance])
        del self.left[id(utterance)]

    def _call(self, where: str, utterances: Sequence[Utterance]) -> set[Kind]:
        if not any(utterance.prompt for utterance in utterances):
            return set()
        return self.recognizer.faults.call(where, any(is_marked(utterance.samples) for utterance in utterances))


def _recognition(utterance: Utterance, kinds: set[Kind]) -> Recognition:
    text = text_of(utterance.samples, utterance.prompt, utterance.language)
    if "text that no reply can hold" in kinds and is_marked(utterance.samples):
        text += "\ud800"
    return Recognition(text, utterance.language or "en", True, (Token(7, 0, 5), Token(8, 5, len(text))))


@dataclass(eq=False)
class ShareAligner:
    """Gives every word an equal share of its passage."""

    plan: Plan
    weight_bytes: int = 300
    at_once_s: float = math.inf

    def __post_init__(self) -> None:
        self.faults = Faults(self.plan)

    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        kinds = self.faults.call("align", any(is_marked(passage.samples) for passage in passages))
        time.sleep(self.plan.passage_s * len(passages))
        units = [_shares(passage) for passage in passages]
        if "NaN times" in kinds:
            return [[AlignedUnit(unit.text, math.nan, math.nan) for unit in some] for some in units]
        return units[1:] if "too few answers" in kinds else units


def _shares(passage: Passage) -> list[AlignedUnit]:
    words = passage.units or passage.text.split()
    share = passage.samples.size / SAMPLE_RATE / len(words)
    return [AlignedUnit(word.strip("."), i * share, (i + 1) * share) for i, word in enumerate(words)]


class PlannedLoader:
    """Loads the plan that the model's name is."""

    def prepare(self) -> None: ...

    def inspect(self, options: LoadOptions) -> None:
        """Raises LoadRefused."""
        try:
            Plan.of_name(options.model)
        except (ValueError, KeyError, TypeError):
            raise LoadRefused("the model's name is not a plan; see devtools/stress/plan.py") from None

    def load_recognizer(self, options: LoadOptions) -> HashRecognizer:
        plan = Plan.of_name(options.model)
        Faults(plan).call("load recognizer")
        return HashRecognizer(plan)

    def load_aligner(self, options: LoadOptions) -> ShareAligner:
        plan = Plan.of_name(options.model)
        Faults(plan).call("load aligner")
        return ShareAligner(plan)

    def reclaim(self) -> None: ...
