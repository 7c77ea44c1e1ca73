"""The stress tests run with the profile of `make soak` or `make fuzz`, or else with the short one."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from devtools.stress.client import RUN, Server
from devtools.stress.profile import SHORT, Profile
from devtools.stress.results import Results, Run


def run_of(config: pytest.Config) -> Run | None:
    """Of the command; None in the short form."""
    return next((plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, Run)), None)


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(pytestconfig) or Run(SHORT, tmp_path_factory.mktemp("stress") / "results.json")


@pytest.fixture(scope="session")
def profile(run: Run) -> Profile:
    return run.profile


@pytest.fixture
def results() -> Results:
    return Results()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Like tmp_path, but deleted at once: recordings take gigabytes."""
    with tempfile.TemporaryDirectory(prefix="stress-") as name:
        yield Path(name)


@pytest.fixture
def demo_server() -> Iterator[Server]:
    """run.sh with the demo checkpoints."""
    with Server(RUN) as server:
        server.load_demo()
        yield server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the tests that take too long for the short form."""
    if run_of(config) is None:
        items[:] = [item for item in items if not any(mark.kwargs.get("is_long") for mark in item.iter_markers("soak"))]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A missed goal fails the short form, except goals of seconds: a busy machine misses those."""
    command, found = run_of(pyfuncitem.config), pyfuncitem.funcargs.get("results")
    rows = found.rows if isinstance(found, Results) else []
    try:
        value = yield
    finally:
        for row in rows:
            print(f"{row.measure}: {row.what}: {row.measured} {row.goal} {row.note}")
        if command:
            command.rows += rows
    assert command or not [row for row in rows if row.is_met is False and not row.is_timed]
    return value
