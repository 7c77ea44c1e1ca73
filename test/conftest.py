"""Fakes behind the engine's Protocols, and the demo checkpoints.

Fixtures, not a module to import: a folder named `test` without `__init__.py` is shadowed by the standard library's.
"""

from __future__ import annotations

import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from backend.audio.decoding.pool import DecoderPool
from backend.audio.vad import Speech, SpeechRules
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcriber import Transcriber
from backend.pipeline.transcript_builder import Transcript
from backend.serving.protocols import AlignedUnit, Batching, Kind, Passage, Recognition, Spelled, Token, Utterance
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler

# The same examples in each run: a test fails for a change and not by chance. Others: --hypothesis-profile=explore.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

pytest_plugins = ["grpc_service", "simulated_speech"]  # of test/fixtures


def pytest_configure(config: pytest.Config) -> None:
    """The tests are about CPUs, also where there is a CUDA device; `pytest -m gpu` runs those that need it."""
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


TIMES = TranscribeOptions(times=True, words=True)
ROOT = Path(__file__).parent.parent


def text_of_sound(utterance: Utterance) -> str:
    """A text that only this very audio can have: replies that were mixed up would show."""
    return f"Heard {zlib.crc32(utterance.samples.tobytes()):08x}."


@dataclass
class FakeRecognizer:
    """Answers what `answer` says. `batches` holds the number of utterances of every call."""

    answer: Callable[[Utterance], str | Recognition] = text_of_sound
    weight_bytes: int = 1000
    batching: Batching = field(default_factory=Batching)
    chunk_s: float = 15.0
    batches: list[int] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)
    gate: threading.Event | None = None  # a call waits for it, and says in `entered` that it does
    entered: threading.Event = field(default_factory=threading.Event)

    def prepare(self, utterance: Utterance) -> Utterance:
        return utterance

    def session(self) -> FakeSession:
        return FakeSession(self)

    def count_tokens(self, text: str) -> int:
        """One for each byte, as in a vocabulary that knows none of its words."""
        return len(text.encode())

    def spell(self, ids: Sequence[int], language: str | None) -> Spelled:
        """Its answers have no ids, so no two of them agree."""
        return Spelled(language, "")

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return (Token(7, 0, len(text)),)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        self.batches.append(len(utterances))
        self.utterances += utterances
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        return [self._recognition(u) for u in utterances]

    def _recognition(self, utterance: Utterance) -> Recognition:
        answer = self.answer(utterance)
        if isinstance(answer, Recognition):
            return answer
        words = answer.split()
        begins = [answer.index(word) for word in words]
        tokens = tuple(Token(7 + i, b, b + len(w)) for i, (b, w) in enumerate(zip(begins, words, strict=True)))
        return Recognition(answer, (utterance.language or "en") if answer else None, True, tokens)


@dataclass
class FakeSession:
    """Answers everything in the step after it came."""

    recognizer: FakeRecognizer
    waiting: list[Utterance] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, utterances: Sequence[Utterance]) -> None:
        self.waiting += utterances

    def step(self) -> list[tuple[Utterance, Recognition]]:
        ended = list(zip(self.waiting, self.recognizer.recognize(self.waiting), strict=True))
        self.waiting = []
        return ended

    def drop(self, utterance: Utterance) -> None:
        self.waiting.remove(utterance)


@dataclass
class FakeAligner:
    """Gives every word of a passage an equal share of it, or what `answer` says."""

    answer: Callable[[Passage], list[AlignedUnit]] | None = None
    weight_bytes: int = 300
    batching: Batching = field(default_factory=Batching)
    fault: Exception | None = None
    passages: list[Passage] = field(default_factory=list)

    def prepare(self, passage: Passage) -> Passage:
        return passage

    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        self.passages += passages
        if self.fault is not None:
            raise self.fault
        return [self._units(p) for p in passages]

    def units_of(self, text: str, language: str) -> tuple[str, ...]:
        return tuple(word for word in text.split() if any(map(str.isalnum, word)))

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return (Token(9, 0, len(text)),)

    def _units(self, passage: Passage) -> list[AlignedUnit]:
        if self.answer is not None:
            return self.answer(passage)
        words = passage.units or passage.text.split()
        share = passage.samples.size / 16_000 / len(words)
        return [
            AlignedUnit(word.strip(".,?!"), round(i * share, 6), round((i + 1) * share, 6))
            for i, word in enumerate(words)
        ]


