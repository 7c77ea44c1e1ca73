"""Decode steps as CUDA graphs: captured at the end of a load for a few batch shapes, replayed for every token.

On a GPU a decode step is a thousand small kernels, and Python takes longer to launch them than the GPU to run them. A
CUDA graph launches all of them at once, but it is bound to addresses and shapes. So a session's keys and values are in
one static block of memory, and a step runs the smallest captured shape that holds it: some places more than there are
rows, some positions more than the longest row has. Places without a row are computed all the same; that costs nothing
while reading the weights takes most of a step's time.

Nothing is captured inside a request. Rows that outgrow the block go on in memory of their own, by eager steps.
graph_capture.py captures the steps and checks them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from backend.checkpoint.fit import row_positions
from backend.engine.model.decoder import Decoder
from backend.engine.model.kv_cache import KVCache
from backend.thresholds import MIN_TOKEN_BUDGET, TOKEN_BUDGET_PER_S

Step: TypeAlias = Callable[[], torch.Tensor]
Capture: TypeAlias = Callable[[Step], Step]  # returns what replays the step

_CONTEXT_POSITIONS = 256  # of a prompt with many hot words


@dataclass(frozen=True)
class GraphPlan:
    """Which shapes are captured: `rows` at most, in powers of two, each with every one of the `capacities`."""

    rows: int
    capacities: tuple[int, ...]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(rows, capacity), the largest first: the smaller ones reuse the memory that capturing it took."""
        rows = sorted({self.rows, *(1 << power for power in range(self.rows.bit_length()))}, reverse=True)
        return [(count, capacity) for count in rows for capacity in reversed(self.capacities)]

    def shape_for(self, rows: int, positions: int) -> tuple[int, int]:
        """The smallest shape for so many rows, the longest of so many positions. There is one."""
        capacity = next(capacity for capacity in self.capacities if positions <= capacity)
        return min(1 << (rows - 1).bit_length(), self.rows), capacity


def plan_graphs(rows: int, chunk_s: float, max_positions: float) -> GraphPlan | None:
    """The plan for batches of `rows` passages of `chunk_s` seconds, in a block of at most `max_positions`.

    There are two capacities: for a usual answer, and for one that exhausts its token budget, behind a longer prompt.
    Without memory for the second there is one, and without memory for that the number of rows is halved until there is.
    None: not even for one row.
    """
    usual = row_positions(chunk_s)
    longest = row_positions(chunk_s, chunk_s * TOKEN_BUDGET_PER_S + MIN_TOKEN_BUDGET + _CONTEXT_POSITIONS)
    if rows * longest <= max_positions:
        return GraphPlan(rows, (usual, longest))
    while rows and rows * usual > max_positions:
        rows //= 2
    return GraphPlan(rows, (usual,)) if rows else None


class StaticMemory:
    """What graphs read and write, at addresses that stay.

    `kv`: (layers, 2, rows, KV heads, capacity, head size) of the plan's largest shape; `lengths` in use, `tokens`:
    (rows,). Places without a row have the length 0, which is inside every capacity.
    """

    def __init__(self, empty: torch.Tensor, plan: GraphPlan) -> None:
        """`empty`: a cache's `kv` without rows."""
        layers, two, _, kv_heads, _, head_size = empty.shape
        self.plan = plan
        self.kv = empty.new_zeros(layers, two, plan.rows, kv_heads, plan.capacities[-1], head_size)
        self.lengths, self.tokens = torch.zeros(2, plan.rows, dtype=torch.long, device=empty.device)

    def step(self, decoder: Decoder, rows: int, capacity: int) -> Step:
        """The decode step of a shape, as a function of this memory: logits (rows, vocabulary)."""
        cos_sin = decoder.rope_cos_sin(capacity)  # held by the step; the decoder may replace its own
        kv, lengths, tokens = self.kv[:, :, :rows, :, :capacity], self.lengths[:rows], self.tokens[:rows]
        return lambda: decoder.forward_step(tokens, kv, lengths, cos_sin)


class StaticCache(KVCache):
    """Rows in static memory. When they outgrow it, they move to memory of their own, for good."""

    def __init__(self, memory: StaticMemory) -> None:
        layers, _, _, kv_heads, capacity, head_size = memory.kv.shape
        super().__init__(layers, kv_heads, head_size, memory.kv)
        self.memory: StaticMemory | None = memory
        self._block, self._capacity = memory.kv.flatten(2), capacity
        self._set_lengths(self.lengths)

    def _set_lengths(self, lengths: torch.Tensor) -> None:
        self.lengths = lengths
        if self.memory is not None:
            self.lengths = self.memory.lengths[: len(lengths)].copy_(lengths)
            self.memory.lengths[len(lengths) :] = 0

    def _make_room(self, rows: int, positions: int) -> None:
        if self.memory is not None:
            if rows <= self.memory.plan.rows and positions <= self.memory.plan.capacities[-1]:
                return
            self._reallocate(rows, max(positions, self.longest))
            self.memory, self.lengths = None, self.lengths.clone()
        super()._make_room(rows, positions)

    def _shrink(self) -> None:
        if self.memory is None:
            super()._shrink()


class GraphedDecoder:
    """A decoder whose decode steps are replayed graphs, where the session's rows are in the static memory.

    One session at a time is there. `graphs`: a replay for every shape of the memory's plan.
    """

    def __init__(self, decoder: Decoder, memory: StaticMemory, graphs: Mapping[tuple[int, int], Step]) -> None:
        self._decoder = decoder
        self._memory = memory
        self._graphs = graphs
        self._in_memory: Callable[[], StaticCache | None] = lambda: None

    def prefill(
        self,
        embedded: torch.Tensor,
        lengths: Sequence[int],
        cache: KVCache | None = None,
        outputs: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, KVCache]:
        """As Decoder.prefill, and without a graph: prompts are long enough to keep a GPU busy."""
        last = self._in_memory()
        if cache is None and (last is None or last.memory is None):
            cache = StaticCache(self._memory)
            self._in_memory = weakref.ref(cache)
        return self._decoder.prefill(embedded, lengths, cache, outputs)

    def decode_step(self, tokens: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """As Decoder.decode_step."""
        cache.grow()
        if not isinstance(cache, StaticCache) or cache.memory is None:
            return self._decoder.decode_step(tokens, cache)
        if len(tokens) != cache.rows:
            raise ValueError("a decode step takes one token for each row")
        self._memory.tokens[: cache.rows] = tokens
        logits = self._graphs[self._memory.plan.shape_for(cache.rows, cache.longest + 1)]()
        cache.advance()
        return logits[: len(tokens)].clone()  # the next step overwrites its output
