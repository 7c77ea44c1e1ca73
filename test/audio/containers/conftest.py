"""Decoding of bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.audio.decoding.decode import decode
from backend.audio.waveform import Decoded


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., Decoded]:
    """`decoded(content, attempt=0)`: the recording in a file with that content."""

    def decode_bytes(content: bytes, attempt: int = 0) -> Decoded:
        path = tmp_path / "upload"
        path.write_bytes(content)
        return decode(str(path), max_seconds=600, attempt=attempt)

    return decode_bytes
