"""Which sound track of a file is decoded: the container's default, then the others in their order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from written_files import Sound, encoded, plain, words

from backend.audio.decoding import causes, ffmpeg
from backend.audio.decoding.decode import decode
from backend.errors import UndecodableAudio

WORDS = words(3.0)
TRACKS: list[Sound] = [WORDS * 0, WORDS / 2, WORDS / 4]
ALL = [("matroska", "aac"), ("webm", "libopus"), ("mp4", "aac"), ("mov", "pcm_s16le"), ("mpegts", "aac"),
       ("avi", "mp2"), ("ogg", "flac"), ("asf", "wmav2"), ("mpeg", "mp2")]  # fmt: skip
NAME_A_DEFAULT = [("matroska", "aac"), ("webm", "libopus"), ("mp4", "aac"), ("mov", "pcm_s16le")]


def loudness(path: Path, attempt: int = 0) -> tuple[int, int, int, float]:
    found = decode(str(path), max_seconds=60, attempt=attempt)
    return found.tracks, found.track, found.attempt, float(np.abs(found.samples).mean() / np.abs(WORDS).mean())


@pytest.mark.parametrize(("container", "codec"), ALL)
def test_without_a_default_tracks_are_tried_in_their_order(tmp_path, container: str, codec: str) -> None:
    path = tmp_path / "film"
    path.write_bytes(encoded(container, TRACKS, codec))
    for attempt, level in enumerate((0, 0.5, 0.25)):
        assert loudness(path, attempt) == (3, attempt + 1, attempt, pytest.approx(level, abs=0.05))
    with pytest.raises(UndecodableAudio, match=causes.NO_SOUND_TRACK):
        loudness(path, 3)


@pytest.mark.parametrize(("container", "codec"), NAME_A_DEFAULT)
def test_the_containers_default_comes_first(tmp_path, container: str, codec: str) -> None:
    path = tmp_path / "film"
    path.write_bytes(encoded(container, TRACKS, codec, default=1))
    assert loudness(path) == (3, 2, 0, pytest.approx(0.5, abs=0.05))
    assert loudness(path, 1) == (3, 1, 1, pytest.approx(0, abs=0.05))
    assert loudness(path, 2) == (3, 3, 2, pytest.approx(0.25, abs=0.05))


def test_a_track_without_a_sample_is_passed_over(tmp_path) -> None:
    path = tmp_path / "film"
    path.write_bytes(encoded("matroska", [WORDS[:0], WORDS, WORDS], "pcm_s16le"))
    assert loudness(path) == (3, 2, 1, pytest.approx(1, abs=0.05))


def test_one_track_is_opened_once(tmp_path, monkeypatch) -> None:
    opened: list[object] = []
    original = ffmpeg._opened

    def counted(fd, part):
        opened.append(part)
        return original(fd, part)

    monkeypatch.setattr(ffmpeg, "_opened", counted)
    path = tmp_path / "sound"
    path.write_bytes(encoded("ipod", [WORDS]))
    assert loudness(path) == (1, 1, 0, pytest.approx(1, abs=0.05))
    assert len(opened) == 1
    path.write_bytes(plain(WORDS))
    assert loudness(path) == (1, 1, 0, pytest.approx(1, abs=0.05))
    assert len(opened) == 1


def test_no_more_than_eight_tracks_are_tried() -> None:
    def track(index: int) -> SimpleNamespace:
        return SimpleNamespace(index=index, codec_context=SimpleNamespace(name="aac"), disposition=index == 11)

    media: Any = SimpleNamespace(streams=SimpleNamespace(audio=[track(index) for index in range(40)]))
    assert [each.index for each in ffmpeg._tracks_in_order(media)] == [11, 0, 1, 2, 3, 4, 5, 6]
