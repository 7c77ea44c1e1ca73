from __future__ import annotations

import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from backend.engine.ops import device
from backend.errors import DeviceUnavailable, GpuNotAnswering, InvalidOption, NoKernelsForGpu
from backend.options.load_options import LoadOptions
from backend.options.option_values import Attention
from backend.serving.protocols import Batching

AUTO = LoadOptions(model="m")
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_DEVICE = "No CUDA GPUs are available"


@pytest.fixture
def build(monkeypatch, tmp_path: Path) -> Callable[..., None]:
    """`build(cuda="13.0", words=..., kind="cuda13")`: torch is a build for GPUs that finds none, installed so."""

    def pretend(cuda: str | None = None, hip: str | None = None, words: str = TOO_OLD, kind: str = "") -> None:
        def init() -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch, "__file__", str(tmp_path / "lib/python3.11/site-packages/torch/__init__.py"))
        if kind:
            (tmp_path / ".kind").write_text(f"{kind}\n")

    return pretend


@pytest.fixture
def gpus(monkeypatch) -> Callable[..., None]:
    """`gpus((7, 5))`: torch finds CUDA devices of these compute capabilities; `hip`, `arch`: on ROCm."""

    def pretend(*capabilities: tuple[int, int], hip: str | None = None, arch: str = "", built_for: str = "") -> None:
        monkeypatch.setattr(torch.version, "cuda", None if hip else "13.0")
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capabilities[where.index])
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(gcnArchName=arch))
        monkeypatch.setattr(torch.cuda, "get_arch_list", built_for.split)
        monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda enabled: None)

    return pretend


@pytest.fixture
def flash_attn(monkeypatch) -> Callable[..., None]:
    """`flash_attn(function)`: the package is installed, and has that; an exception is raised by its import."""

    def install(function: Any) -> None:
        package = ModuleType("flash_attn")

        def lookup(name: str) -> Any:
            if isinstance(function, Exception):
                raise function
            raise AttributeError(name)

        if callable(function):
            package.flash_attn_varlen_func = function  # type: ignore[attr-defined]
        package.__getattr__ = lookup  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, "flash_attn", package)

    return install


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
    with pytest.raises((DeviceUnavailable, GpuNotAnswering), match="CUDA"):
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


@pytest.mark.parametrize("options", [AUTO, LoadOptions(model="m", device="cuda"), LoadOptions(model="m", cuda=True)])
@pytest.mark.parametrize(("kind", "words"), [("cuda13", TOO_OLD), ("", TOO_OLD), ("", "Found no NVIDIA driver")])
def test_a_gpu_build_whose_gpu_does_not_answer_is_refused_with_the_drivers_words(build, options, kind, words) -> None:
    build(cuda="13.0", kind=kind, words=words)
    with pytest.raises(GpuNotAnswering) as caught:
        device.choose(options)
    said = str(caught.value)
    assert "CUDA 13.0" in said
    assert words[:60] in said
    assert "BUILD_TYPE=cublas" in said
    assert "device:cpu" in said


