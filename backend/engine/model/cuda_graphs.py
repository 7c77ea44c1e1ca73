"""The decoder's step, recorded once for each size of a batch and replayed.

A GPU is done with a step's thousand small kernels before Python has launched them; a recording (a CUDA graph) is one
launch. It knows addresses and shapes, so keys and values stand in one block of memory, laid out for a number of rows
and slots that is rounded up. A row that leaves stays behind as a dead one, which costs nothing while the weights are
what is read, until three quarters are dead.

How a step is recorded, and whether that is to be relied on, is engine/model/graph_capture's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from backend.engine.model.decoder import Decoder
from backend.engine.model.kv_cache import KVCache
from backend.engine.ops.device import free_bytes
from backend.serving.faults import untraced

Run: TypeAlias = Callable[[], torch.Tensor]
Record: TypeAlias = Callable[[Run], Run]

_SLOTS = 256  # a layout's are a multiple: a clip of 15 s with its answer fits into two of them
_DEAD = 4  # of so many rows of a layout, more than one must live
_KEPT = 1 << 30  # bytes of keys and values that are kept for the next session, whatever it needs


@dataclass
class _Layout:
    """Static memory of one size, that `step` reads and writes whole. Dead rows go on writing to their first slot.

    `tensor`: (layers, 2, rows, key heads, slots, head size); `lengths` in use, `tokens`, `alive` (1 or 0): (rows,).
    `step` gives (rows, vocabulary).
    """

    tensor: torch.Tensor
    lengths: torch.Tensor
    tokens: torch.Tensor
    alive: torch.Tensor
    step: Run

    @property
    def rows(self) -> int:
        return self.tensor.shape[2]

    @property
    def slots(self) -> int:
        return self.tensor.shape[4]


class Rows:
    """The rows of one session, where in the layout each of them is, and how long it is at most."""

    def __init__(self) -> None:
        self.token = object()  # by which the memory's owner is known, without a reference that keeps the rows
        self._layout: _Layout | None = None
        self.places: list[int] = []
        self.bounds: list[int] = []

    @property
    def layout(self) -> _Layout:
        assert self._layout is not None
        return self._layout

    @property
    def index(self) -> torch.Tensor:
        return torch.tensor(self.places, device=self.layout.tensor.device)

    def leave(self) -> None:
        """The layout, so that its memory can be had for another; the rows are lost."""
        self._layout, self.places, self.bounds = None, [], []

    def move_to(self, layout: _Layout) -> None:
        """Without a row, for the present."""
        layout.alive.zero_()
        layout.lengths.zero_()
        self._layout = layout

    def has_room(self, rows: int = 0, longest: int = 0) -> bool:
        """For so many rows more, and a step after them; and not too much of it."""
        used = len(self.places) + rows
        fits = used <= self.layout.rows and max([longest, *self.bounds]) < self.layout.slots
        return fits and used * _DEAD > self.layout.rows

    def enter(self, cache: KVCache) -> None:
        """These rows, too. Whole rows are written: nothing may be multiplied with what one held before, not even 0."""
        free = [place for place in range(self.layout.rows) if place not in self.places][: cache.rows]
        index = torch.tensor(free, device=self.layout.tensor.device)
        self.layout.tensor[:, :, index] = 0
        self.layout.tensor[:, :, index, :, : cache.longest] = cache.tensor[..., : cache.longest, :]
        self.layout.lengths[index] = cache.lengths
        self.layout.alive[index] = 1
        self.places += free
        self.bounds += cache.bounds

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows, in this order."""
        self.places = [self.places[row] for row in rows]
        self.bounds = [self.bounds[row] for row in rows]
        alive = torch.zeros_like(self.layout.alive)
        alive[self.index] = 1
        self.layout.alive.copy_(alive)
        self.layout.lengths.mul_(alive)

    def copied(self) -> KVCache:
        """The rows by themselves, in memory of their own."""
        index = self.index
        layers, _, _, heads, _, size = self.layout.tensor.shape
        cache = KVCache(layers, heads, size, self.layout.tensor)
        guests = cache.guests(len(index), max(self.bounds))
        for place, held in zip(guests, self.layout.tensor, strict=True):
            place.copy_(held[:, index, :, : guests.shape[4]])
        cache.enter(self.layout.lengths[index], self.bounds)
        return cache


