"""Decode steps as CUDA graphs: captured once for each batch shape, replayed for every token.

On a GPU a decode step is a thousand small kernels, and Python takes longer to launch them than the GPU to run them. A
CUDA graph launches all of them at once, but it is bound to addresses and shapes. So keys and values are in one static
block of memory, and a batch's shape (rows, capacity) is rounded up to few distinct ones. A row that is removed becomes
inactive and is computed all the same; that costs nothing while reading the weights takes most of a step's time. When
three quarters of the rows are inactive, the others move to a smaller shape.

graph_capture.py captures the steps and checks them.
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

Step: TypeAlias = Callable[[], torch.Tensor]
Capture: TypeAlias = Callable[[Step], Step]  # returns what replays the step

_CAPACITY_STEP = 256  # positions; capacities are multiples: two of them hold a clip of 15 s with its answer
_MAX_PADDING = 4  # more than one of so many rows of a shape must be active
_KEPT_BYTES = 1 << 30  # of keys and values that are kept for the next session, whatever it needs


@dataclass
class _StaticBatch:
    """Static tensors of one batch shape, which `step` reads and writes whole.

    `kv`: (layers, 2, rows, KV heads, capacity, head size). `lengths` in use, `tokens`, `active` (1 or 0): (rows,).
    `step` returns logits (rows, vocabulary). Inactive rows keep writing to their first position.
    """

    kv: torch.Tensor
    lengths: torch.Tensor
    tokens: torch.Tensor
    active: torch.Tensor
    step: Step

    @property
    def rows(self) -> int:
        return self.kv.shape[2]

    @property
    def capacity(self) -> int:
        return self.kv.shape[4]


class GraphedRows:
    """The cache of one session: for each of its rows, the static batch's row and an upper bound of its length."""

    def __init__(self) -> None:
        self.owner = object()  # names the memory's owner without a reference to its rows
        self._batch: _StaticBatch | None = None
        self.indices: list[int] = []
        self.max_lengths: list[int] = []

    @property
    def batch(self) -> _StaticBatch:
        assert self._batch is not None
        return self._batch

    @property
    def index(self) -> torch.Tensor:
        return torch.tensor(self.indices, device=self.batch.kv.device)

    def detach(self) -> None:
        """Drop the rows and the reference to their memory, so that it can be freed."""
        self._batch, self.indices, self.max_lengths = None, [], []

    def attach(self, batch: _StaticBatch) -> None:
        """Use this batch from now on, at first without rows."""
        batch.active.zero_()
        batch.lengths.zero_()
        self._batch = batch

    def fits(self, rows: int = 0, longest: int = 0) -> bool:
        """Whether the batch has room for so many rows more and a step after them, and is not much too large."""
        used = len(self.indices) + rows
        has_room = used <= self.batch.rows and max([longest, *self.max_lengths]) < self.batch.capacity
        return has_room and used * _MAX_PADDING > self.batch.rows

    def append_rows(self, cache: KVCache) -> None:
        """Copy these rows to inactive ones.

        Their other positions are zeroed: attention multiplies them by a weight of 0, and 0 × NaN is NaN.
        """
        inactive = [index for index in range(self.batch.rows) if index not in self.indices][: cache.rows]
        index = torch.tensor(inactive, device=self.batch.kv.device)
        self.batch.kv[:, :, index] = 0
        self.batch.kv[:, :, index, :, : cache.longest] = cache.kv[..., : cache.longest, :]
        self.batch.lengths[index] = cache.lengths
        self.batch.active[index] = 1
        self.indices += inactive
        self.max_lengths += cache.max_lengths

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        self.indices = [self.indices[row] for row in rows]
        self.max_lengths = [self.max_lengths[row] for row in rows]
        active = torch.zeros_like(self.batch.active)
        active[self.index] = 1
        self.batch.active.copy_(active)
        self.batch.lengths.mul_(active)

    def to_cache(self) -> KVCache:
        """A copy of the rows, in memory of their own."""
        index = self.index
        layers, _, _, kv_heads, _, head_size = self.batch.kv.shape
        cache = KVCache(layers, kv_heads, head_size, self.batch.kv)
        reserved = cache.reserve_rows(len(index), max(self.max_lengths))
        for target, source in zip(reserved, self.batch.kv, strict=True):
            target.copy_(source[:, index, :, : reserved.shape[4]])
        cache.append_rows(self.batch.lengths[index], self.max_lengths)
        return cache