def test_so_is_a_rocm_build(build, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    build(hip="7.2", kind="rocm", words="No HIP GPUs are available")
    with pytest.raises(GpuNotAnswering, match=r"ROCm 7\.2.*No HIP GPUs.*BUILD_TYPE=hipblas"):
        device.choose(AUTO)


@pytest.mark.parametrize("words", ["devices are busy or unavailable", "Connection\nrefused", "x" * 9999, "a\x1b[2J\nb"])
def test_the_drivers_words_are_made_harmless(build, words: str) -> None:
    build(cuda="13.0", words=words)
    with pytest.raises(GpuNotAnswering) as caught:
        device.choose(AUTO)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 500
    assert not any(harmful in said.lower() for harmful in ("connection refused", "unavailable"))


def test_a_cpu_is_computed_on_where_that_is_what_somebody_wanted(build, monkeypatch) -> None:
    build(cuda="13.0")
    asked = device.choose(LoadOptions(model="m", device="cpu"))
    assert (asked.device.type, "as asked" in asked.reason) == ("cpu", True)
    build(cuda="13.0", words=NO_DEVICE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES hides" in device.choose(AUTO).reason
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(GpuNotAnswering, match=NO_DEVICE):
        device.choose(AUTO)
    build(cuda="13.0", kind="cpu")
    assert "installed for CPUs" in device.choose(AUTO).reason
    with pytest.raises(GpuNotAnswering, match="too old"):  # but a GPU that is named is not replaced
        device.choose(LoadOptions(model="m", device="cuda"))


def test_a_cpu_build_without_a_stamp_computes_on_the_cpu(build) -> None:
    build()
    assert device.choose(AUTO).device.type == "cpu"


def test_the_named_device_is_taken_or_refused_with_what_is_there(gpus, monkeypatch) -> None:
    gpus((8, 0), (8, 0))
    assert str(device.choose(AUTO).device) == "cuda:0"
    assert str(device.choose(LoadOptions(model="m", device="cuda", main_gpu=1)).device) == "cuda:1"
    assert str(device.choose(LoadOptions(model="m", device="cpu")).device) == "cpu"
    for missing in (LoadOptions(model="m", device="mps"), LoadOptions(model="m", main_gpu=2)):
        with pytest.raises(DeviceUnavailable, match="only cuda:0, cuda:1, cpu"):
            device.choose(missing)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    assert str(device.choose(LoadOptions(model="m", device="xpu")).device) == "xpu:0"
    with pytest.raises(DeviceUnavailable, match="MainGPU 1"):
        device.choose(LoadOptions(model="m", device="xpu", main_gpu=1))


@pytest.mark.parametrize("other", ["cpu", "mps", "xpu"])
def test_a_device_that_contradicts_the_field_cuda_is_refused(gpus, other) -> None:
    gpus((8, 0))
    with pytest.raises(InvalidOption, match=f"'device' is {other}, and the field cuda is true"):
        device.choose(LoadOptions(model="m", cuda=True, device=other))
    assert device.choose(LoadOptions(model="m", cuda=True, device="cuda")).device.type == "cuda"


def test_a_gpus_index_has_no_effect_on_a_cpu_and_the_placement_says_so() -> None:
    assert "MainGPU has no effect" in device.choose(LoadOptions(model="m", device="cpu", main_gpu=1)).reason


@pytest.mark.parametrize(
    ("built_for", "capability", "remedy"),
    [
        ("sm_75 sm_80 sm_90 sm_100 sm_120 compute_120", (7, 0), "CUDA=12"),
        ("sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90", (12, 0), "CUDA=13"),
        ("sm_75 sm_80 sm_90 sm_100 sm_120 compute_120", (8, 9), ""),
        ("sm_75 sm_80 sm_90 compute_90", (12, 1), ""),  # the driver compiles
        ("", (7, 0), ""),
    ],
)
def test_a_gpu_that_torch_was_not_compiled_for_is_refused(gpus, built_for, capability, remedy: str) -> None:
    gpus(capability, built_for=built_for)
    if not remedy:
        assert device.choose(AUTO).device.type == "cuda"
        return
    with pytest.raises(NoKernelsForGpu, match=f"{capability[0]}.{capability[1]}; .*{remedy}"):
        device.choose(AUTO)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), torch.float32), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_the_dtype_is_what_the_gpu_computes_well(gpus, capability, dtype: torch.dtype) -> None:
    gpus(capability)
    assert device.choose(AUTO).dtype is dtype


