"""The GPU: what the machine has, what torch was built for, and whether the two work together.

The cards are found without torch (nvidia-smi, the kernel's device nodes), so that a build for CPUs beside a card, or a
driver that is older than the build, has a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from backend.doctor.child_process import Report, run
from backend.doctor.findings import Finding, fail, ok, warn

_DRIVER_FOR_CUDA = {12: 525, 13: 580}  # the oldest driver of each build of torch that install.sh knows
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
DTYPE_OPTIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}  # torch's names and torch_dtype's
_MAX_ERROR = 0.03  # of the largest value: bf16 keeps 8 bits
_SMI_TIMEOUT_S = 10.0
_NVIDIA_BUILD = "BUILD_TYPE=cublas make install; in an image: take the one for CUDA"
_AMD_BUILD = "BUILD_TYPE=hipblas make install; in an image: take the one for ROCm"
_CPU_BUILD = "device:cpu, or BUILD_TYPE=cpu make install"


class Card(NamedTuple):
    """`capability`: 8.6 or gfx1100, "" if it is not known. `driver`: its major version, 0 if it is not known."""

    maker: str
    name: str
    capability: str
    driver: int


@dataclass(frozen=True)
class GpuFacts:
    """`closed`: device nodes that this user may not open. `hidden`: variables of the environment that name GPUs."""

    cards: tuple[Card, ...] = ()
    closed: tuple[str, ...] = ()
    hidden: Mapping[str, str] | None = None


def probe(devices: Path = Path("/dev"), topology: Path = Path("/sys/class/kfd/kfd/topology/nodes")) -> GpuFacts:
    cards = [*_nvidia_cards(), *_amd_cards(topology)]
    nodes = [*devices.glob("nvidia[0-9]*"), *devices.glob("nvidiactl"), *devices.glob("kfd")]
    if not cards and any(node.name.startswith("nvidia") for node in nodes):
        cards = [Card("NVIDIA", "a card whose driver does not answer nvidia-smi", "", 0)]
    closed = tuple(str(node) for node in sorted(nodes) if not os.access(node, os.R_OK | os.W_OK))
    return GpuFacts(tuple(cards), closed, {name: os.environ[name] for name in _HIDING if name in os.environ})


def _nvidia_cards() -> Iterator[Card]:
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):  # an old one does not know compute_cap
        output = run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], _SMI_TIMEOUT_S)
        if output.code == 0:
            for line in output.stdout.splitlines():
                name, driver, capability = [part.strip() for part in [*line.split(","), "", ""][:3]]
                major = re.match(r"\d+", driver)
                if major:
                    yield Card("NVIDIA", name, capability, int(major[0]))
            return


def _amd_cards(topology: Path) -> Iterator[Card]:
    """Of the kernel's list of processors those that are GPUs: gfx_target_version 110501 is gfx1151, 90010 gfx90a."""
    for properties in sorted(topology.glob("*/properties")):
        try:
            version = re.search(r"^gfx_target_version (\d+)$", properties.read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, ValueError):
            continue
        if version and int(version[1]):
            number = int(version[1])
            gfx = f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"
            yield Card("AMD", gfx, gfx, 0)


def judge(facts: GpuFacts, report: Report) -> list[Finding]:
    """`report`: backend/engine/device_report.py's."""
    build = str(report.facts.get("processor", {}).get("build", ""))
    found = [_cards(facts, build), *_visibility(facts, build), *_driver(facts, build)]
    if not build:
        return found  # torch does not start; cpu_check.py says so
    gpu = report.facts.get("gpu")
    if gpu is None:
        return [*found, _silent(report)]
    found += [_device(index, device) for index, device in enumerate(gpu["devices"])]
    if gpu["refusal"]:
        return [*found, fail("a load", gpu["refusal"], _remedy(build))]
    if gpu["device"] == "cpu":
        return [*found, ok("a load computes on", f"the CPU: {gpu['reason']}")]
    found += [
        *_architectures(gpu, build),
        ok("a load computes on", f"{gpu['device']} in {gpu['dtype']}: {gpu['reason']}"),
    ]
    return [*found, _compute(report, gpu["dtype"])]


def _cards(facts: GpuFacts, build: str) -> Finding:
    if not facts.cards:
        return ok("cards", "none")
    names = ", ".join(_named(card) for card in facts.cards)
    makers = {card.maker for card in facts.cards}
    if "NVIDIA" in makers and build == "cpu":
        return warn("cards", f"{names}: a card, but torch is built for CPUs", _NVIDIA_BUILD)
    if makers == {"AMD"} and build == "cpu":
        return warn("cards", f"{names}: a card, but torch is built for CPUs", _AMD_BUILD)
    if makers == {"AMD"} and build.startswith("cuda"):
        return fail("cards", f"{names}: but torch is built for NVIDIA", _AMD_BUILD)
    if makers == {"NVIDIA"} and build.startswith("rocm"):
        return fail("cards", f"{names}: but torch is built for AMD", _NVIDIA_BUILD)
    return ok("cards", names)


