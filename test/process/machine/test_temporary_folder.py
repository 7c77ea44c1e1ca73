from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from backend.audio.decoding.protocol import new_store, write_samples
from backend.errors import EngineFailure
from backend.process.machine import temporary_folder


@pytest.fixture(autouse=True)
def no_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setattr(temporary_folder, "_MEMORY", "/proc")


def test_what_is_writable_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert temporary_folder.temporary_folder() == str(tmp_path)
    monkeypatch.delattr(os, "memfd_create")  # as where it is forbidden
    with new_store() as store:
        write_samples(store, np.ones(10, np.float32), 0)
        assert os.fstat(store).st_size == 40


def test_without_any_tmpdir_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(EngineFailure, match="set TMPDIR"), new_store():
        pytest.fail("nothing can be stored")
