"""Models that take time and fail as their plan says, and whose text is a hash of the samples, prompt and language.

So a reply can only belong to its own request. The backend's one model thread calls them: no counter needs a lock.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.checkpoint.aligner_lookup import inspect_aligner
from backend.errors import LoadRefused
from backend.options.load_options import LoadOptions
from backend.serving.protocols import AlignedUnit, Batching, Passage, Recognition, Spelled, Token, Utterance
from devtools.stress.plan import Kind, Plan

MARK = 0.75  # the first sample of a recording that faults are for
CONTROL_TOKENS = (  # of the tokenizer: none may reach the recognizer in a prompt
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<asr_text>",
    "<timestamp>",
)  # fmt: skip
ALIGNERS = ("shares", "portions")  # two names of the same fake
UNCLEAN = "A control token reached the recogniser."
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
        self._plan, self._calls, self._marked = plan, Counter[str](), Counter[str]()

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


def is_marked(samples: Samples) -> bool:
    return bool(samples.size and samples[0] == np.float32(MARK))


def text_of(samples: Samples, prompt: str = "", language: str | None = None) -> str:
    """The fake recognizer's text; never empty."""
    if any(token in prompt for token in CONTROL_TOKENS):
        return UNCLEAN
    digest = hashlib.blake2b(np.ascontiguousarray(samples, np.float32).tobytes(), digest_size=8)
    digest.update(f"|{prompt}|{language or ''}".encode())
    return f"Heard {digest.hexdigest()}."


class HashRecognizer:
    """See text_of. Refers to itself, as models do, so only the garbage collector can delete it."""

    weight_bytes, batching, chunk_s = 1000, Batching(), 15.0

    def __init__(self, plan: Plan) -> None:
        self.plan, self.faults, self.itself = plan, Faults(plan), self
        self.leaked: list[Samples] = []

    def prepare(self, utterance: Utterance) -> Utterance:
        return utterance

    def session(self) -> HashSession:
        self.faults.call("session")
        return HashSession(self)

    def count_tokens(self, text: str) -> int:
        return len(text)

    def spell(self, ids: Sequence[int], language: str | None) -> Spelled:
        return Spelled(language or "en", "")  # its sessions call no listener

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return (Token(7, 0, len(text)),)


class HashSession:
    def __init__(self, recognizer: HashRecognizer) -> None:
        self._recognizer = recognizer
        self._left: dict[int, tuple[Utterance, int]] = {}  # decode steps, by id, because utterances hold arrays

    def __len__(self) -> int:
        return len(self._left)

    def add(self, utterances: Sequence[Utterance]) -> None:
        self._call("add", utterances)
        plan = self._recognizer.plan
        if plan.leaks:
            self._recognizer.leaked += [utterance.samples.copy() for utterance in utterances]
        self._left |= {id(utterance): (utterance, plan.steps_of(utterance.prompt)) for utterance in utterances}

    def step(self) -> list[tuple[Utterance, Recognition]]:
        kinds = self._call("step", [utterance for utterance, _ in self._left.values()])
        time.sleep(self._recognizer.plan.step_s)
        done = [utterance for utterance, steps in self._left.values() if steps <= 1]
        self._left = {key: (utterance, steps - 1) for key, (utterance, steps) in self._left.items() if steps > 1}
        return [(utterance, _recognition(utterance, kinds)) for utterance in done]

    def drop(self, utterance: Utterance) -> None:
        self._call("drop", [utterance])
        del self._left[id(utterance)]

    def _call(self, where: str, utterances: Sequence[Utterance]) -> set[Kind]:
        if not any(utterance.prompt for utterance in utterances):
            return set()
        return self._recognizer.faults.call(where, any(is_marked(utterance.samples) for utterance in utterances))


def _recognition(utterance: Utterance, kinds: set[Kind]) -> Recognition:
    text = text_of(utterance.samples, utterance.prompt, utterance.language)
    if "text that no reply can hold" in kinds and is_marked(utterance.samples):
        text += "\ud800"
    return Recognition(text, utterance.language or "en", True, (Token(7, 0, 5), Token(8, 5, len(text))))


class ShareAligner:
    """Gives every word an equal share of its passage."""

    weight_bytes, batching = 300, Batching()

    def __init__(self, plan: Plan) -> None:
        self._plan, self._faults = plan, Faults(plan)

    def prepare(self, passage: Passage) -> Passage:
        return passage

    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        kinds = self._faults.call("align", any(is_marked(passage.samples) for passage in passages))
        time.sleep(self._plan.passage_s * len(passages))
        units = []
        for passage in passages:
            words = passage.units or passage.text.split()
            share = math.nan if "NaN times" in kinds else passage.samples.size / SAMPLE_RATE / len(words)
            units.append([AlignedUnit(word.strip("."), i * share, (i + 1) * share) for i, word in enumerate(words)])
        return units[1:] if "too few answers" in kinds else units

    def units_of(self, text: str, language: str) -> tuple[str, ...]:
        return tuple(text.split())

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return (Token(7, 0, len(text)),)


class PlannedLoader:
    """Loads the plan that the model's name is. An aligner that is none of ALIGNERS has to be a real one."""

    def __init__(self) -> None:
        self._faults = Faults(Plan())  # of the plan that was loaded last

    def reclaim(self, *, idle: bool = False) -> None:
        self._faults.call("reclaim")

    def inspect(self, options: LoadOptions) -> Literal["recognizer", "aligner"]:
        """Raises LoadRefused."""
        try:
            Plan.of_name(options.model)
        except (ValueError, KeyError, TypeError):
            raise LoadRefused("the model's name is not a plan; see devtools/stress/plan.py") from None
        if options.forced_aligner not in ALIGNERS:
            inspect_aligner(options)
        return "recognizer"

    def load_recognizer(self, options: LoadOptions) -> HashRecognizer:
        plan = _loaded(options, "load recognizer")
        self._faults = Faults(plan)
        return HashRecognizer(plan)

    def load_aligner(self, options: LoadOptions) -> ShareAligner:
        return ShareAligner(_loaded(options, "load aligner"))


def _loaded(options: LoadOptions, where: str) -> Plan:
    plan = Plan.of_name(options.model)
    Faults(plan).call(where)
    return plan