@dataclass
class FakeLoader:
    """Hands out fakes and counts them; `fault` is raised by the next load of the recogniser or the aligner."""

    recognizer: FakeRecognizer = field(default_factory=FakeRecognizer)
    aligner: FakeAligner = field(default_factory=FakeAligner)
    events: list[str] = field(default_factory=list)
    refusals: dict[str, Exception] = field(default_factory=dict)  # by what is loaded: inspect, model name, aligner
    gate: threading.Event | None = None
    kind: Kind = "recognizer"
    before_inspect: Callable[[], None] = lambda: None
    before_each: Callable[[], None] = lambda: None

    def _happen(self, event: str, key: str) -> None:
        self.events.append(event)
        self.before_each()
        if self.gate is not None:
            assert self.gate.wait(20)
        if key in self.refusals:
            raise self.refusals[key]

    def inspect(self, options: LoadOptions) -> Kind:
        self.before_inspect()
        if "inspect" in self.refusals:
            raise self.refusals["inspect"]
        return self.kind

    def load_recognizer(self, options: LoadOptions) -> FakeRecognizer:
        self._happen(f"load {options.model}", options.model)
        return self.recognizer

    def load_aligner(self, options: LoadOptions) -> FakeAligner:
        self._happen(f"align {options.forced_aligner}", "aligner")
        return self.aligner

    def reclaim(self, *, idle: bool = False) -> None:
        self.events.append("reclaim all" if idle else "reclaim")


@pytest.fixture(autouse=True)
def denormal_floats() -> None:
    """On, as the backend has them: tests that import the whole package import DyNet, which switches them off."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def decoder_pool() -> Iterator[DecoderPool]:
    """The one way in for audio, with real children."""
    decoder_pool = DecoderPool()
    yield decoder_pool
    decoder_pool.close()


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


async def speech_by_level(samples: np.ndarray, rules: SpeechRules) -> Speech:
    """A detector for sound that is made of bursts: speech is what is not silent for a frame; loud speech is sure."""
    frames = np.abs(np.pad(samples, (0, -samples.size % 512))).reshape(-1, 512).max(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], frames > 0.001, [False]])))
    spans = tuple((int(a) * 512, min(int(b) * 512, samples.size)) for a, b in edges.reshape(-1, 2))
    return Speech(spans, np.clip(frames * 2, 0, 1).astype(np.float32))


@pytest.fixture
def transcribe(loader, decoder_pool, tmp_path: Path):
    """`await transcribe(samples, options, **load options)` with `loader`'s fakes; no VAD by default."""
    scheduler = Scheduler()

    async def run(samples: np.ndarray, options: TranscribeOptions = TIMES, **load) -> Transcript:
        path = tmp_path / "recording.wav"
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        resident = Resident(loader)
        await resident.load(LoadOptions(**{"model": "m", "forced_aligner": "al", "vad": False, **load}))
        return await Transcriber(resident, scheduler, decoder_pool, speech_by_level).transcribe(str(path), options)

    yield run
    scheduler.stop()


@pytest.fixture
def bursts() -> Callable[..., np.ndarray]:
    """`bursts(2, 3, pause_s=1)`: noise of these lengths in seconds with pauses of silence between."""

    def make(*lengths_s: float, pause_s: float = 1.0, level: float = 0.5) -> np.ndarray:
        rng = np.random.default_rng(1)
        pieces = []
        for length_s in lengths_s:
            pieces += [rng.uniform(-level, level, round(length_s * 16_000)), np.zeros(round(pause_s * 16_000))]
        return np.concatenate(pieces[:-1]).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def asr_folder() -> Path:
    return ROOT / "test/models/asr"


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    yield scheduler
    scheduler.stop()


@pytest.fixture(scope="session")
def aligner_folder() -> Path:
    return ROOT / "test/models/aligner"


@pytest.fixture(scope="session")
def recordings() -> Path:
    return ROOT / "test/audio"
