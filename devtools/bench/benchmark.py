"""What one run of the bench compares: models, number formats, rivals, how often."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from devtools.bench import clips, shapes
from devtools.bench.peers import Peer
from devtools.bench.system import BASELINE, OURS, Server, System
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL

CLIP_WORDS = 40  # about as many as 11 s of speech have
DEMO = "demo"
RIVALS = ("both", "today", "earlier", "peers")
FORMATS = {
    "fp32": replace(OURS, name="ours fp32", dtype="float32"),
    "bf16": replace(OURS, name="ours bf16", dtype="bfloat16"),
    "int8": replace(OURS, name="ours int8", quantization="int8"),
}
_WARM_TIMES, _WARM_S = 3, 3.0  # the first answers import, compile and allocate


@dataclass(frozen=True)
class Benchmark:
    """`earlier`: our own backend at another git revision. `rivals`: which of BASELINE and `earlier` to measure.

    "peers" as `rivals`: neither. `peers`: other programs, which transcribe clips and nothing else.

    `long`: also what takes a large model many minutes. `formats`: empty means all that the device computes. `rows`: the
    sizes of the batch in the measure of a GPU; empty means the backend's default. `graphs`: ours decodes with CUDA
    graphs.
    """

    shape: str = DEMO
    runs: int = 5
    long: bool = False
    formats: tuple[str, ...] = ()
    earlier: System | None = None
    rivals: str = "both"
    rows: tuple[int, ...] = ()
    graphs: bool = True
    peers: tuple[Peer, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Of ours, in every measure."""
        return () if self.graphs else ("cuda_graphs:off",)

    @property
    def is_demo(self) -> bool:
        return self.shape == DEMO

    @property
    def on_gpu(self) -> bool:
        """A GPU, and a torch that was built for one; found without importing torch."""
        return any(map(Path.exists, (Path("/dev/nvidia0"), Path("/dev/kfd")))) and "+cpu" not in version("torch")

    @property
    def subjects(self) -> tuple[System, ...]:
        """Ours, once for each number format."""
        return tuple(FORMATS[name] for name in self.formats or (("bf16", "int8") if self.on_gpu else FORMATS))

    @property
    def with_baseline(self) -> bool:
        return self.rivals in ("both", "today")

    @property
    def contests(self) -> Iterator[tuple[System, System]]:
        """Each of ours with BASELINE, then each of ours with itself at the earlier revision."""
        for subject in self.subjects if self.with_baseline else ():
            yield subject, BASELINE
        if self.earlier and self.rivals in ("both", "earlier"):
            for subject in self.subjects:
                name = f"{self.earlier.name} {subject.name.removeprefix('ours ')}"
                yield subject, replace(self.earlier, name=name, dtype=subject.dtype, quantization=subject.quantization)

    @property
    def request_contests(self) -> Iterator[tuple[System, System]]:
        """The contests of whole requests, which peers can take part in."""
        yield from self.contests
        for subject in self.subjects:
            for peer in self.peers:
                yield subject, peer.system

    @property
    def systems(self) -> tuple[System, ...]:
        """All sides of all contests, each once."""
        contests = [*self.contests, *((subject,) for subject in self.subjects if self.peers)]
        return tuple(dict.fromkeys(system for contest in contests for system in contest))

    def model(self, words: int = CLIP_WORDS) -> Path:
        """The recogniser's checkpoint; one of a published size says `words` words, or as many as it can."""
        if self.is_demo:
            return DEMO_MODEL
        return shapes.ensure(self.shape, min(words, shapes.most_words(self.shape)))

    @property
    def aligner(self) -> Path:
        if self.is_demo:
            return DEMO_ALIGNER
        return shapes.ensure("tiny-aligner" if self.shape == "tiny" else "aligner", 0)

    @property
    def text(self) -> str | None:
        """The transcript of every clip; None for the demo, which recognises speech."""
        return None if self.is_demo else shapes.text_of(CLIP_WORDS)

    @contextlib.contextmanager
    def servers(
        self, without: Collection[System] = (), words: int = CLIP_WORDS, more: Sequence[str] = ()
    ) -> Iterator[dict[System, Server]]:
        """All systems but peers with the model that says `words` words loaded, at the same time, with `more` options.

        So one round is one state of the machine.
        """
        with contextlib.ExitStack() as stack:
            wanted = [system for system in self.systems if system not in without]
            yield {
                system: stack.enter_context(
                    loaded(system, self.model(words), (*more, *(self.options if system is not BASELINE else ())))
                )
                for system in wanted
            }


@contextlib.contextmanager
def loaded(system: System, model: Path, more: Sequence[str] = ()) -> Iterator[Server]:
    """A server with the model loaded, warmed up by a few requests. Raises Failed or ServerFailed."""
    with Server(system) as server:
        server.load_model(model, more=more)
        until = time.monotonic() + _WARM_S
        for _ in range(_WARM_TIMES):
            server.transcribe(clips.clip(0))
            if time.monotonic() > until:
                break
        yield server
