"""The short profile: seconds instead of minutes."""

from __future__ import annotations

import pytest

from devtools.stress.profile import SHORT
from devtools.stress.results import Run, folder, profile, results

__all__ = ["folder", "profile", "results"]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(SHORT, tmp_path_factory.mktemp("stress") / "results.json")
