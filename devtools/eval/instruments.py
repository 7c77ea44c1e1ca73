"""Recorded instruments through the detector: which of them it takes for speech.

`make eval-instruments`: fluidsynth plays General MIDI's instruments (a melody alone, and chords, at four levels) with a
sound font's recordings; Debian's packages fluidsynth and fluid-soundfont-gm (MIT) have both. None of it is speech, but
single winds and brass are near it: it is reported, without a goal. Sung vowels (choirs, voices) and the last eight
programs (birds, telephones, applause) are played too and counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.audio.vad import SpeechRules, detect
from backend.options.load_options import LoadOptions

SAMPLE_RATE = 16_000
FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
LEVELS = (0.9, 0.3, 0.03, 0.003)  # the highest sample
SUNG = {52: "choir aahs", 53: "voice oohs", 54: "synth voice", 85: "lead voice", 91: "choir pad"}  # counted from 0
EFFECTS = range(120, 128)
TICKS = 480  # of a quarter, half a second long
PIECES = ("melody", "chords")
# Pitches of the melody in semitones above the instrument's base, with lengths in quarters: 8 s, with two pauses
_MELODY = (
    (0, 1.0), (2, 0.5), (4, 0.5), (7, 1.5), (-1, 0.5), (5, 1.0), (4, 0.5), (2, 0.5), (0, 2.0), (-1, 0.5),
    (9, 1.0), (7, 0.5), (4, 0.5), (5, 1.0), (2, 1.0), (0, 3.5),
)  # fmt: skip
_REST = -1
_CHORDS = ((0, 4, 7), (-3, 0, 4), (-7, -3, 0), (-5, -1, 2))
_BASES = {range(32, 40): 36, range(40, 44): 55, range(56, 64): 53, range(64, 68): 53, range(68, 80): 65}


class Verdict(NamedTuple):
    program: int
    piece: str
    level: float
    speech_s: float
    highest: float  # likelihood of speech, 0 to 1


def midi(program: int, piece: str) -> bytes:
    """A MIDI file of one track: `program` (from 0) plays one of PIECES."""
    base = next((base for programs, base in _BASES.items() if program in programs), 60)
    events: list[tuple[int, bytes]] = [(0, bytes((0xC0, program)))]
    at = 0
    if piece == "melody":
        for semitones, quarters in _MELODY:
            length = round(quarters * TICKS)
            if semitones != _REST:
                events += _note(base + semitones, at, length)
            at += length
    else:
        for chord in _CHORDS:
            for semitones in chord:
                events += _note(base + semitones, at, 4 * TICKS)
            at += 4 * TICKS
    track, reached = b"", 0
    for tick, event in sorted(events, key=lambda pair: (pair[0], pair[1][0] != 0x80)):  # an end before the next begin
        track += _variable(tick - reached) + event
        reached = tick
    track += _variable(0) + b"\xff\x2f\x00"
    return b"MThd" + bytes((0, 0, 0, 6, 0, 0, 0, 1)) + TICKS.to_bytes(2) + b"MTrk" + len(track).to_bytes(4) + track


def _note(pitch: int, at: int, length: int) -> list[tuple[int, bytes]]:
    return [(at, bytes((0x90, pitch, 100))), (at + length, bytes((0x80, pitch, 0)))]


def _variable(value: int) -> bytes:
    """MIDI's number of seven bits a byte; all but the last have the eighth set."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.insert(0, value & 0x7F | 0x80)
    return bytes(groups)


def played(program: int, piece: str, font: Path) -> NDArray[np.float32]:
    """(n,) float32 mono at 16 kHz, its peak at 1. Raises CalledProcessError where fluidsynth fails."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        score.write_bytes(midi(program, piece))
        command = ["fluidsynth", "-ni", "-q", "-r", str(SAMPLE_RATE), "-F", str(sound), str(font), str(score)]
        subprocess.run(command, check=True, capture_output=True)
        samples, _ = soundfile.read(sound, dtype="float32")
    mono = samples.mean(axis=1)
    return np.asarray(mono / max(float(np.abs(mono).max()), 1e-9), np.float32)


def verdicts(font: Path, programs: range, load: LoadOptions) -> Iterator[Verdict]:
    """What the detector says of every program, piece and level, by the options' rules."""
    rules = SpeechRules.of(load)
    for program in programs:
        for piece in PIECES:
            samples = played(program, piece, font)
            for level in LEVELS:
                speech = asyncio.run(detect(samples * np.float32(level), rules))
                yield Verdict(
                    program, piece, level, speech.seconds(0, samples.size), float(speech.likelihood.max(initial=0.0))
                )


def is_instrument(program: int) -> bool:
    return program not in SUNG and program not in EFFECTS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, default=FONT)
    args = parser.parse_args()
    if shutil.which("fluidsynth") is None or not args.font.is_file():
        print(f"needs fluidsynth and {args.font}: apt-get install fluidsynth fluid-soundfont-gm", file=sys.stderr)
        return 2
    found = list(verdicts(args.font, range(128), LoadOptions(model="")))
    for verdict in found:
        if verdict.speech_s:
            apart = "" if is_instrument(verdict.program) else "   (counted apart)"
            print(
                f"program {verdict.program + 1:3} {verdict.piece:7} level {verdict.level:5} "
                f"{verdict.speech_s:5.2f} s of speech, likelihood {verdict.highest:.2f}{apart}"
            )
    for name, wanted in (("instruments", True), ("sung vowels and effects", False)):
        counted = [verdict for verdict in found if is_instrument(verdict.program) == wanted]
        print(f"{name}: speech in {sum(verdict.speech_s > 0 for verdict in counted)} of {len(counted)} sounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
