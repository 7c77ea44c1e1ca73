"""The commit of a hub repository whose config.json was inspected is the one that is built, also after a failed load."""

from __future__ import annotations

import pytest

from backend.checkpoint.find import Checkpoint
from backend.engine import loader
from backend.engine.loader import CheckpointLoader
from backend.errors import CheckpointRefused
from backend.options.load_options import LoadOptions


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The revisions that were built; nothing is really loaded. Each inspection finds a newer commit."""
    commits = (f"commit {number}" for number in range(1, 100))
    revisions: list[str] = []

    def build(checkpoint: Checkpoint, _placement: object) -> None:
        revisions.append(checkpoint.revision)
        raise CheckpointRefused("for the test")

    monkeypatch.setattr(loader, "build_model", build)
    monkeypatch.setattr(loader, "inspect", lambda found, _kind: Checkpoint(found.name, False, next(commits)))
    return revisions


def test_what_was_inspected_is_built_and_the_old_commit_comes_back(built: list[str]) -> None:
    real = CheckpointLoader()
    old, new, newer = (LoadOptions(model="Qwen/Demo", device="cpu", max_new_tokens=n) for n in (1, 2, 3))
    for options, is_inspected in ((old, True), (new, True), (old, False), (newer, True), (old, False)):
        if is_inspected:
            real.inspect(options)
        with pytest.raises(CheckpointRefused):
            real.load_recognizer(options)
    assert built == ["commit 1", "commit 2", "commit 1", "commit 3", "commit 1"]


def test_the_aligners_commit_is_inspected_and_built(built: list[str]) -> None:
    with pytest.raises(CheckpointRefused):
        CheckpointLoader().load_aligner(LoadOptions(model="m", forced_aligner="Qwen/Aligner", device="cpu"))
    assert built == ["commit 1"]
