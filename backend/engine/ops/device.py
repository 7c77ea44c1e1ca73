"""Placement: the device, the dtype and the encoder's attention, chosen once at load and explained in one log line.

The rules: bf16 where the device computes it well, fp16 on Turing (which has fast fp16 and no bf16), fp32 otherwise.
What the operator names is obeyed or refused, never replaced. A build of torch for GPUs that finds none is refused, too
(gpu_build.py). Limits of a device stand here, too: prefill size, threads, memory.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
from dataclasses import dataclass, replace

import torch

from backend.checkpoint.fit import Room
from backend.engine.ops import gpu_build, malloc, torch_private
from backend.errors import DeviceUnavailable, InvalidOption
from backend.options.load_options import LoadOptions
from backend.process.machine.available_memory import available_memory
from backend.serving.protocols import Batching

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
    """The placement for `options` on this machine.

    Raises DeviceUnavailable, GpuNotAnswering, NoKernelsForGpu or InvalidOption.

    On CUDA it turns cuDNN's attention off for the process: cuDNN plans anew for every shape, 0.4 s each (FunASR issue
    3704), and batches hardly ever repeat a shape.
    """
    device, why_device = _device(options)
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    dtype, why_dtype = _dtype(device, options)
    attention, why_attention = _attention(device, dtype, options)
    return Placement(device, dtype, attention, "; ".join((why_device, why_dtype, why_attention)))


def in_float32(placement: Placement) -> Placement:
    """The same device for a model that overflows in float16."""
    return replace(placement, dtype=torch.float32, attention="sdpa", reason=f"{placement.reason}; float16 overflows")


def _device(options: LoadOptions) -> tuple[torch.device, str]:
    wanted, counts = _wanted_device(options), _gpu_counts()
    reason = "as asked"
    if wanted == "auto":
        wanted = next((kind for kind, count in counts.items() if count), "cpu")
        reason = gpu_build.reason_for_cpu() if wanted == "cpu" else "Apple GPU"
    elif wanted != "cpu" and not counts[wanted]:
        raise (gpu_build.refusal() if wanted == "cuda" else None) or DeviceUnavailable(
            wanted.upper(), _device_names(counts)
        )
    if wanted in ("cpu", "mps"):
        return torch.device(wanted), reason + ("; MainGPU has no effect" if options.main_gpu is not None else "")
    index = options.main_gpu or 0
    if index >= counts[wanted]:
        raise DeviceUnavailable(f"MainGPU {index}", _device_names(counts))
    device = torch.device(wanted, index)
    if wanted == "xpu":
        return device, "Intel GPU"
    gpu_build.check_kernels(device)
    return device, torch.cuda.get_device_name(index)


def _wanted_device(options: LoadOptions) -> str:
    """The option, or `cuda` if the field CUDA is true, which means ROCm, too. Raises InvalidOption if they differ."""
    if not options.cuda:
        return options.device
    if options.device not in ("auto", "cuda"):
        raise InvalidOption("device", f"is {options.device}, and the field cuda is true; leave one of the two out")
    return "cuda"


def _gpu_counts() -> dict[str, int]:
    """How many GPUs of each kind torch finds, in the order in which they are preferred. ROCm is `cuda`, too."""
    return {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }


def _device_names(counts: dict[str, int]) -> list[str]:
    gpus = [kind if kind == "mps" else f"{kind}:{index}" for kind, count in counts.items() for index in range(count)]
    return [*gpus, "cpu"]


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
    if device.type == "mps" and torch.backends.mps.is_macos_or_newer(14, 0):  # float32 takes twice the time and memory
        return torch.bfloat16, "macOS 14 or later computes bf16"
    # Emulated bf16 (AVX2, plain AVX512) is slower than fp32; with these instruction sets bf16 is twice as fast.
    if device.type == "cpu" and torch_private.cpu_has_bf16():
        return torch.bfloat16, "the processor has AVX512-BF16 or AMX"
    return torch.float32, "no fast bf16 here"


def _attention(device: torch.device, dtype: torch.dtype, options: LoadOptions) -> tuple[str, str]:
    if options.attention != "flash_attention_2":  # also auto: decision 3
        return "sdpa", "windows by torch"
    obstacle = gpu_build.flash_attention_obstacle(device, dtype)
    if obstacle:
        raise InvalidOption("attn_implementation", f"is flash_attention_2, and {obstacle}")
    return "flash_attention_2", "attention as asked"


def onednn_supports(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies on the device and in the dtype of `weight`."""
    if weight.device.type != "cpu" or not torch_private.ONEDNN_ENABLED:
        return False
    if weight.dtype is torch.bfloat16:
        return torch_private.onednn_has_bf16()
    return weight.dtype is torch.float32


