"""Placement: the device, the dtype and the encoder's attention, chosen once at load and explained in one log line.

The rules: bf16 where the device computes it well, fp16 on Turing (which has fast fp16 and no bf16), fp32 otherwise.
What the operator names is obeyed or refused, never replaced. Limits of a device stand here, too: prefill size, threads,
memory.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
import threading
from dataclasses import dataclass

import torch

from backend.engine.ops import malloc, torch_private
from backend.errors import DeviceUnavailable, InvalidOption
from backend.options import LoadOptions

_log = logging.getLogger(__name__)

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Placement:
    """Where a model computes. `attention` is the encoder's: flash_attention_2, or sdpa, which stands for our own
    windowed attention (engine/model/windowed_attention.py). `reason`: why, for the log.
    """

    device: torch.device
    dtype: torch.dtype
    attention: str
    reason: str

    def __str__(self) -> str:
        return f"{self.device}, {str(self.dtype).removeprefix('torch.')}, attention {self.attention} ({self.reason})"


def choose(options: LoadOptions) -> Placement:
    """The placement for `options` on this machine. Raises DeviceUnavailable or InvalidOption.

    On CUDA it turns cuDNN's attention off for the process: cuDNN plans anew for every shape, 0.4 s each (FunASR issue
    3704), and batches hardly ever repeat a shape.
    """
    device, why_device = _device(options)
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    dtype, why_dtype = _dtype(device, options)
    attention, why_attention = _attention(device, dtype, options)
    return Placement(device, dtype, attention, "; ".join((why_device, why_dtype, why_attention)))


def _device(options: LoadOptions) -> tuple[torch.device, str]:
    if torch.cuda.is_available():  # NVIDIA or AMD: torch calls ROCm "cuda", too
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
    # Emulated bf16 (AVX2, plain AVX512) is slower than fp32; with these instruction sets bf16 is twice as fast.
    if device.type == "cpu" and torch_private.cpu_has_bf16():
        return torch.bfloat16, "the processor has AVX512-BF16 or AMX"
    return torch.float32, "no fast bf16 here"


def _attention(device: torch.device, dtype: torch.dtype, options: LoadOptions) -> tuple[str, str]:
    flash = device.type == "cuda" and dtype != torch.float32 and importlib.util.find_spec("flash_attn") is not None
    if options.attention == "auto":
        return ("flash_attention_2", "flash-attn is installed") if flash else ("sdpa", "no flash-attn")
    if options.attention == "flash_attention_2" and not flash:
        raise InvalidOption(
            "attn_implementation", "flash_attention_2 needs CUDA, a 16 bit dtype and the flash-attn package"
        )
    return ("sdpa", "windows by torch") if options.attention == "eager" else (options.attention, "attention as asked")


def onednn_supports(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies on the device and in the dtype of `weight`."""
    if weight.device.type != "cpu" or not torch_private.ONEDNN_ENABLED:
        return False
    if weight.dtype is torch.bfloat16:
        return torch_private.onednn_has_bf16()
    return weight.dtype is torch.float32


# Seconds of audio in one prefill, which always takes one chunk. On a CPU about two chunks of 12 s: the intermediate
# results of more do not fit into the heap's blocks (malloc.py), and the page faults of fresh memory cost more than one
# pass over the weights less saves.
# Running rows decode a step, and cancelled requests are noticed, between two prefills.
_CPU_PREFILL_S = 24.0
_GPU_PREFILL_S = 1920.0  # 64 clips of half a minute; the memory that a prefill takes grows with the audio


def max_prefill_s(device: torch.device) -> float:
    """The most seconds of audio for one prefill on the device."""
    return _CPU_PREFILL_S if device.type == "cpu" else _GPU_PREFILL_S


def mel_device(device: torch.device) -> str:
    """Where to compute the mel features for a model on the device: on the same one if it is CUDA, else on the CPU."""
    return str(device) if device.type == "cuda" else "cpu"


_DEFAULT_THREADS = torch.get_num_threads()  # torch's choice for this machine


def use_threads(count: int | None) -> None:
    """Set how many threads compute for the calling thread (OpenMP keeps it by thread); None: torch's choice."""
    if torch.get_num_threads() != (count or _DEFAULT_THREADS):
        torch.set_num_threads(count or _DEFAULT_THREADS)


def free_bytes(device: torch.device) -> float:
    """Bytes that can still be allocated on a CUDA device; infinite for other devices, where it is not known."""
    if device.type != "cuda":
        return math.inf
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + cached)


CAPTURE_LOCK = threading.Lock()  # held while a CUDA graph is captured: one at a time in a process


def reclaim() -> None:
    """Give the memory of dropped models back to the device and the system."""
    gc.collect()
    if torch.cuda.is_available():
        with CAPTURE_LOCK:  # during a capture torch's allocator gives nothing back, and empty_cache is an error
            try:
                torch.cuda.empty_cache()
            except RuntimeError:  # nor after a capture that failed; torch uses the free memory again all the same
                _log.warning("the device's memory cannot be given back", exc_info=True)
    malloc.trim()
