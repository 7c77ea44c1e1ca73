"""Models behind the engine's Protocols that hear a hash, take the time they are told to, and fail by plan.

Recogniser and aligner are called by the backend's one model thread, so their counters need no lock.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.errors import LoadRefused
from backend.options import LoadOptions
from backend.serving.protocols import AlignedUnit, Passage, Recognition, Token, Utterance
from devtools.stress.plan import Fault, Kind, Plan
from devtools.stress.sounds import is_marked, text_of

_SLOW_S = 2.0  # a step that is: a hundred times what one takes


class AcceleratorError(RuntimeError):
    """What torch raises for a device that is lost, by its name and text."""


class Faults:
    """Counts the calls and does what the plan says of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._calls: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()

    def call(self, where: str, marked: bool = False) -> set[Kind]:
        """Raises, hangs or waits; returns the kinds that are the caller's to do."""
        self._calls[where] += 1
        self._marked[where] += marked
        numbers = self._calls[where], self._marked[where] if marked else 0
        faults = [fault for fault in self._plan.faults if fault.where == where and fault.strikes(*numbers)]
        return {fault.kind for fault in faults if not _happen(fault)}


def _happen(fault: Fault) -> bool:
    if fault.kind == "out of memory":
        raise MemoryError("DefaultCPUAllocator: can't allocate memory")
    if fault.kind == "exception":
        raise ValueError("a fault by plan: connection refused")  # a text that must not get out
    if fault.kind == "lost device":
        raise AcceleratorError("CUDA error: an illegal memory access was encountered")
    if fault.kind == "hang":
        threading.Event().wait()
    if fault.kind == "slow":
        time.sleep(_SLOW_S)
        return True
    return False


@dataclass(eq=False)
class HashRecognizer:
    """See sounds.text_of. It refers to itself, as models do: only the garbage collector ends it, wherever that runs."""

    plan: Plan
    weight_bytes: int = 1000
    max_prefill_s: float = math.inf
    kept: list[Samples] = field(default_factory=list)

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
            self.recognizer.kept += [utterance.samples.copy() for utterance in utterances]
        steps = self.recognizer.plan.steps_of
        self.left |= {id(utterance): (utterance, steps(utterance.prompt)) for utterance in utterances}

    def step(self) -> list[tuple[Utterance, Recognition]]:
        kinds = self._call("step", [utterance for utterance, _ in self.left.values()])
        time.sleep(self.recognizer.plan.step_s)
        self.left = {key: (utterance, steps - 1) for key, (utterance, steps) in self.left.items()}
        ended = [utterance for utterance, steps in self.left.values() if steps <= 0]
        for utterance in ended:
            del self.left[id(utterance)]
        return [(utterance, _heard(utterance, kinds)) for utterance in ended]

    def drop(self, utterance: Utterance) -> None:
        self._call("drop", [utterance])
        del self.left[id(utterance)]

    def _call(self, where: str, utterances: Sequence[Utterance]) -> set[Kind]:
        if not any(utterance.prompt for utterance in utterances):
            return set()
        return self.recognizer.faults.call(where, any(is_marked(utterance.samples) for utterance in utterances))


def _heard(utterance: Utterance, kinds: set[Kind]) -> Recognition:
    text = text_of(utterance.samples, utterance.prompt, utterance.language)
    if "text that no reply can hold" in kinds and is_marked(utterance.samples):
        text += "\ud800"
    return Recognition(text, utterance.language or "en", True, (Token(7, 0, 5), Token(8, 5, len(text))))


@dataclass(eq=False)
class ShareAligner:
    """Gives every word of a passage an equal share of it."""

    plan: Plan
    weight_bytes: int = 300
    max_prefill_s: float = math.inf

    def __post_init__(self) -> None:
        self.faults = Faults(self.plan)

    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        kinds = self.faults.call("align", any(is_marked(passage.samples) for passage in passages))
        time.sleep(self.plan.passage_s * len(passages))
        units = [_shares(passage) for passage in passages]
        if "times that are no numbers" in kinds:
            return [[AlignedUnit(unit.text, math.nan, math.nan) for unit in some] for some in units]
        return units[1:] if "too few answers" in kinds else units


def _shares(passage: Passage) -> list[AlignedUnit]:
    words = passage.units or passage.text.split()
    share = passage.samples.size / SAMPLE_RATE / len(words)
    return [AlignedUnit(word.strip("."), i * share, (i + 1) * share) for i, word in enumerate(words)]


class PlannedLoader:
    """Loads a plan: the model's name is one, see plan.py."""

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
