"""Pools of a test's own, and files at which a hostile decoder process does harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.audio.decoding.pool import DecoderPool


@pytest.fixture
def make(monkeypatch) -> Iterator[Callable[..., DecoderPool]]:
    """`make(command, max_processes)`: a DecoderPool of the test's own, closed at the end."""
    made: list[DecoderPool] = []

    def make_one(*arguments, **named) -> DecoderPool:
        made.append(DecoderPool(*arguments, **named))
        return made[-1]

    yield make_one
    for decoder_pool in made:
        decoder_pool.close()


@pytest.fixture
def golden(recordings: Path) -> Path:
    return recordings / "demo.wav"


@pytest.fixture
def hostile_file(tmp_path: Path) -> Callable[[str], str]:
    """`hostile_file(action)`: a file at which a hostile process does that."""

    def make_one(action: str) -> str:
        path = tmp_path / f"upload-name-{action}.wav"
        path.write_text(action)
        return str(path)

    return make_one
