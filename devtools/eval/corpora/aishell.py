"""AISHELL-1: `transcript/aishell_transcript_v0.8.txt`, a line for each recording, and `wav/SPLIT/SPEAKER/ID.wav`.

    BAC009S0764W0121 甚至 出现 交易 几乎 停滞 的 情况

The file has the lines of all three splits, so one has to be chosen. The corpus has some recordings without a line:
they are left out, as everybody who quotes a figure for it does.
"""

from __future__ import annotations

import re
from pathlib import Path

from devtools.eval.manifest import Entry, ManifestError

SPLITS = ("train", "dev", "test")
_ID = re.compile(r"\w+S\d{4}W\d{4}(?!\S)")
_BETWEEN_HAN = re.compile(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])")


def is_aishell(path: Path, first_line: str) -> bool:
    """Whether a list is a transcript file of this corpus."""
    return path.suffix == ".txt" and _ID.match(first_line) is not None


def read_aishell(path: Path, lines: list[str], split: str) -> list[Entry]:
    """The split's recordings in the file's order. Raises ManifestError."""
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        if not text.strip():
            raise ManifestError(path, number, f'"{name}" has no text; a line is the id, a space, the words')
        if name in texts:
            raise ManifestError(path, number, f'"{name}" is there already')
        texts[name] = _BETWEEN_HAN.sub("", text.strip())
    folder = path.parent.parent / "wav" / split
    if not folder.is_dir():
        there = [each for each in SPLITS if (folder.parent / each).is_dir()]
        remedy = (
            f"SPLIT may be {', '.join(there)}" if there else "keep the corpus's folders wav and transcript together"
        )
        raise ManifestError(path, None, f"there is no folder {folder}; {remedy}")
    sounds = {sound.stem: sound for sound in sorted(folder.rglob("*.wav"))}
    found = [Entry(name, sounds[name].resolve(), text, "zh") for name, text in texts.items() if name in sounds]
    if not found:
        packed = any(folder.parent.rglob("*.tar.gz"))
        remedy = "unpack the .tar.gz of each speaker in wav first" if packed else "are they of the same corpus?"
        raise ManifestError(path, None, f"no line has a recording in {folder}; {remedy}")
    return found
