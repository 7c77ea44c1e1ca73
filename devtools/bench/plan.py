"""What a run of the bench measures: which sizes, which sides, how often."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from devtools.bench import checkpoints, clips, vocabulary
from devtools.bench.child import OURS, TODAY, Child, Failed, System
from devtools.bench.pairs import A, Row, alternate, rounds
from devtools.bench.shapes import DEMO_ALIGNER, DEMO_MODEL, SHAPES, Shape

CLIP_WORDS = 40  # about what is said in 11 s
DEMO = "demo"
_WARM_TIMES, _WARM_S = 3, 3.0  # the first answers import, compile and find their memory
_GPUS = ("/dev/nvidia0", "/dev/kfd")

_BF16 = replace(OURS, name="ours bf16", dtype="bfloat16")
_FP32 = replace(OURS, name="ours fp32", dtype="float32")
_INT8 = replace(OURS, name="ours int8", quantization="int8")
RIVALS = ("both", "today", "earlier")
FORMATS = {"fp32": _FP32, "bf16": _BF16, "int8": _INT8}


@dataclass(frozen=True)
class Plan:
    """`long`: also what takes a large model many minutes. `earlier`: our own backend at another commit.

    `rivals`: which of today's way and the earlier commit.
    `formats`: of fp32, bf16 and int8; empty: those that the device computes.
    """

    shape: str = DEMO
    runs: int = 5
    long: bool = False
    is_quick: bool = False
    formats: tuple[str, ...] = ()
    earlier: System | None = None
    rivals: str = "both"
    began: float = field(default_factory=time.monotonic)

    @property
    def is_demo(self) -> bool:
        return self.shape == DEMO

    @property
    def on_gpu(self) -> bool:
        """A GPU, and a torch that was built for one; asked without the seconds of its import."""
        return any(Path(path).exists() for path in _GPUS) and "+cpu" not in version("torch")

    @property
    def size(self) -> Shape:
        """Raises KeyError for the demo, whose size nobody asks for."""
        return SHAPES[self.shape]

    @property
    def subjects(self) -> tuple[System, ...]:
        """Ours, in the number formats to be compared."""
        if self.formats:
            return tuple(FORMATS[name] for name in self.formats)
        return (_BF16, _INT8) if self.on_gpu else (_FP32, _BF16, _INT8)

    @property
    def contests(self) -> Iterator[tuple[System, System]]:
        """Who is measured against whom: each of ours against today's way, and against itself at another commit."""
        for subject in self.subjects if self.with_today else ():
            yield subject, TODAY
        yield from self.contests_with_earlier

    @property
    def contests_with_earlier(self) -> Iterator[tuple[System, System]]:
        if self.earlier is None or self.rivals == "today":
            return
        for subject in self.subjects:
            name = f"{self.earlier.name} {subject.name.removeprefix('ours ')}"
            yield subject, replace(self.earlier, name=name, dtype=subject.dtype, quantization=subject.quantization)

    @property
    def with_today(self) -> bool:
        return self.rivals != "earlier"

    @property
    def systems(self) -> tuple[System, ...]:
        """All sides of all contests. They are loaded side by side, so that one round is one state of the machine."""
        return tuple(dict.fromkeys(system for contest in self.contests for system in contest))

    def model(self, words: int = CLIP_WORDS) -> Path:
        """The recogniser's checkpoint; one of a published size says so many words, or as many as it can."""
        if self.is_demo:
            return DEMO_MODEL
        return checkpoints.ensure(self.shape, min(words, checkpoints.most_words(self.shape)))

    @property
    def aligner(self) -> Path:
        return (
            DEMO_ALIGNER
            if self.is_demo
            else checkpoints.ensure("tiny-aligner" if self.shape == "tiny" else "aligner", 0)
        )

    @property
    def text(self) -> str | None:
        """What every clip must be heard as; None where the model really listens."""
        return None if self.is_demo else vocabulary.text_of(CLIP_WORDS)

    def say(self, what: str) -> None:
        """A line of progress, with the minutes since the run began."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        print(f"[{minutes:3}:{seconds:02}] {what}", file=sys.stderr, flush=True)

    def pairs(
        self, what: str, ours: Callable[[], float], theirs: Callable[[], float]
    ) -> tuple[tuple[float, float], ...]:
        """So many alternating pairs, announced."""
        self.say(f"{what}: {self.runs} pairs")
        return tuple(alternate(self.runs, ours, theirs))

    def rounds(self, what: str, children: Mapping[System, Child], ask: Callable[[Child], A]) -> list[dict[System, A]]:
        """So many rounds, announced, in each of which every child is asked once."""
        self.say(f"{what}, {', '.join(system.name for system in children)}: {self.runs} rounds")
        return rounds(self.runs, {system: functools.partial(ask, child) for system, child in children.items()})


@contextlib.contextmanager
def loaded(system: System, model: Path, aligner: Path | None = None, more: Sequence[str] = ()) -> Iterator[Child]:
    """A child that has the model loaded and is warm: it has answered three times, or for seconds. Raises Failed."""
    with Child(system) as child:
        child.load(system.load_options(model, aligner, more))
        until = time.monotonic() + _WARM_S
        for _ in range(_WARM_TIMES):
            child.ask(clips.clip(0))
            if time.monotonic() > until:
                break
        yield child


def rows_or_failure(measure: str, subject: str, theirs: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows, and behind them one that says why there are no more, where a side failed."""
    try:
        yield from rows()
    except Failed as failure:
        yield Row(measure, subject, theirs, failure=str(failure))
