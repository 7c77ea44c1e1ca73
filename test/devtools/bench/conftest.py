"""Checkpoints that know a text by heart, small ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.bench import checkpoints
from devtools.bench.shapes import SHAPES


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the checkpoints."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def saying_12(made: Path) -> Path:
    return checkpoints.make(SHAPES["tiny"], 12, made)


@pytest.fixture(scope="session")
def saying_90(made: Path) -> Path:
    return checkpoints.make(SHAPES["tiny"], 90, made)
