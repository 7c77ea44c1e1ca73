"""Keys and values in one block, against rows that are kept one by one."""

from __future__ import annotations

import errno
import mmap
import random
import re
from pathlib import Path

import pytest
import torch

from backend.engine.model import kv_cache as under_test
from backend.engine.model.kv_cache import KVCache

LIKE = torch.empty(0)


def enter(cache: KVCache, lengths: list[int], numbers: torch.Tensor) -> None:
    """Rows of such lengths, in whose slots `numbers` are written, padding and all."""
    cache.guests(len(lengths), max(lengths))[:] = numbers[None, None, :, None, None, None]
    cache.enter(torch.tensor(lengths), [max(lengths)] * len(lengths))


def step(cache: KVCache, numbers: torch.Tensor) -> None:
    cache.grow()[:, :, torch.arange(cache.rows), :, cache.lengths] = numbers[:, None, None, None, None]
    cache.advance()


@pytest.mark.parametrize("ahead", [0, 5])
@pytest.mark.parametrize("waste", [1, 8])
def test_rows_that_come_go_and_grow_keep_what_is_theirs(monkeypatch, ahead: int, waste: int) -> None:
    for name, value in {"_STEP": 4, "_AHEAD_ROWS": 1 + ahead, "_AHEAD_SLOTS": ahead, "_WASTE": waste}.items():
        monkeypatch.setattr(under_test, name, value)
    chance = random.Random(ahead + waste)
    cache = KVCache(2, 3, 4, LIKE)
    rows: list[tuple[list[float], int]] = []  # what is in each row's slots, and how many are in use
    for turn in range(1, 400):
        if len(rows) < 12 and (not rows or chance.random() < 0.2):
            lengths = [chance.randint(1, 9) for _ in range(chance.randint(1, 3))]
            numbers = torch.full((len(lengths),), float(turn) if turn % 5 else torch.nan)
            enter(cache, lengths, numbers)
            rows += [([float(number)] * max(lengths), length) for number, length in zip(numbers, lengths, strict=True)]
        elif chance.random() < 0.2:
            kept = chance.sample(range(len(rows)), chance.randint(1, len(rows)))
            cache.keep(kept)
            rows = [rows[row] for row in kept]
        else:
            step(cache, torch.full((len(rows),), float(turn)))
            for number, (held, length) in enumerate(rows):
                held += [0.0] * (length + 1 - len(held))
                held[length] = float(turn)
                rows[number] = held, length + 1
        assert cache.lengths.tolist() == [length for _, length in rows]
        assert all(bound >= length for bound, (_, length) in zip(cache.bounds, rows, strict=True))
        assert cache.longest <= cache.tensor.shape[4] < cache.longest + 12  # three times _STEP
        expected = torch.zeros(len(rows), cache.tensor.shape[4])
        for number, (held, _) in enumerate(rows):
            expected[number, : len(held)] = torch.tensor(held)
        expected = expected[:, None, :, None].expand_as(cache.tensor)
        assert torch.equal(cache.tensor.nan_to_num(-1), expected.nan_to_num(-1))


def test_guests_that_never_enter_leave_nothing_behind() -> None:
    cache = KVCache(1, 1, 2, LIKE)
    enter(cache, [3], torch.ones(1))
    cache.guests(2, 40)[:] = torch.nan
    assert (cache.rows, cache.longest, cache.lengths.tolist()) == (1, 3, [3])
    enter(cache, [2, 2], torch.ones(2))
    for _ in range(70):
        step(cache, torch.ones(3))
    assert torch.isfinite(cache.tensor).all()


def test_few_rows_do_not_keep_the_memory_of_many() -> None:
    cache = KVCache(1, 1, 2, LIKE)
    enter(cache, [5] * 20, torch.arange(20.0))
    block = cache.tensor.data_ptr()
    cache.keep([19, 3, 4])
    assert cache.tensor.data_ptr() == block  # not worth a copy
    cache.keep([0, 1])
    assert cache.tensor.data_ptr() != block
    assert cache.tensor[0, 0, :, 0, :5, 0].tolist() == [[19.0] * 5, [3.0] * 5]


def test_a_kernel_without_huge_pages_refuses_to_be_told_so(monkeypatch) -> None:
    class Mapping(mmap.mmap):
        def madvise(self, *_: int) -> None:
            asked.append(len(self))
            raise OSError(errno.EINVAL, "Invalid argument")

    asked: list[int] = []
    monkeypatch.setattr(under_test.mmap, "mmap", Mapping)
    cache = KVCache(28, 8, 128, LIKE)
    enter(cache, [2], torch.ones(1))
    assert asked == [cache._block.nbytes]
    assert cache.tensor[..., :2, :].min() == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_what_was_not_written_to_takes_no_memory() -> None:
    def resident() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10

    before = resident()
    cache = KVCache(28, 8, 128, LIKE)  # as the 0.6B in float32
    enter(cache, [64], torch.ones(1))
    assert cache._block.nbytes > 30 * cache.tensor.nbytes
    assert resident() - before < 1.5 * cache.tensor.nbytes
