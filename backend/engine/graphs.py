"""The decoder's step, recorded once for each size of a batch and replayed.

A GPU is done with a step's thousand small kernels before Python has launched them; a recording (a CUDA graph) is one
launch. It knows addresses and shapes, so keys and values stand in one block of memory, laid out for a number of rows
and slots that is rounded up. A row that leaves stays behind as a dead one, which costs nothing while the weights are
what is read, until three quarters are dead.

Nothing is taken on trust: where recorded steps do not say what plain ones say, or cannot be recorded, the plain decoder
goes on (`recorded`), and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from backend.engine.decoder import Cache, Decoder, with_slots

_log = logging.getLogger(__name__)

Run: TypeAlias = Callable[[], torch.Tensor]
Record: TypeAlias = Callable[[Run], Run]

_SLOTS = 256  # a layout's are a multiple: a clip of 15 s with its answer fits into two of them
_DEAD = 4  # of so many rows of a layout, one must live


@dataclass(frozen=True)
class _Layout:
    """Static memory of one size, of which `step` reads and writes all. Dead rows go on writing to their first slot.

    `held`: as a Cache's tensor. `tokens`, `lengths`, `alive` (1 or 0): (rows,). `step` gives (rows, vocabulary).
    """

    held: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    alive: torch.Tensor
    step: Run

    @property
    def rows(self) -> int:
        return self.held.shape[2]

    @property
    def slots(self) -> int:
        return self.held.shape[4]


class Rows:
    """The rows of one session, and where in a layout each of them is."""

    def __init__(self, layout: _Layout, cache: Cache) -> None:
        layout.alive.zero_()
        layout.lengths.zero_()
        self.layout = layout
        self.places: list[int] = []
        self.longest = 0
        self.enter(cache)

    @property
    def index(self) -> torch.Tensor:
        return torch.tensor(self.places, device=self.layout.held.device)

    def has_room(self, rows: int, longest: int) -> bool:
        """For so many rows more, and a step after them."""
        used = len(self.places) + rows
        fits = used <= self.layout.rows and max(self.longest, longest) < self.layout.slots
        return fits and used * _DEAD > self.layout.rows

    def enter(self, cache: Cache) -> None:
        """These rows, too. Whole rows are written: nothing may be multiplied with what one held before, not even 0."""
        free = [place for place in range(self.layout.rows) if place not in self.places][: cache.rows]
        index = torch.tensor(free, device=self.layout.held.device)
        self.layout.held[:, :, index] = with_slots(cache.tensor, self.layout.slots)[..., : self.layout.slots, :]
        self.layout.lengths[index] = cache.lengths
        self.layout.alive[index] = 1
        self.places += free
        self.longest = max(self.longest, cache.longest)

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows, in this order."""
        self.places = [self.places[row] for row in rows]
        index, alive = self.index, torch.zeros_like(self.layout.alive)
        alive[index] = 1
        self.layout.alive.copy_(alive)
        self.layout.lengths.mul_(alive)

    def copied(self) -> Cache:
        """The rows by themselves, in memory of their own."""
        index = self.index
        return Cache(self.layout.held[:, :, index], self.layout.lengths[index], self.longest)


