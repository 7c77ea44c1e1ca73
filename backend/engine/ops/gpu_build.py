"""What the installed torch can do with the GPU of this machine: whether one answers, has kernels, and has flash-attn.

Rules: a build of torch for GPUs that finds none is refused with the driver's own words, because a CPU is 20 to 50 times
slower and nobody would see why. It computes on the CPU only where that is what somebody wanted: ./venv was installed
for CPUs (its stamp says so; where PyTorch's index is out of reach, pip may have brought a CUDA build along), or the
environment hides the GPUs.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import torch

from backend.errors import GpuNotAnswering, NoKernelsForGpu

_log = logging.getLogger(__name__)

_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_NO_DEVICE = re.compile(r"No (CUDA|HIP) GPUs are available")  # torch's words where the driver works and names none
_FLASH_CAPABILITY = (8, 0)  # flash-attn 2 has kernels from Ampere on


def refusal() -> GpuNotAnswering | None:
    """Why a build of torch for GPUs finds none; None for a build for CPUs. To be asked only where none is available."""
    if torch.version.cuda is None and torch.version.hip is None:
        return None
    build = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        words = "no device was found"
    except Exception as error:  # noqa: BLE001 - drivers raise anything, and their words are all that is wanted
        words = " ".join(str(error).split())
    return GpuNotAnswering(build, words, "hipblas" if torch.version.hip else "cublas")


def reason_for_cpu() -> str:
    """Why to compute on the CPU where no GPU is available. Raises GpuNotAnswering where that is nobody's wish."""
    if _installed_kind() == "cpu":
        return "installed for CPUs"
    silent = refusal()
    if silent is None:
        return "no GPU found"
    hiding = next((name for name in _HIDING if os.environ.get(name) in ("", "-1")), None)
    if hiding and _NO_DEVICE.search(silent.words):
        return f"{hiding} hides the GPUs"
    raise silent


def _installed_kind() -> str:
    """What install.sh wrote into ./venv/.kind: cpu, cuda12, rocm, ...; "" in an environment of another origin.

    Found from torch's own place in it, because `sys.prefix` is another folder where the interpreter lies in ./python.
    """
    try:
        return (Path(torch.__file__).parents[4] / ".kind").read_text(encoding="utf-8").strip()
    except (OSError, IndexError):
        return ""


def check_kernels(device: torch.device) -> None:
    """Raise NoKernelsForGpu if this build of torch was not compiled for the CUDA device.

    It lists `sm_75`: code for 7.5 and what follows within 7; and `compute_120`: code that the driver compiles for 12.0
    and everything later. A build that lists nothing is believed.
    """
    architectures = re.findall(r"(sm|compute)_(\d+)", " ".join(torch.cuda.get_arch_list()))
    if torch.version.hip is not None or not architectures:
        return
    major, minor = torch.cuda.get_device_capability(device)
    here = 10 * major + minor
    for form, number in architectures:
        if int(number) <= here and (form == "compute" or int(number) // 10 == major):
            return
    raise NoKernelsForGpu(f"CUDA {torch.version.cuda}", f"{major}.{minor}", older=here < int(architectures[0][1]))


def flash_attention_obstacle(device: torch.device, dtype: torch.dtype) -> str:
    """Why the encoder cannot use flash-attn on the device in the dtype; "" if it can."""
    if device.type != "cuda":
        return "flash-attn needs CUDA or ROCm"
    if dtype is torch.float32:
        return "flash-attn needs a 16 bit dtype"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _FLASH_CAPABILITY:
        return "flash-attn needs an Ampere GPU or later"
    return _flash_import_failure()


def _flash_import_failure() -> str:
    """Why flash-attn cannot be imported; "" if it can.

    Its presence says little: one that was built for another torch fails at its import, and flash-attn 4 has a package
    of that name without this function.
    """
    try:
        from flash_attn import flash_attn_varlen_func  # noqa: F401
    except Exception as error:  # noqa: BLE001 - foreign code: a library of C++ for another torch raises anything
        if isinstance(error, ModuleNotFoundError) and error.name == "flash_attn":
            return "flash-attn is not installed"
        _log.warning("flash-attn is installed and cannot be imported: %s", error)
        return f"flash-attn is installed and cannot be imported ({type(error).__name__})"
    return ""