def _layout_of(rows: int, positions: int) -> tuple[int, int]:
    """Rows and slots of the layout for so many rows, whose longest has so many positions and says one more."""
    return 1 << (rows - 1).bit_length(), (positions // _SLOTS + 1) * _SLOTS


class GraphedDecoder:
    """A decoder whose steps are recordings. One session at a time: a new one takes the memory over from the last.

    `rows`, `positions`: what the largest batch usually needs. There is memory for it from the first session on, if that
    is no more than half of what is free, until a session needs more: with the memory all that was recorded is lost.
    """

    def __init__(self, decoder: Decoder, record: Record, rows: int = 1, positions: int = 0) -> None:
        self.record = record
        self._decoder = decoder
        self._usual = _layout_of(rows, positions)
        self._block = torch.empty(0)  # flat; every layout is a view of it
        self._layouts: dict[tuple[int, int], _Layout] = {}
        self._owner: object = None

    def prefill(
        self, embedded: torch.Tensor, lengths: torch.Tensor, rows: Rows | None = None
    ) -> tuple[torch.Tensor, Rows]:
        """As Decoder.prefill, which reads them: prompts are long enough to keep a GPU busy."""
        logits, new = self._decoder.prefill(embedded, lengths)
        return logits, self.joined(rows, new)

    def joined(self, rows: Rows | None, new: KVCache) -> Rows:
        """The rows of both. If this fails, those that were there go on; or the next step fails, too."""
        if rows is None:
            rows = Rows()
            self._lay_out(rows, new)
            return rows
        self._check(rows)
        if rows.has_room(new.rows, new.longest):
            rows.enter(new)
            return rows
        held = rows.copied()
        try:
            self._lay_out(rows, held, new)
            return rows
        except Exception as error:  # noqa: BLE001 - it is raised below
            failure = untraced(error)  # the trace would hold the memory that is needed now
        self._lay_out(rows, held)
        raise failure

    def decode_step(self, tokens: torch.Tensor, rows: Rows) -> torch.Tensor:
        """As Decoder.decode_step."""
        self._check(rows)
        if len(tokens) != len(rows.places):
            raise ValueError("a token for each row")
        if not rows.has_room():
            self._lay_out(rows, rows.copied())
        index = rows.index
        rows.layout.tokens[index] = tokens
        rows.bounds = [bound + 1 for bound in rows.bounds]
        return rows.layout.step()[index]  # a copy: the next step writes to the same place

    def _check(self, rows: Rows) -> None:
        if self._owner is not rows.token:
            raise RuntimeError("the session's memory was given to another one, or lost")

    def _lay_out(self, rows: Rows, *caches: KVCache) -> None:
        """Give the memory to these rows, which are copies, laid out for their number and length."""
        self._owner = None  # what is recorded on the way writes to the block
        rows.leave()
        count, longest = sum(cache.rows for cache in caches), max(cache.longest for cache in caches)
        rows.move_to(self._layout(caches[0], *_layout_of(count, longest)))
        for cache in caches:
            rows.enter(cache)
        self._owner = rows.token

    def _layout(self, like: KVCache, rows: int, slots: int) -> _Layout:
        layers, two, _, heads, _, size = like.tensor.shape
        shape = torch.Size((layers, two, rows, heads, slots, size))
        needed, one = shape.numel(), shape.numel() // (rows * slots)
        usual = self._usual[0] * self._usual[1] * one
        most = max(_KEPT // like.tensor.itemsize, _DEAD * needed, usual)
        if not needed <= self._block.numel() <= most:
            self.forget()
            can_be_had = 2 * usual * like.tensor.itemsize <= free_bytes(like.tensor.device)
            count = max(needed, usual) if can_be_had else needed
            self._block = torch.zeros(count, dtype=like.tensor.dtype, device=like.tensor.device)
        if (rows, slots) not in self._layouts:
            try:
                self._layouts[rows, slots] = self._new_layout(self._block[:needed].view(shape))
            except Exception:
                self.forget()  # if the memory ran out, this is what there is to give back
                raise
        return self._layouts[rows, slots]

    def forget(self) -> None:
        """Give the memory back, as far as no session has it."""
        self._layouts.clear()  # they know the block's address
        self._block = torch.empty(0)

    def _new_layout(self, held: torch.Tensor) -> _Layout:
        held.zero_()
        tokens, lengths, alive = torch.zeros(3, held.shape[2], dtype=torch.long, device=held.device)
        decoder = self._decoder  # and not self, which will know the recording: a circle would keep the weights
        cos_sin = decoder.cos_sin(held.shape[4])  # the decoder may replace them; the recording keeps these

        def run() -> torch.Tensor:
            logits = decoder.advanced(tokens, held, lengths, cos_sin)
            lengths.add_(alive)
            return logits

        return _Layout(held, lengths, tokens, alive, self.record(run))