class Graphs:
    """A decoder whose steps are recordings. One session at a time: a new one takes the memory over from the last."""

    def __init__(self, decoder: Decoder, record: Record) -> None:
        self._decoder = decoder
        self._record = record
        self._block = torch.empty(0)  # flat; every layout is a view of it
        self._layouts: dict[tuple[int, int], _Layout] = {}
        self._owner: Rows | None = None

    def read(self, embedded: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, Cache]:
        """As Decoder.read, which it is: prompts are long enough to keep a GPU busy."""
        return self._decoder.read(embedded, lengths)

    def joined(self, rows: Rows | None, new: Cache) -> Rows:
        """The rows of both. What fails takes the session with it: its next step will fail, too."""
        if rows is None:
            return self._laid_out(new)
        self._check(rows)
        if not rows.has_room(new.rows, new.longest):
            return self._laid_out(rows.copied().joined(new))
        rows.enter(new)
        return rows

    def step(self, tokens: torch.Tensor, rows: Rows) -> torch.Tensor:
        """As Decoder.step."""
        self._check(rows)
        if not rows.has_room(0, 0):
            moved = self._laid_out(rows.copied())
            rows.layout, rows.places = moved.layout, moved.places
            self._owner = rows
        index = rows.index
        rows.layout.tokens[index] = tokens
        rows.longest += 1
        return rows.layout.step()[index]  # a copy: the next step writes to the same place

    def _check(self, rows: Rows) -> None:
        if self._owner is not rows:
            raise RuntimeError("the session's memory was given to another one")

    def _laid_out(self, cache: Cache) -> Rows:
        self._owner = None  # what is recorded on the way writes to the block
        layout = self._layout(cache, _power_of_two(cache.rows), (cache.longest // _SLOTS + 1) * _SLOTS)
        self._owner = Rows(layout, cache)
        return self._owner

    def _layout(self, cache: Cache, rows: int, slots: int) -> _Layout:
        """Of that size, for what the cache holds."""
        layers, two, _, heads, _, size = cache.tensor.shape
        shape = (layers, two, rows, heads, slots, size)
        count = torch.Size(shape).numel()
        if count > self._block.numel():
            self._forget()
            self._block = torch.zeros(count, dtype=cache.tensor.dtype, device=cache.tensor.device)
        if (rows, slots) not in self._layouts:
            try:
                self._layouts[rows, slots] = self._new_layout(self._block[:count].view(shape))
            except Exception:
                self._forget()  # if the memory ran out, this is what there is to give back
                raise
        return self._layouts[rows, slots]

    def _forget(self) -> None:
        self._layouts.clear()  # they know the block's address
        self._block = torch.empty(0)

    def _new_layout(self, held: torch.Tensor) -> _Layout:
        held.zero_()
        tokens, lengths, alive = torch.zeros(3, held.shape[2], dtype=torch.long, device=held.device)
        angles = self._decoder.angles(held.shape[4])  # the decoder may replace them; the recording keeps these

        def run() -> torch.Tensor:
            logits = self._decoder.advanced(tokens, held, lengths, angles)
            lengths.add_(alive)
            return logits

        return _Layout(held, tokens, lengths, alive, self._record(run))


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


class CudaGraphs:
    """Records what a function launches on a CUDA device, as a graph; all graphs share their scratch memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                run()  # libraries choose kernels and take workspaces at their first call, which cannot be recorded
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # what other threads do meanwhile, a load for instance, is none of the recording's business
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                written = run()

        def replay() -> torch.Tensor:
            graph.replay()
            return written

        replay.run = run  # type: ignore[attr-defined] # the memory that the graph reads must live as long as it
        return replay


def recorded(decoder: Decoder, device: torch.device) -> Decoder | Graphs:
    """The decoder with recorded steps, on CUDA, if they say what its own steps say; else the decoder itself."""
    if device.type != "cuda":
        return decoder
    try:
        graphs = Graphs(decoder, CudaGraphs(device))
        if agree(decoder, graphs, device):
            return graphs
        _log.warning("recorded steps do not say what plain ones say; going on with plain ones")
    except Exception:  # noqa: BLE001 - drivers raise what they like, and there is another way
        _log.warning("steps cannot be recorded here; going on with plain ones", exc_info=True)
    return decoder


_TRIAL_LENGTHS, _TRIAL_STEPS = (9, 5, 7), 4
_TOLERANCE = 0.05  # of the largest logit: sixteen bits, and other kernels for other shapes


@torch.inference_mode()
def agree(decoder: Decoder, graphs: Graphs, device: torch.device) -> bool:
    """Whether both say the same of three prompts of noise, of which one leaves midway."""
    lengths = torch.tensor(_TRIAL_LENGTHS, device=device)
    chance = torch.Generator(device="cpu").manual_seed(0)
    shape = (len(_TRIAL_LENGTHS), max(_TRIAL_LENGTHS))
    embedded = decoder.embed(torch.randint(decoder.vocabulary, shape, generator=chance).to(device))
    logits, cache = decoder.read(embedded, lengths)
    rows = graphs.joined(None, graphs.read(embedded, lengths)[1])
    for number in range(_TRIAL_STEPS):
        if number == _TRIAL_STEPS // 2:
            logits = logits[[2, 0]]
            cache.keep([2, 0])
            rows.keep([2, 0])
        said = logits.argmax(dim=-1)
        logits, others = decoder.step(said, cache), graphs.step(said, rows)
        if not bool((logits - others).abs().max() <= _TOLERANCE * logits.abs().max()):  # false for nan, too
            return False
    return True
