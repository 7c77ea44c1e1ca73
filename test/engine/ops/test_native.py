"""Our library in C: which one is used, and where."""

from __future__ import annotations

import ctypes
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backend.engine.ops import native

needs_compiler = pytest.mark.skipif(native.library is None, reason="install.sh found no gcc")


def test_a_library_of_another_machine_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tmp_path / "libkernels.so"
    assert native._loaded(other) is None
    assert not caplog.text
    other.write_bytes(b"\x7fELF of another kind")
    with caplog.at_level(logging.WARNING):
        assert native._loaded(other) is None
    assert "remove it and run install.sh" in caplog.text


@needs_compiler
def test_a_library_that_is_older_than_its_source_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would take its arguments from other places."""
    for source in native._CSRC.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    assert native._loaded(native._LIBRARY, tmp_path) is not None
    newer = tmp_path / "bf16.h"
    newer.write_bytes(newer.read_bytes() + b"\n")
    with caplog.at_level(logging.WARNING):
        assert native._loaded(native._LIBRARY, tmp_path) is None
    assert "not of this version" in caplog.text


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc")
def test_where_there_is_gcc_it_is_compiled() -> None:
    """Else all that is skipped here would pass for tested."""
    assert native.library is not None


@needs_compiler
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc")
def test_what_the_processor_can_is_used() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert ctypes.c_int.in_dll(native.library, "version").value == ({"avx2", "fma"} <= flags)


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_it_computes_in_torchs_threads() -> None:
    """A second OpenMP's would spin beside them."""
    program = "import backend.engine.ops.native; print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "libkernels.so" in maps
    assert len({line.split()[-1] for line in maps.splitlines() if re.search("lib(gomp|i?omp)", line)}) == 1
