"""The KV cache: keys and values of all rows that are decoded together, in one block of memory.

All rows have the same capacity, in positions, and lie close together: matrix products read them without a copy. The
block is larger than the rows need. On a CPU, memory costs nothing before it is written to, so rows are appended,
removed and lengthened without moving the others. Copying all of them to fresh memory each time took a fifth of the
steps' time (20 clips of 6 to 15 s whose answers differ in length, eight at once, the 0.6B's size, two cores).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch

from backend.engine.ops.malloc import ALWAYS_MMAPPED_BYTES

_CAPACITY_STEP = 32  # positions; the capacity is a multiple, so the layout changes once in so many steps
_SPARE_ROWS, _SPARE_POSITIONS = 8, 256  # a CPU's block has room for a multiple of 8 rows, 256 positions longer
_MAX_WASTE = 8  # rows move to a smaller block once the written part of theirs exceeds 8 times what they need


class KVCache:
    """`lengths`: (rows,), positions in use. `host_lengths`: the same numbers in the host's memory.

    Asking the device for `lengths` would wait for all of its queued work.
    A position that its row has not written is zero: attention multiplies it by a weight of 0, and 0 × NaN is NaN.
    """

    def __init__(self, layers: int, kv_heads: int, head_size: int, like: torch.Tensor) -> None:
        """Without rows, on the device and in the dtype of `like`."""
        self.lengths = torch.zeros(0, dtype=torch.long, device=like.device)
        self.host_lengths: list[int] = []
        self._shape = layers, kv_heads, head_size
        self._block = like.new_empty(layers, 2, 0)
        self._capacity = 0
        self._most_written = 0  # the most rows × capacity that this block ever held

    @property
    def rows(self) -> int:
        return len(self.host_lengths)

    @property
    def longest(self) -> int:
        return max(self.host_lengths, default=0)

    @property
    def position_bytes(self) -> int:
        """Bytes of one position of one row: its keys and values in all layers."""
        layers, kv_heads, head_size = self._shape
        return layers * 2 * kv_heads * head_size * self._block.itemsize

    @property
    def kv(self) -> torch.Tensor:
        """(layers, 2, rows, KV heads, capacity, head size), keys first."""
        return self._view(self._block, self.rows, self._capacity)

    def reserve_rows(self, rows: int, longest: int) -> torch.Tensor:
        """Memory for new rows of `longest` positions, to write to before `append_rows`: as `kv`, of these rows."""
        self._make_room(self.rows + rows, longest)
        reserved = self._view(self._block, self.rows + rows, self._capacity)[:, :, self.rows :]
        reserved[..., longest:, :] = 0
        return reserved[..., :longest, :]

    def append_rows(self, lengths: Sequence[int]) -> None:
        """Make the rows that were reserved last part of the cache, with so many positions in use."""
        self._set_lengths(torch.cat([self.lengths, torch.tensor(lengths, device=self.lengths.device)]))
        self.host_lengths = [*self.host_lengths, *lengths]

    def select_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            targets, sources = torch.tensor(moved, device=self.lengths.device).T
            self.kv[:, :, targets] = self.kv[:, :, sources]
        self._set_lengths(self.lengths[torch.tensor(rows, device=self.lengths.device)])
        self.host_lengths = [self.host_lengths[row] for row in rows]
        self._shrink()

    def shorten(self, lengths: Sequence[int]) -> None:
        """Drop the last positions of the last rows: `lengths` has what each of these keeps."""
        first = self.rows - len(lengths)
        for row, length in enumerate(lengths, start=first):
            if length < self.host_lengths[row]:
                self.kv[:, :, row, :, length : self.host_lengths[row]] = 0
        self.lengths[first:] = torch.tensor(lengths, device=self.lengths.device)
        self.host_lengths[first:] = lengths
        self._shrink()

    def grow(self) -> torch.Tensor:
        """`kv`, with room for one more position in each row."""
        self._make_room(self.rows, self.longest + 1)
        return self.kv

    def advance(self) -> None:
        """Count the position that a decode step has written in every row."""
        self.lengths.add_(1)
        self.host_lengths = [length + 1 for length in self.host_lengths]

    def _set_lengths(self, lengths: torch.Tensor) -> None:
        self.lengths = lengths

    def _shrink(self) -> None:
        """Leave a block, or a layout, that is much larger than the rows need."""
        needed = _round_up(self.longest, _CAPACITY_STEP)
        if self._most_written > _MAX_WASTE * self.rows * needed:
            self._reallocate(self.rows, needed)
        elif self._capacity >= needed + 2 * _CAPACITY_STEP:
            self._lay_out(self._block, needed)

    def _make_room(self, rows: int, positions: int) -> None:
        capacity = max(_round_up(positions, _CAPACITY_STEP), self._capacity)
        if self._view_size(rows, capacity) > self._block.shape[2]:
            self._reallocate(rows, capacity)
        elif capacity > self._capacity:
            self._lay_out(self._block, capacity)
        self._most_written = max(self._most_written, rows * capacity)

    def _reallocate(self, rows: int, capacity: int) -> None:
        """Move the rows to a new block with room for `rows` of `capacity`."""
        self._lay_out(self._allocate(rows, capacity), capacity)
        self._most_written = self.rows * capacity

    def _lay_out(self, block: torch.Tensor, capacity: int) -> None:
        """Copy the rows to `block`, which may be the one that they are in, with `capacity` positions each."""
        kept = min(self._capacity, capacity)
        layers = zip(self.kv, self._view(block, self.rows, capacity), strict=True)
        for source, target in layers if self.rows else ():
            target[..., :kept, :] = source[..., :kept, :].clone()  # source and target may overlap
            target[..., kept:, :] = 0
        self._block, self._capacity = block, capacity

    def _view(self, block: torch.Tensor, rows: int, capacity: int) -> torch.Tensor:
        layers, kv_heads, head_size = self._shape
        return block[..., : self._view_size(rows, capacity)].view(layers, 2, rows, kv_heads, capacity, head_size)

    def _view_size(self, rows: int, capacity: int) -> int:
        """Elements of one layer's keys, or values."""
        _, kv_heads, head_size = self._shape
        return rows * kv_heads * capacity * head_size

    def _allocate(self, rows: int, capacity: int) -> torch.Tensor:
        """A block (layers, 2, elements), not initialised. On a CPU a page takes memory when it is first written to."""
        like = self._block
        if like.device.type != "cpu":
            return like.new_empty(*like.shape[:2], self._view_size(rows, capacity))
        size = self._view_size(_round_up(rows, _SPARE_ROWS), capacity + _SPARE_POSITIONS)
        block_bytes = like.shape[0] * 2 * size * like.itemsize
        if block_bytes < ALWAYS_MMAPPED_BYTES:
            return like.new_empty(*like.shape[:2], size)
        memory = mmap.mmap(-1, block_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # not every kernel has huge pages; a row is smaller than one
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        return torch.frombuffer(memory, dtype=like.dtype).view(*like.shape[:2], size)


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
