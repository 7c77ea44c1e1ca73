"""The processor: cores, memory, instruction sets and how fast memory is read, which bounds the tokens per second."""

from __future__ import annotations

import math
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from backend.doctor.child_process import Report
from backend.doctor.findings import REINSTALL, Finding, fail, ok, warn
from backend.process.machine.available_cores import available_cores
from backend.process.machine.available_memory import PROC, available_memory, read_lines

_ITEMSIZES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

# Tokens per second of speech that a row must yield to keep up with a speaker: English has 4, most languages less than
# 10 (checkpoint/fit.py). What is left over pays for the encoder and the prefill. Chosen, not measured.
REAL_TIME_TOKENS_PER_S = 10.0


@dataclass(frozen=True)
class Size:
    """A published model. `read`: numbers of the decoder and its head, which every token reads. `bytes`: of all weights,
    by dtype.
    """

    name: str
    read: float
    bytes: Mapping[str, float]


# From the published config.json: 28 layers of width 1024 and 2048, and a head for 151,936 tokens.
SMALLEST = Size("the 0.6B", 0.596e9, {"float32": 3.2e9, "bfloat16": 1.6e9, "float16": 1.6e9, "int8": 1.3e9})
LARGEST = Size("the 1.7B", 1.72e9, {"float32": 8.2e9, "bfloat16": 4.1e9, "float16": 4.1e9, "int8": 3.0e9})


_PROCESS_BYTES = (
    0.9e9  # of the server without weights: torch and its scratch memory (0.6B in bf16: 2.4 to 2.6 GB in all)
)
_WORDS = {"AVX512": "AVX-512", "DEFAULT": "no AVX2"}


@dataclass(frozen=True)
class CpuFacts:
    """`cores`: that may be used. Bytes: `total` of the machine, `free` also of what a container's limit leaves."""

    model: str
    machine_cores: int
    cores: float
    total: float
    free: float


def tokens_per_s(size: Size, dtype: str, gb_per_s: float) -> float:
    """The most tokens per second of one row, where reading the weights is all that takes time."""
    return gb_per_s * 1e9 / (size.read * _ITEMSIZES[dtype])


def probe() -> CpuFacts:
    meminfo = " ".join(read_lines(PROC / "meminfo"))
    total = re.search(r"MemTotal:\s+(\d+) kB", meminfo)
    return CpuFacts(
        _model(),
        len(re.findall(r"^processor\s", "\n".join(read_lines(PROC / "cpuinfo")), re.MULTILINE)) or 1,
        available_cores(),
        int(total[1]) * 1024 if total else math.inf,
        available_memory().memory,
    )


def _model() -> str:
    found = re.search(
        r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", "\n".join(read_lines(PROC / "cpuinfo")), re.MULTILINE
    )
    if found:
        return found[1].strip()
    if platform.system() == "Darwin":
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, check=False
        )
        return answer.stdout.decode(errors="replace").strip() or platform.machine()
    return platform.machine()


def judge(facts: CpuFacts, report: Report, on_gpu: bool) -> list[Finding]:
    """`report`: backend/engine/device_report.py's. `on_gpu`: a GPU computes, and the CPU's weaknesses matter little."""
    found = [_cores(facts, report), _memory(facts, report, on_gpu)]
    engine = report.facts.get("processor")
    if engine is None:
        return [*found, fail("engine", f"torch does not start: {report.failure}", REINSTALL)]
    return [
        *found,
        ok("engine", f"torch {engine['torch']}, built for {engine['build']}, {_threads(engine['threads'])}"),
        _instructions(engine["instruction_sets"], engine["dtype"], on_gpu),
        _kernels(engine["kernels"], engine["kernels_file"], on_gpu),
        _speed(engine["read_gb_per_s"], engine["dtype"]),
    ]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _cores(facts: CpuFacts, report: Report) -> Finding:
    value = f"{facts.model}, {facts.cores:g} of {facts.machine_cores} cores may be used"
    threads = report.facts.get("processor", {}).get("threads", 0)
    if threads > math.ceil(facts.cores):
        return warn("processor", f"{value}; {threads} threads would share them", f"threads: {max(1, int(facts.cores))}")
    return ok("processor", value)


def _memory(facts: CpuFacts, report: Report, on_gpu: bool) -> Finding:
    """Against the smallest model, in the dtype that would be chosen; on a GPU the process itself needs about 2 GB."""
    dtype = report.facts.get("processor", {}).get("dtype", "float32")
    value = f"{_gb(facts.free)} of {_gb(facts.total)} GB free"
    needed, least = (_PROCESS_BYTES + SMALLEST.bytes[kind] for kind in (dtype, "int8"))
    if facts.free < least:
        return fail(
            "memory",
            f"{value}; {SMALLEST.name} in int8 needs about {_gb(least)}",
            "more memory: a larger limit of the container (docker run --memory), or another machine",
        )
    if facts.free < needed and not on_gpu:
        return warn("memory", f"{value}; {SMALLEST.name} in {dtype} needs about {_gb(needed)}", "quantization: int8")
    return ok("memory", value)


def _instructions(sets: list[str], dtype: str, on_gpu: bool) -> Finding:
    value = f"{', '.join(_WORDS.get(name, name) for name in sets)}: weights in {dtype} on the CPU"
    if dtype == "float32" and not on_gpu:
        return warn(
            "instructions",
            f"{value}, at about half the speed of bf16, which needs AVX512-BF16 or AMX",
            "quantization: int8",
        )
    return ok("instructions", value)


def _kernels(kernels: list[str] | None, file_exists: bool, on_gpu: bool) -> Finding:
    if kernels is not None:
        return ok("C kernels", f"compiled; of those that need AVX-512 {', '.join(kernels) or 'none'} can run")
    if file_exists:
        return warn(
            "C kernels", "compiled for another machine or from other sources; torch computes instead", REINSTALL
        )
    value = "not compiled: no C compiler at the installation, or it failed; torch computes instead"
    if on_gpu:
        return ok("C kernels", f"{value}, which a GPU does not notice")
    return warn("C kernels", f"{value}, a tenth to a quarter slower", "apt-get install gcc libc6-dev && make install")


def _speed(gb_per_s: float, dtype: str) -> Finding:
    bounds = [f"{size.name} at most {_tokens(size, dtype, gb_per_s)}" for size in (SMALLEST, LARGEST)]
    return ok("memory speed", f"{gb_per_s:.1f} GB/s, tokens per second and row: {', '.join(bounds)}")


def _tokens(size: Size, dtype: str, gb_per_s: float) -> str:
    return f"{tokens_per_s(size, dtype, gb_per_s):.0f} in {dtype}, {tokens_per_s(size, 'int8', gb_per_s):.0f} in int8"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f}" if math.isfinite(size) else "?"