# The default number of rows, by the device's memory. On a GPU a step with 32 rows takes hardly longer than one with 8:
# reading the weights decides (Qwen3-ASR's report, table 2: 1.8 times the throughput, 2.3 times with 64 rows). A card
# reports 2 to 8 % less memory than its name says.
_CPU_ROWS = 8
_GPU_ROWS = ((0.9 * 24 * 2**30, 64), (0.9 * 12 * 2**30, 32), (0.0, 8))

# Seconds of audio in one prefill, which always takes one chunk. On a CPU about two chunks of 12 s: the intermediate
# results of more do not fit into the heap's blocks (malloc.py), and the page faults of fresh memory cost more than one
# pass over the weights less saves.
# Running rows decode a step, and cancelled requests are noticed, between two prefills.
_CPU_PREFILL_S = 24.0
_GPU_PREFILL_S = 1920.0  # 64 clips of half a minute; the memory that a prefill takes grows with the audio
_SMALL_GPU_PREFILL_S = 240.0


def batching(device: torch.device) -> Batching:
    """How models on the device are kept busy."""
    if device.type == "cpu":
        return Batching(_CPU_ROWS, _CPU_PREFILL_S, slow_prefill=True)
    if device.type != "cuda":  # an Apple or Intel GPU shares the machine's memory, or does not tell how much it has
        return Batching(_CPU_ROWS, _SMALL_GPU_PREFILL_S, in_groups=True)
    memory = torch.cuda.get_device_properties(device).total_memory
    rows = next(rows for minimum, rows in _GPU_ROWS if memory >= minimum)
    return Batching(rows, _GPU_PREFILL_S if rows > _CPU_ROWS else _SMALL_GPU_PREFILL_S, in_groups=True)


_DEFAULT_THREADS = torch.get_num_threads()  # torch's choice for this machine


def use_threads(count: int | None) -> None:
    """Set how many threads compute for the calling thread (OpenMP keeps it by thread); None: torch's choice."""
    if torch.get_num_threads() != (count or _DEFAULT_THREADS):
        torch.set_num_threads(count or _DEFAULT_THREADS)


def free_bytes(device: torch.device) -> float:
    """Bytes that can still be allocated on the device, its allocator's cache included; infinite where nobody says."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type == "xpu":
        try:
            cached = torch.xpu.memory_reserved(device) - torch.xpu.memory_allocated(device)
            return float(torch.xpu.mem_get_info(device)[0] + cached)
        except RuntimeError:  # not every Intel GPU is asked for its free memory
            return math.inf
    return available_memory().memory


def room(device: torch.device) -> Room:
    """The device's memory, as checkpoint/fit.py judges by it."""
    free = free_bytes(device)
    if device.type == "cpu":
        return Room(free, available_memory().with_swap, is_cpu=True)
    if device.type == "mps":  # of the system's memory; what is over the recommended is swapped
        return Room(free, math.inf)
    if device.type == "cuda" and getattr(torch.cuda.get_device_properties(device), "is_integrated", False):
        free = max(free, available_memory().memory)  # the driver counts the system's page cache as used
    return Room(free, free)


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
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if torch.xpu.is_available():
        torch.xpu.empty_cache()
    malloc.trim()
