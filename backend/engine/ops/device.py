"""Where and how the numbers are computed: device, dtype and attention, chosen once and explained in one line.

Rules: bf16 where the device computes it well, fp16 on Turing (it has fast fp16 and no bf16), fp32 otherwise; what
the operator names is obeyed or refused, never replaced.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
import threading
from dataclasses import dataclass

import torch

from backend.engine.ops import malloc
from backend.errors import DeviceUnavailable, InvalidOption
from backend.options import LoadOptions

_log = logging.getLogger(__name__)

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Placement:
    """`attention`, the encoder's: flash_attention_2, or sdpa, for which our own windows are used."""

    device: torch.device
    dtype: torch.dtype
    attention: str
    reason: str

    def __str__(self) -> str:
        return f"{self.device}, {str(self.dtype).removeprefix('torch.')}, attention {self.attention} ({self.reason})"


def choose(options: LoadOptions) -> Placement:
    """The placement for `options` on this machine. Raises DeviceUnavailable or InvalidOption.

    Where that is CUDA, torch attends without cuDNN from then on.
    """
    device, why_device = _device(options)
    if device.type == "cuda":  # it plans for every shape, 0.4 s each (FunASR issue 3704), and batches hardly repeat one
        torch.backends.cuda.enable_cudnn_sdp(False)
    dtype, why_dtype = _dtype(device, options)
    attention, why_attention = _attention(device, dtype, options)
    return Placement(device, dtype, attention, "; ".join((why_device, why_dtype, why_attention)))


def _device(options: LoadOptions) -> tuple[torch.device, str]:
    if torch.cuda.is_available():  # NVIDIA, or AMD: torch calls ROCm cuda, too
        index = options.main_gpu or 0
        if index >= torch.cuda.device_count():
            raise DeviceUnavailable(f"MainGPU {index}")
        return torch.device("cuda", index), torch.cuda.get_device_name(index)
    if options.cuda:
        raise DeviceUnavailable("CUDA")
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Apple GPU"
    if torch.xpu.is_available():
        return torch.device("xpu", options.main_gpu or 0), "Intel GPU"
    return torch.device("cpu"), "no GPU found"


def _dtype(device: torch.device, options: LoadOptions) -> tuple[torch.dtype, str]:
    if options.dtype != "auto":
        return _DTYPES[options.dtype], "dtype as asked"
    if device.type == "cuda":
        if torch.version.hip is not None:
            return torch.bfloat16, "ROCm computes bf16"
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return torch.bfloat16, "Ampere or later computes bf16"
        if (major, minor) == (7, 5):
            return torch.float16, "Turing computes fp16, not bf16"
        return torch.float32, "older than Turing"
    if device.type == "xpu":
        return torch.bfloat16, "XMX computes bf16"
    if device.type == "cpu" and _cpu_computes_bf16():
        return torch.bfloat16, "the processor has AVX512-BF16 or AMX"
    return torch.float32, "no fast bf16 here"


def _cpu_computes_bf16() -> bool:
    """Emulated bf16 (AVX2, plain AVX512) is slower than fp32; these two instruction sets are twice as fast."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _attention(device: torch.device, dtype: torch.dtype, options: LoadOptions) -> tuple[str, str]:
    flash = device.type == "cuda" and dtype != torch.float32 and importlib.util.find_spec("flash_attn") is not None
    if options.attention == "auto":
        return ("flash_attention_2", "flash-attn is installed") if flash else ("sdpa", "no flash-attn")
    if options.attention == "flash_attention_2" and not flash:
        raise InvalidOption(
            "attn_implementation", "flash_attention_2 needs CUDA, a 16 bit dtype and the flash-attn package"
        )
    return ("sdpa", "windows by torch") if options.attention == "eager" else (options.attention, "attention as asked")


ONEDNN: bool = torch._C._get_mkldnn_enabled()


def onednn_takes(numbers: torch.Tensor) -> bool:
    """Whether oneDNN computes in numbers of such a dtype, where they are."""
    if numbers.device.type != "cpu" or not ONEDNN:
        return False
    if numbers.dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return numbers.dtype is torch.float32


# Of audio, about two chunks. Intermediate results for more do not fit into the heap's blocks (engine/malloc.py), and
# fresh pages cost more than passing over the weights once less. And between two reads those who have left are noticed.
_CPU_READS_S = 24.0
_GPU_READS_S = 1920.0  # 64 clips of half a minute; the memory that reading takes grows with the audio


def max_prefill_s(device: torch.device) -> float:
    """Seconds of audio that are best read at once on the device."""
    return _CPU_READS_S if device.type == "cpu" else _GPU_READS_S


def mel_device(device: torch.device) -> str:
    """Where the mel features of a model on the device are computed: beside it on CUDA, on the CPU elsewhere."""
    return str(device) if device.type == "cuda" else "cpu"


_THREADS = torch.get_num_threads()  # what torch chooses for this machine


def use_threads(count: int | None) -> None:
    """So many threads for what the calling thread computes, or as many as torch chooses: OpenMP keeps it by thread."""
    if torch.get_num_threads() != (count or _THREADS):
        torch.set_num_threads(count or _THREADS)


def free_bytes(device: torch.device) -> float:
    """Bytes of memory that can be had on a CUDA device; of others that is not known, and infinite."""
    if device.type != "cuda":
        return math.inf
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + kept)


RECORDING = threading.Lock()  # held while steps are recorded on CUDA, one at a time in a process


def reclaim() -> None:
    """Give the memory of dropped models back to the device and the system."""
    gc.collect()
    if torch.cuda.is_available():
        with RECORDING:  # torch's allocator gives nothing back meanwhile, and takes the wish for an error
            try:
                torch.cuda.empty_cache()
            except RuntimeError:  # nor after a recording that failed; what is free in it is used again all the same
                _log.warning("the device's memory cannot be given back", exc_info=True)
    malloc.trim()
