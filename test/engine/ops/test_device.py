from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from backend.engine.ops import device
from backend.errors import DeviceUnavailable, InvalidOption
from backend.options import LoadOptions
from backend.serving.protocols import Batching


def test_the_choice_is_explained() -> None:
    placement = device.choose(LoadOptions(model="m"))
    assert str(placement.device) in str(placement)
    assert placement.reason


def test_the_operators_dtype_is_obeyed() -> None:
    assert device.choose(LoadOptions(model="m", dtype="float16")).dtype is torch.float16
    assert device.choose(LoadOptions(model="m", dtype="float32")).dtype is torch.float32


def test_eager_attention_is_sdpa() -> None:
    assert device.choose(LoadOptions(model="m", attention="sdpa")).attention == "sdpa"
    assert device.choose(LoadOptions(model="m", attention="eager")).attention == "sdpa"


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_a_device_or_attention_that_is_missing_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="CUDA"):
        device.choose(LoadOptions(model="m", cuda=True))
    with pytest.raises(InvalidOption, match="flash_attention_2"):
        device.choose(LoadOptions(model="m", attention="flash_attention_2"))


@pytest.mark.parametrize(
    ("gib", "rows", "prefill_s"),
    [(5.8, 8, 240), (7.6, 8, 240), (11.75, 32, 1920), (15.6, 32, 1920), (22.0, 64, 1920), (140.0, 64, 1920)],
)
def test_a_gpus_memory_decides_how_many_rows_run_together(monkeypatch, gib: float, rows: int, prefill_s: float) -> None:
    """The sizes that cards of 6, 8, 12, 16, 24 and 141 GB report."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=int(gib * 2**30)))
    assert device.batching(torch.device("cuda", 0)) == Batching(rows, prefill_s, in_groups=True)


def test_a_cpu_has_eight_rows_that_join_one_by_one() -> None:
    assert (device.batching(torch.device("cpu")).rows, device.batching(torch.device("cpu")).in_groups) == (8, False)


def test_the_number_of_threads_is_set_for_the_calling_thread_only() -> None:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as model_thread:

        def used(count: int | None) -> int:
            model_thread.submit(device.use_threads, count).result()
            return model_thread.submit(torch.get_num_threads).result()

        assert used(before + 1) == before + 1
        assert torch.get_num_threads() == before
        assert used(None) == before  # another model, without the option


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_is_chosen_where_there_is_one() -> None:
    placement = device.choose(LoadOptions(model="m", cuda=True))
    assert placement.device.type == "cuda"
    with pytest.raises(DeviceUnavailable):
        device.choose(LoadOptions(model="m", main_gpu=64))


def test_memory_that_the_device_cannot_give_back_now_is_logged_and_no_error(monkeypatch, caplog) -> None:
    def refuse() -> None:
        assert device.CAPTURE_LOCK.locked()
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    device.reclaim()
    assert "cannot be given back" in caplog.text
    assert not device.CAPTURE_LOCK.locked()
