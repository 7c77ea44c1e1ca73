"""Keys and values of the rows that are decoded together, in one block of memory.

Rows stand close together, each with as many slots as the longest needs: what matrix products read without a copy. The
block is larger than that, and on a CPU that costs nothing before it is written to, so rows that come, leave and grow
stay where they are. Copying all of them to fresh memory each time took a fifth of the steps' time (20 clips of 6 to
15 s whose answers differ in length, eight at once, the 0.6B's size, two cores).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch

from backend.engine.ops.malloc import ALWAYS_MMAPPED_BYTES

_STEP = 32  # slots that all rows grow by, at once
_AHEAD_ROWS, _AHEAD_SLOTS = 8, 256  # on a CPU a block is for a multiple of so many rows, and so many slots more
_WASTE = 8  # times what the rows take may have been written to; then they move to a block of their own size


class KVCache:
    """`lengths` (rows,): slots in use. `bounds`: what each of them is at most, known without asking the device, which
    would have to finish.

    Slots that a row has not written are zero: nothing may be multiplied with what another has left there, not even 0.
    """

    def __init__(self, layers: int, heads: int, size: int, like: torch.Tensor) -> None:
        """Without a row; on the device of `like`, in its dtype. `heads` that keys have, `size` of a head."""
        self.lengths = torch.zeros(0, dtype=torch.long, device=like.device)
        self.bounds: list[int] = []
        self._shape = layers, heads, size
        self._block = like.new_empty(layers, 2, 0)
        self._slots = 0
        self._written = 0  # slots of all rows, the most there ever were in this block

    @property
    def rows(self) -> int:
        return len(self.bounds)

    @property
    def longest(self) -> int:
        return max(self.bounds, default=0)

    @property
    def tensor(self) -> torch.Tensor:
        """(layers, 2, rows, key heads, slots, head size), keys first."""
        return self._laid_out(self._block, self.rows, self._slots)

    def guests(self, rows: int, longest: int) -> torch.Tensor:
        """Where so many rows can write so many slots before they `enter`."""
        self._make_room(self.rows + rows, longest)
        guests = self._laid_out(self._block, self.rows + rows, self._slots)[:, :, self.rows :]
        guests[..., longest:, :] = 0
        return guests[..., :longest, :]

    def enter(self, lengths: torch.Tensor, bounds: Sequence[int]) -> None:
        """The guests are rows from now on."""
        self.lengths = torch.cat([self.lengths, lengths])
        self.bounds = [*self.bounds, *bounds]

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows, in this order."""
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if moved:
            places, sources = torch.tensor(moved, device=self.lengths.device).T
            self.tensor[:, :, places] = self.tensor[:, :, sources]
        self.lengths = self.lengths[torch.tensor(rows, device=self.lengths.device)]
        self.bounds = [self.bounds[row] for row in rows]
        needed = _rounded(self.longest, _STEP)
        if self._written > _WASTE * self.rows * needed:
            self._move(self.rows, needed)
        elif self._slots >= needed + 2 * _STEP:
            self._lay_out(self._block, needed)

    def grow(self) -> torch.Tensor:
        """`tensor`, with room for one more token in each row."""
        self._make_room(self.rows, self.longest + 1)
        return self.tensor

    def advance(self) -> None:
        """A token has been written in every row."""
        self.lengths = self.lengths + 1
        self.bounds = [bound + 1 for bound in self.bounds]

    def _make_room(self, rows: int, slots: int) -> None:
        slots = max(_rounded(slots, _STEP), self._slots)
        if self._laid_out_size(rows, slots) > self._block.shape[2]:
            self._move(rows, slots)
        elif slots > self._slots:
            self._lay_out(self._block, slots)
        self._written = max(self._written, rows * slots)

    def _move(self, rows: int, slots: int) -> None:
        """To a block with room for `rows` of `slots`."""
        self._lay_out(self._new_block(rows, slots), slots)
        self._written = self.rows * slots

    def _lay_out(self, block: torch.Tensor, slots: int) -> None:
        """The rows in `block`, which may be the one in which they are, with `slots` each."""
        kept = min(self._slots, slots)
        layers = zip(self.tensor, self._laid_out(block, self.rows, slots), strict=True)
        for held, place in layers if self.rows else ():
            place[..., :kept, :] = held[..., :kept, :].clone()  # which may lie in the way
            place[..., kept:, :] = 0
        self._block, self._slots = block, slots

    def _laid_out(self, block: torch.Tensor, rows: int, slots: int) -> torch.Tensor:
        layers, heads, size = self._shape
        return block[..., : self._laid_out_size(rows, slots)].view(layers, 2, rows, heads, slots, size)

    def _laid_out_size(self, rows: int, slots: int) -> int:
        _, heads, size = self._shape
        return rows * heads * slots * size

    def _new_block(self, rows: int, slots: int) -> torch.Tensor:
        """(layers, 2, numbers), not initialised. On a CPU memory is taken by the page, from when one is written to."""
        like = self._block
        if like.device.type != "cpu":
            return like.new_empty(*like.shape[:2], self._laid_out_size(rows, slots))
        size = self._laid_out_size(_rounded(rows, _AHEAD_ROWS), slots + _AHEAD_SLOTS)
        bytes_ = like.shape[0] * 2 * size * like.itemsize
        if bytes_ < ALWAYS_MMAPPED_BYTES:
            return like.new_empty(*like.shape[:2], size)
        memory = mmap.mmap(-1, bytes_, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # a row needs less than a huge page; not all kernels have any
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        return torch.frombuffer(memory, dtype=like.dtype).view(*like.shape[:2], size)


def _rounded(count: int, step: int) -> int:
    """To the next multiple."""
    return -(-count // step) * step
