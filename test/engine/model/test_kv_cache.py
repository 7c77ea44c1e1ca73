"""The KV cache against a model of it in which every row is a list of its own."""

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


def append(cache: KVCache, lengths: list[int], numbers: torch.Tensor) -> None:
    """Append rows of such lengths, every position of which holds the row's number, padding included."""
    cache.reserve_rows(len(lengths), max(lengths))[:] = numbers[None, None, :, None, None, None]
    cache.append_rows(lengths)


def step(cache: KVCache, numbers: torch.Tensor) -> None:
    cache.grow()[:, :, torch.arange(cache.rows), :, cache.lengths] = numbers[:, None, None, None, None]
    cache.advance()


@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize("waste", [1, 8])
def test_rows_keep_their_values_while_others_are_appended_removed_lengthened_and_shortened(
    monkeypatch, spare: int, waste: int
) -> None:
    for name, value in {
        "_CAPACITY_STEP": 4,
        "_SPARE_ROWS": 1 + spare,
        "_SPARE_POSITIONS": spare,
        "_MAX_WASTE": waste,
    }.items():
        monkeypatch.setattr(under_test, name, value)
    chance = random.Random(spare + waste)
    cache = KVCache(2, 3, 4, LIKE)
    rows: list[tuple[list[float], int]] = []  # the values of each row's positions, and its length
    for number in range(1, 400):
        if len(rows) < 12 and (not rows or chance.random() < 0.2):
            lengths = [chance.randint(1, 9) for _ in range(chance.randint(1, 3))]
            numbers = torch.full((len(lengths),), float(number) if number % 5 else torch.nan)
            append(cache, lengths, numbers)
            rows += [([float(one)] * max(lengths), length) for one, length in zip(numbers, lengths, strict=True)]
        elif chance.random() < 0.2:
            kept = chance.sample(range(len(rows)), chance.randint(1, len(rows)))
            cache.select_rows(kept)
            rows = [rows[row] for row in kept]
        elif chance.random() < 0.1:
            shortened = [chance.randint(1, length) for _, length in rows[chance.randrange(len(rows)) :]]
            cache.shorten(shortened)
            for row, new in enumerate(shortened, start=len(rows) - len(shortened)):
                values, length = rows[row]
                values[new:length] = [0.0] * (length - new)
                rows[row] = values, new
        else:
            step(cache, torch.full((len(rows),), float(number)))
            for row, (values, length) in enumerate(rows):
                values += [0.0] * (length + 1 - len(values))
                values[length] = float(number)
                rows[row] = values, length + 1
        rows = [(values[: cache.kv.shape[4]], length) for values, length in rows]  # padding is not kept
        assert cache.lengths.tolist() == [length for _, length in rows]
        assert cache.host_lengths == cache.lengths.tolist()
        assert cache.longest <= cache.kv.shape[4] < cache.longest + 12  # three times _CAPACITY_STEP
        expected = torch.zeros(len(rows), cache.kv.shape[4])
        for row, (values, _) in enumerate(rows):
            expected[row, : len(values)] = torch.tensor(values)
        expected = expected[:, None, :, None].expand_as(cache.kv)
        assert torch.equal(cache.kv.nan_to_num(-1), expected.nan_to_num(-1))


def test_reserved_rows_that_are_never_appended_leave_nothing_behind() -> None:
    cache = KVCache(1, 1, 2, LIKE)
    append(cache, [3], torch.ones(1))
    cache.reserve_rows(2, 40)[:] = torch.nan
    assert (cache.rows, cache.longest, cache.lengths.tolist()) == (1, 3, [3])
    append(cache, [2, 2], torch.ones(2))
    for _ in range(70):
        step(cache, torch.ones(3))
    assert torch.isfinite(cache.kv).all()


def test_few_rows_do_not_keep_the_memory_of_many() -> None:
    cache = KVCache(1, 1, 2, LIKE)
    append(cache, [5] * 20, torch.arange(20.0))
    block = cache.kv.data_ptr()
    cache.select_rows([19, 3, 4])
    assert cache.kv.data_ptr() == block  # not worth a copy
    cache.select_rows([0, 1])
    assert cache.kv.data_ptr() != block
    assert cache.kv[0, 0, :, 0, :5, 0].tolist() == [[19.0] * 5, [3.0] * 5]


def test_a_kernel_without_huge_pages_may_refuse_madvise(monkeypatch) -> None:
    class Mapping(mmap.mmap):
        def madvise(self, *_: int) -> None:
            advised.append(len(self))
            raise OSError(errno.EINVAL, "Invalid argument")

    advised: list[int] = []
    monkeypatch.setattr(mmap, "mmap", Mapping)
    cache = KVCache(28, 8, 128, LIKE)
    append(cache, [2], torch.ones(1))
    assert advised == [cache._block.nbytes]
    assert cache.kv[..., :2, :].min() == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_positions_that_were_not_written_to_take_no_memory() -> None:
    def resident() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10

    before = resident()
    cache = KVCache(28, 8, 128, LIKE)  # as the 0.6B in float32
    append(cache, [64], torch.ones(1))
    assert cache._block.nbytes > 30 * cache.kv.nbytes
    assert resident() - before < 1.5 * cache.kv.nbytes