@pytest.mark.parametrize(("newer", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_apples_gpus_compute_bf16_from_macos_14_on(monkeypatch, newer: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: newer)
    placement = device.choose(AUTO)
    assert (placement.device.type, placement.dtype) == ("mps", dtype)


def attention(options: LoadOptions = AUTO) -> tuple[str, str]:
    placement = device.choose(options)
    return placement.attention, placement.reason


BY_NAME: Attention = "flash_attention_2"
FLASH = LoadOptions(model="m", attention=BY_NAME)


def test_flash_attention_is_used_by_name_and_never_else(gpus, flash_attn) -> None:
    flash_attn(lambda: None)
    gpus((8, 0))
    assert attention(FLASH)[0] == BY_NAME
    assert attention() == ("sdpa", "card 0; Ampere or later computes bf16; windows by torch")
    gpus((11, 0), hip="7.2", arch="gfx1100")
    assert attention(FLASH)[0] == BY_NAME


@pytest.mark.parametrize(
    "failure", [ImportError("undefined symbol"), OSError("libcudart.so.12"), RuntimeError("torch")]
)
def test_flash_attention_that_cannot_be_imported_is_refused_with_the_cause(
    gpus, flash_attn, caplog, failure: Exception
) -> None:
    gpus((8, 0))
    flash_attn(failure)
    with pytest.raises(InvalidOption, match=f"cannot be imported .{type(failure).__name__}"):
        attention(FLASH)
    assert str(failure) in caplog.text


def test_flash_attention_4_is_not_version_2(gpus, flash_attn) -> None:
    gpus((8, 0))
    flash_attn(None)  # a package of that name without the function
    with pytest.raises(InvalidOption, match="cannot be imported"):
        attention(FLASH)


def test_flash_attention_is_refused_where_it_has_no_kernels(gpus, flash_attn) -> None:
    flash_attn(lambda: None)
    gpus((7, 5))
    with pytest.raises(InvalidOption, match="Ampere"):
        attention(FLASH)
    gpus((8, 0))
    with pytest.raises(InvalidOption, match="16 bit"):
        attention(LoadOptions(model="m", attention=BY_NAME, dtype="float32"))


def test_flash_attention_that_is_not_installed_is_named(gpus, monkeypatch, caplog) -> None:
    gpus((8, 0))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(InvalidOption, match="flash-attn is not installed"):
        attention(FLASH)
    assert not caplog.text


def test_memory_is_given_back_to_every_backend(monkeypatch) -> None:
    emptied = []
    for name, module in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.mps)):
        where = torch.backends.mps if name == "mps" else module
        monkeypatch.setattr(where, "is_available", lambda: True)
        monkeypatch.setattr(module, "empty_cache", lambda name=name: emptied.append(name))
    device.reclaim()
    assert sorted(emptied) == ["cuda", "mps", "xpu"]


def test_free_memory_is_what_each_backend_says(monkeypatch) -> None:
    for module in (torch.cuda, torch.xpu):
        monkeypatch.setattr(module, "mem_get_info", lambda where: (700, 1000))
        monkeypatch.setattr(module, "memory_reserved", lambda where: 90)
        monkeypatch.setattr(module, "memory_allocated", lambda where: 40)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 500)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 100)
    assert [device.free_bytes(torch.device(where)) for where in ("cuda:0", "xpu:0", "mps")] == [750, 750, 400]
    assert 0 < device.free_bytes(torch.device("cpu")) <= device.room(torch.device("cpu")).most
    assert device.room(torch.device("mps")).most == math.inf

    def refuse(where: torch.device) -> None:
        raise RuntimeError("this device does not say how much memory is free")

    monkeypatch.setattr(torch.xpu, "mem_get_info", refuse)
    assert device.free_bytes(torch.device("xpu:0")) == math.inf


def test_a_gpu_that_shares_the_systems_memory_has_what_the_system_has(monkeypatch) -> None:
    """Its driver counts the page cache as used, which the system gives back."""
    monkeypatch.setattr(device, "free_bytes", lambda where: 100.0)
    for integrated in (1, 0):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda where, i=integrated: SimpleNamespace(is_integrated=i)
        )
        assert (device.room(torch.device("cuda:0")).free > 1e6) == bool(integrated)
