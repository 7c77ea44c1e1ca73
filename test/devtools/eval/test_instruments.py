"""The scores that fluidsynth plays, and what counts as an instrument."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.options.load_options import LoadOptions
from devtools.eval import instruments


def events(file: bytes) -> list[tuple[int, bytes]]:
    """(tick, event) of the track, by the format's own rules."""
    assert file[:14] == b"MThd\0\0\0\6\0\0\0\1" + instruments.TICKS.to_bytes(2)
    assert (file[14:18], int.from_bytes(file[18:22])) == (b"MTrk", len(file) - 22)
    found, at, place = [], 0, 22
    while place < len(file):
        delta = 0
        while True:
            byte = file[place]
            place += 1
            delta = delta << 7 | byte & 0x7F
            if byte < 0x80:
                break
        at += delta
        size = 2 if file[place] >> 4 == 0xC else 3
        found.append((at, file[place : place + size]))
        place += size
    return found


@pytest.mark.parametrize("piece", instruments.PIECES)
@pytest.mark.parametrize("program", [0, 33, 66, 127])
def test_a_score_names_its_instrument_and_ends_every_note_that_it_begins(piece: str, program: int) -> None:
    first, *notes, last = events(instruments.midi(program, piece))
    assert first == (0, bytes((0xC0, program)))
    assert last[1] == b"\xff\x2f\x00"
    sounding: set[int] = set()
    for tick, (kind, pitch, _) in notes:
        assert tick <= 16 * instruments.TICKS
        assert 0 < pitch < 128
        assert (kind == 0x90) != (pitch in sounding)
        sounding ^= {pitch}
    assert not sounding
    assert last[0] == 16 * instruments.TICKS  # 8 s


def test_sung_vowels_and_effects_are_no_instruments_and_a_saxophone_is_one() -> None:
    assert [program for program in range(128) if not instruments.is_instrument(program)] == [
        52,
        53,
        54,
        85,
        91,
        *range(120, 128),
    ]
    assert instruments.is_instrument(66)


def test_the_detector_judges_each_piece_at_each_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """fluidsynth is stood in for by a demo recording in stereo: speech at every level."""
    words, _ = soundfile.read(Path(__file__).parents[3] / "test/audio/demo.wav", dtype="float32", stop=3 * 16_000)

    def run(command: list[str], **_: object) -> None:
        assert Path(command[-1]).read_bytes().startswith(b"MThd")
        soundfile.write(command[command.index("-F") + 1], np.stack([words, words], axis=1), 16_000)

    monkeypatch.setattr(subprocess, "run", run)
    found = list(instruments.verdicts(Path("font.sf2"), range(66, 67), LoadOptions(model="")))
    assert [(v.program, v.piece, v.level) for v in found] == [
        (66, piece, level) for piece in instruments.PIECES for level in instruments.LEVELS
    ]
    assert all(v.speech_s > 1 and v.highest > 0.9 for v in found)