def _shape_for(rows: int, positions: int) -> tuple[int, int]:
    """Rows and capacity of the batch shape for so many rows, the longest of so many positions, and one step more."""
    return 1 << (rows - 1).bit_length(), (positions // _CAPACITY_STEP + 1) * _CAPACITY_STEP


class GraphedDecoder:
    """A decoder whose decode steps are CUDA graphs. One session at a time: a new one takes the last one's memory.

    `rows`, `positions`: of the largest usual batch. From the first session on there is memory for it, if that is no
    more than half of what is free, until a session needs more. New memory makes all captured graphs useless.
    """

    def __init__(self, decoder: Decoder, capture: Capture, rows: int = 1, positions: int = 0) -> None:
        self.capture = capture
        self._decoder = decoder
        self._usual_shape = _shape_for(rows, positions)
        self._block = torch.empty(0)  # flat; the keys and values of every batch are views of it
        self._batches: dict[tuple[int, int], _StaticBatch] = {}
        self._owner: object = None

    def prefill(
        self, embedded: torch.Tensor, lengths: torch.Tensor, cache: GraphedRows | None = None
    ) -> tuple[torch.Tensor, GraphedRows]:
        """As Decoder.prefill, by that decoder and without a graph: prompts are long enough to keep a GPU busy."""
        logits, new = self._decoder.prefill(embedded, lengths)
        return logits, self.join(cache, new)

    def join(self, rows: GraphedRows | None, new: KVCache) -> GraphedRows:
        """Append `new` to `rows`. If that fails, `rows` are as they were, or the next step fails as well."""
        if rows is None:
            rows = GraphedRows()
            self._move(rows, new)
            return rows
        self._check_owner(rows)
        if rows.fits(new.rows, new.longest):
            rows.append_rows(new)
            return rows
        old = rows.to_cache()
        try:
            self._move(rows, old, new)
            return rows
        except Exception as error:  # noqa: BLE001 - foreign code, and raised again below
            failure = untraced(error)  # its traceback would hold the memory that is needed now
        self._move(rows, old)
        raise failure

    def decode_step(self, tokens: torch.Tensor, cache: GraphedRows) -> torch.Tensor:
        """As Decoder.decode_step."""
        self._check_owner(cache)
        if len(tokens) != len(cache.indices):
            raise ValueError("a decode step takes one token for each row")
        if not cache.fits():
            self._move(cache, cache.to_cache())
        index = cache.index
        cache.batch.tokens[index] = tokens
        cache.max_lengths = [length + 1 for length in cache.max_lengths]
        return cache.batch.step()[index]  # a copy: the next step overwrites its output

    def release(self) -> None:
        """Drop the graphs, and the memory unless a session still uses it."""
        self._batches.clear()  # the graphs know the block's address
        self._block = torch.empty(0)

    def _check_owner(self, rows: GraphedRows) -> None:
        if self._owner is not rows.owner:
            raise RuntimeError("the session's memory was given to another one, or lost")

    def _move(self, rows: GraphedRows, *caches: KVCache) -> None:
        """Make `rows` the memory's owner, in the shape that these caches need, and copy the caches there."""
        self._owner = None  # a capture runs the step, which writes to the block
        rows.detach()
        count, longest = sum(cache.rows for cache in caches), max(cache.longest for cache in caches)
        rows.attach(self._static_batch(caches[0], *_shape_for(count, longest)))
        for cache in caches:
            rows.append_rows(cache)
        self._owner = rows.owner

    def _static_batch(self, like: KVCache, rows: int, capacity: int) -> _StaticBatch:
        layers, two, _, kv_heads, _, head_size = like.kv.shape
        shape = torch.Size((layers, two, rows, kv_heads, capacity, head_size))
        needed, position = shape.numel(), shape.numel() // (rows * capacity)
        usual = self._usual_shape[0] * self._usual_shape[1] * position
        most = max(_KEPT_BYTES // like.kv.itemsize, _MAX_PADDING * needed, usual)
        if not needed <= self._block.numel() <= most:
            self.release()
            has_memory = 2 * usual * like.kv.itemsize <= free_bytes(like.kv.device)
            size = max(needed, usual) if has_memory else needed
            self._block = torch.zeros(size, dtype=like.kv.dtype, device=like.kv.device)
        if (rows, capacity) not in self._batches:
            try:
                self._batches[rows, capacity] = self._capture_batch(self._block[:needed].view(shape))
            except Exception:
                self.release()  # if the memory ran out, the other graphs are what can be given back
                raise
        return self._batches[rows, capacity]

    def _capture_batch(self, kv: torch.Tensor) -> _StaticBatch:
        kv.zero_()
        tokens, lengths, active = torch.zeros(3, kv.shape[2], dtype=torch.long, device=kv.device)
        decoder = self._decoder  # not self, which holds the graph: a reference cycle would keep the weights
        cos_sin = decoder.rope_cos_sin(kv.shape[4])  # the graph keeps this tensor; the decoder may replace its own

        def step() -> torch.Tensor:
            logits = decoder.forward_step(tokens, kv, lengths, cos_sin)
            lengths.add_(active)
            return logits

        return _StaticBatch(kv, lengths, tokens, active, self.capture(step))
