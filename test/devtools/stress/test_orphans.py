from __future__ import annotations

import sys

import pytest

from devtools.stress.endings import moments, outlived_s


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_backend_outlives_its_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_BACKEND_PARENT_WATCH_INTERVAL", "100ms")
    assert max(outlived_s(kills=3)) < 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_does_outlive_it_is_seen() -> None:
    lived = outlived_s(kills=1, command=("bash", "-c", "sleep 60"), timeout_s=0.5)
    assert lived == [float("inf")]


def test_the_moments_reach_from_the_first_to_the_imports() -> None:
    chosen = moments(30)
    assert min(chosen)[0] < 0.005
    assert sum(asked for _, asked in chosen) == 10
    assert chosen == moments(30)
