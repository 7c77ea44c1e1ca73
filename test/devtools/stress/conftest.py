"""The short form of the trials."""

from __future__ import annotations

import pytest

from devtools.stress.form import Form


@pytest.fixture(scope="session")
def form() -> Form:
    """Seconds instead of minutes, and no goal of absolute time is asserted: a busy machine breaks those."""
    return Form(load_s=3.0, streams=4, overload_s=2.0, cancels=2, requests=600, is_quiet=True)