def _named(card: Card) -> str:
    name = f"{card.maker} {card.name.removeprefix(card.maker).strip()}"
    return name if card.capability in ("", card.name) else f"{name} ({card.capability})"


def _visibility(facts: GpuFacts, build: str) -> Iterator[Finding]:
    for name, value in (facts.hidden or {}).items():
        if value.strip() in ("", "-1") and (facts.cards or build not in ("", "cpu")):
            yield warn("visible devices", f"{name} hides every GPU", f"unset {name}, or leave it: the CPU computes")
        else:
            yield ok("visible devices", f"{name}={value!r}")
    if facts.closed:
        yield warn(
            "permission",
            f"this user may not open {', '.join(facts.closed)}",
            'sudo usermod -aG render,video "$USER", then log in again; in a container: --device, or --gpus all',
        )


def _driver(facts: GpuFacts, build: str) -> Iterator[Finding]:
    driver = min((card.driver for card in facts.cards if card.driver), default=0)
    if not driver:
        return
    cuda = re.match(r"cuda (\d+)", build)
    needed = _DRIVER_FOR_CUDA.get(int(cuda[1]), 0) if cuda else 0
    if driver < needed:
        older = "CUDA=12 BUILD_TYPE=cublas make install" if driver >= _DRIVER_FOR_CUDA[12] and needed > 525 else ""
        remedy = f"update the driver to {needed} or later{f', or {older}' if older else ''}"
        yield fail("driver", f"{driver} is too old for torch's {build}, which needs {needed}", remedy)
    else:
        yield ok("driver", f"{driver}{f', {build} needs {needed}' if needed else ''}")


def _silent(report: Report) -> Finding:
    if report.timed_out:
        return fail("driver", f"torch asked for the GPUs and got {report.failure}", f"restart the driver; {_CPU_BUILD}")
    return fail("driver", f"torch failed while it asked for the GPUs: {report.failure}", _CPU_BUILD)


def _device(index: int, device: Mapping[str, Any]) -> Finding:
    free, total = (device[key] / 1e9 for key in ("free_bytes", "total_bytes"))
    return ok(f"GPU {index}", f"{device['name']} ({device['capability']}), {free:.1f} of {total:.1f} GB free")


def _architectures(gpu: Mapping[str, Any], build: str) -> Iterator[Finding]:
    """Of ROCm, where a missing gfx fails at the first kernel. What CUDA's build lacks is refused by a load already."""
    known = [name.partition(":")[0] for name in gpu["arch_list"]]
    if not build.startswith("rocm") or not known:
        return
    for device in gpu["devices"]:
        gfx = str(device["capability"]).partition(":")[0]
        if gfx not in known:
            yield fail(
                "architecture",
                f"{gfx} is not in this build, which has {', '.join(known)}",
                f"HSA_OVERRIDE_GFX_VERSION={_nearest(gfx)} in the environment, or a build with {gfx} (TORCH_INDEX=)",
            )


def _nearest(gfx: str) -> str:
    """The first of its generation, whose code most of the others run: gfx1103 is 11.0.0."""
    major = gfx.removeprefix("gfx")[:-2] or "11"
    return f"{major}.0.0" if major != "10" else "10.3.0"


def _remedy(build: str) -> str:
    return f"update the driver; {_AMD_BUILD if build.startswith('rocm') else _NVIDIA_BUILD}; {_CPU_BUILD}"


def _compute(report: Report, dtype: str) -> Finding:
    """What the product and the attention on the GPU gave."""
    compute = report.facts.get("compute")
    if compute is None:
        return fail("product and attention", report.failure or "no answer", f"update the driver; {_CPU_BUILD}")
    right = right_dtypes(compute["errors"])
    if dtype in right:
        return ok("product and attention", f"right in {dtype}, {compute['read_gb_per_s']:.0f} GB/s")
    value = f"{dtype}: {compute['errors'].get(dtype)}"
    if right:
        return warn("product and attention", f"wrong in {value}", f"torch_dtype:{DTYPE_OPTIONS[right[0]]}")
    return fail("product and attention", f"wrong in {value}", f"update the driver; {_CPU_BUILD}")


def right_dtypes(errors: Mapping[str, Any]) -> list[str]:
    """Those whose errors are small; a text is a failure."""
    return [dtype for dtype, error in errors.items() if not isinstance(error, str) and error < _MAX_ERROR]
