"""`python -m backend.engine.device_report`: what torch says about this machine, one JSON object a line.

The doctor runs it as a child process, because a driver may hang where it should fail: each object is printed as soon as
it is known. `processor`: dtype, C kernels, memory speed. `gpu`: what a load would choose, and every GPU that torch
finds. `compute`: a product and an attention on that GPU, compared with the same on the CPU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.engine.ops import device, native, torch_private
from backend.engine.ops.int8 import can_quantize
from backend.errors import AsrError
from backend.options.load_options import LoadOptions
from backend.process.machine.available_memory import available_memory

_CPU = torch.device("cpu")
_READ_BYTES, _READS = 512 << 20, 5  # more than any cache holds; the best of so many
_GPU_READ_BYTES = 1 << 30
_SYNCHRONIZE = {"cuda": torch.cuda.synchronize, "xpu": torch.xpu.synchronize, "mps": torch.mps.synchronize}
_KERNELS = ("gemv_bf16", "gemv_int8", "prefill_attention")  # those that not every processor can run


def main() -> None:
    _say("processor", _processor())
    placement, gpu = _gpu()
    _say("gpu", gpu)
    if placement is not None and placement.device.type != "cpu":
        _say("compute", _compute(placement))


def _say(name: str, facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({name: facts}) + "\n")
    sys.stdout.flush()


def _processor() -> dict[str, Any]:
    has_bf16 = torch_private.cpu_has_bf16()
    sets = [
        torch.backends.cpu.get_cpu_capability(),
        *(["bf16"] if has_bf16 else []),
        *(["VNNI"] if torch_private.cpu_has_vnni() and torch_private.avx512_allowed() else []),
    ]
    return {
        "torch": torch.__version__,
        "build": _build(),
        "threads": torch.get_num_threads(),
        "instruction_sets": sets,
        "dtype": "bfloat16" if has_bf16 else "float32",
        "can_quantize": can_quantize(_CPU),
        "rows": device.batching(_CPU).rows,
        "kernels": None if native.library is None else [name for name in _KERNELS if _runs(name)],
        "kernels_file": native.LIBRARY.exists(),
        "read_gb_per_s": _read_speed(_CPU, _READ_BYTES, lambda: None),
    }


def _runs(kernel: str) -> bool:
    return bool(getattr(native.library, f"has_{kernel}")())


def _build() -> str:
    """What torch was built for: `cuda 13.0`, `rocm 7.2`, `xpu`, `mps` or `cpu`."""
    if torch.version.hip is not None:
        return f"rocm {torch.version.hip}"
    if torch.version.cuda is not None:
        return f"cuda {torch.version.cuda}"
    if getattr(torch.version, "xpu", None) is not None:
        return "xpu"
    return "mps" if torch.backends.mps.is_built() else "cpu"


def _gpu() -> tuple[device.Placement | None, dict[str, Any]]:
    """Where a load with default options computes, or why it is refused; and what torch finds."""
    facts: dict[str, Any] = {"refusal": "", "devices": _cuda_devices(), "arch_list": _arch_list()}
    try:
        placement = device.choose(LoadOptions("doctor"))
    except AsrError as error:
        return None, {**facts, "refusal": str(error)}
    batching = device.batching(placement.device)
    free = device.free_bytes(placement.device)
    facts |= {
        "device": str(placement.device),
        "dtype": _name(placement.dtype),
        "reason": placement.reason,
        "rows": batching.rows,
        "free_bytes": free if free != float("inf") else None,
    }
    return placement, facts


def _arch_list() -> list[str]:
    return torch.cuda.get_arch_list() if torch.cuda.is_available() else []


def _cuda_devices() -> list[dict[str, Any]]:
    """NVIDIA's and AMD's, as torch numbers them."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        capability = getattr(properties, "gcnArchName", "") if torch.version.hip else ""
        found.append(
            {
                "name": properties.name,
                "capability": capability or f"{properties.major}.{properties.minor}",
                "free_bytes": free,
                "total_bytes": total,
            }
        )
    return found


def _compute(placement: device.Placement) -> dict[str, Any]:
    """By dtype, the chosen one first: the largest error of both operations, as a share of the largest value."""
    dtypes = dict.fromkeys((placement.dtype, torch.bfloat16, torch.float16, torch.float32))
    errors: dict[str, Any] = {}
    for dtype in dtypes:
        try:
            errors[_name(dtype)] = max(
                _product_error(placement.device, dtype), _attention_error(placement.device, dtype)
            )
        except Exception as error:  # noqa: BLE001 - drivers raise anything
            errors[_name(dtype)] = " ".join(str(error).split())[:200]
        if dtype is placement.dtype and isinstance(errors[_name(dtype)], float):
            break  # the others matter only where this one fails
    return {
        "errors": errors,
        "can_quantize": can_quantize(placement.device),
        "read_gb_per_s": _read_speed(placement.device, _GPU_READ_BYTES, _SYNCHRONIZE[placement.device.type]),
    }


def _product_error(where: torch.device, dtype: torch.dtype) -> float:
    torch.manual_seed(1)
    left, right = torch.randn(256, 512), torch.randn(512, 256)
    return _error(
        (left.to(where, dtype) @ right.to(where, dtype)).cpu(), left.to(dtype).float() @ right.to(dtype).float()
    )


def _attention_error(where: torch.device, dtype: torch.dtype) -> float:
    torch.manual_seed(2)
    query, key, value = (torch.randn(1, 4, 64, 64).to(dtype) for _ in range(3))
    found = scaled_dot_product_attention(query.to(where), key.to(where), value.to(where)).cpu()
    return _error(found, scaled_dot_product_attention(query.float(), key.float(), value.float()))


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """As a share of the largest value. Raises ValueError for NaN, which JSON has not."""
    error = float((found.float() - expected).abs().max() / expected.abs().max())
    if error != error:
        raise ValueError("NaN")
    return error


def _read_speed(where: torch.device, size: int, synchronize: Callable[[], Any]) -> float:
    """GB/s of reading memory with all threads; the best of a few runs."""
    free = min(device.free_bytes(where), available_memory().memory if where.type == "cpu" else float("inf"))
    block = torch.ones(int(min(size, free / 8)) // 4, device=where)
    fastest = float("inf")
    for _ in range(_READS):
        synchronize()
        began = time.perf_counter()
        block.sum()
        synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return block.nbytes / fastest / 1e9


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
