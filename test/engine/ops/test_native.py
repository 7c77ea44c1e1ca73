"""The library of C kernels: which one is loaded, and which is refused."""

from __future__ import annotations

import ctypes
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_marks import needs_kernels

from backend.engine.ops import native
from backend.engine.ops.native_args import LAYOUTS, LIMITS

needs_compiler = needs_kernels("the library")


def test_a_library_of_another_machine_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tmp_path / "libkernels.so"
    assert native.load(other) is None
    assert not caplog.text
    other.write_bytes(b"\x7fELF of another kind")
    with caplog.at_level(logging.WARNING):
        assert native.load(other) is None
    assert "remove it and run install.sh" in caplog.text


@needs_compiler
def test_a_library_that_is_older_than_its_source_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its arguments may have other meanings."""
    for source in native.CSRC.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    assert native.load(native.LIBRARY, tmp_path) is not None
    newer = tmp_path / "bf16.h"
    newer.write_bytes(newer.read_bytes() + b"\n")
    with caplog.at_level(logging.WARNING):
        assert native.load(native.LIBRARY, tmp_path) is None
    assert "not of this version" in caplog.text


# What changes in C while its mirror in native_args.py does not: the file, and each text with what takes its place
DRIFTS = {
    "a field more": ("gemv.c", {"int64_t count, outputs, inputs;": "int64_t count, outputs, inputs, added;"}),
    "a wider field": ("attention.c", {"float epsilon;": "double epsilon;"}),
    "another order": (
        "prefill_attention.c",
        {"const uint16_t *keys, *values;": "const uint16_t *values, *keys;"},
    ),
}


@needs_compiler
@pytest.mark.skipif(not shutil.which("cc"), reason="layouts of structs: no C compiler")
@pytest.mark.parametrize("drift", DRIFTS)
def test_a_library_with_another_layout_of_a_struct_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, drift: str
) -> None:
    sources, library = tmp_path / "csrc", tmp_path / "libkernels.so"
    shutil.copytree(native.CSRC, sources, ignore=shutil.ignore_patterns("*.so"))
    name, changes = DRIFTS[drift]
    text = (sources / name).read_text()
    for before, after in changes.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    (sources / name).write_text(text)
    subprocess.run(["bash", sources / "compile.sh", sys.executable, sources, library, "-O0"], check=True)
    with caplog.at_level(logging.WARNING):
        assert native.load(library, sources) is None
    assert "another layout in C" in caplog.text


@needs_compiler
def test_limits_are_read_from_the_library(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert native.limits.keys() == set(LIMITS)
    assert all(limit > 0 for limit in native.limits.values())
    monkeypatch.setattr(native, "LIMITS", [*LIMITS, "no_such_limit"])
    with caplog.at_level(logging.WARNING):
        assert native.load(native.LIBRARY) is None
    assert "no_such_limit" in caplog.text


def test_every_struct_that_a_kernel_takes_has_its_layout_checked() -> None:
    sources = "".join(file.read_text() for file in native.CSRC.glob("*.c"))
    taken = set(re.findall(r"(?m)^void \w+\(const (\w+) \*args\)", sources))
    assert taken == {struct.__name__ for struct in LAYOUTS.values()}


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="the library: no gcc on this machine")
def test_with_gcc_the_library_is_compiled() -> None:
    """Else the tests that are skipped without it would count as passed."""
    assert native.library is not None


@needs_compiler
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the library: needs /proc")
def test_the_best_instruction_set_of_the_processor_is_selected() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert ctypes.c_int.in_dll(native.library, "instruction_set").value == ({"avx2", "fma"} <= flags)


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="the library: needs /proc")
def test_it_shares_torchs_openmp() -> None:
    """The threads of a second OpenMP would spin beside torch's."""
    program = "import backend.engine.ops.native; print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "libkernels.so" in maps
    assert len({line.split()[-1] for line in maps.splitlines() if re.search("lib(gomp|i?omp)", line)}) == 1
