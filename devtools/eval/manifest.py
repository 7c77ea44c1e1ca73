"""The manifest: JSON lines, one recording each, with its reference.

    {"audio": "talk.mp3", "text": "Hello world.", "language": "en", "words": [["Hello", 0.2, 0.6], ["world", 0.7, 1.1]]}

`audio` is a path, relative to the manifest. `text` and `language` are empty where there is no speech. `words` (start
and end in seconds) and `id` (default: the path without its suffix) are optional. Whatever is wrong is an error that
names the line and the remedy; no line is skipped.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.audio.decoding.decode import decode
from backend.errors import UnsupportedLanguage
from backend.languages import NAMES, code_of
from devtools.eval.hypotheses import Word
from devtools.eval.normalization import UNSPACED, plain
from devtools.server_process import ROOT
from devtools.unread_text import unread

DEMO_SET = ROOT / "test/audio/manifest.jsonl"
KEYS = ("audio", "text", "language", "words", "id")
LONGEST_S = 6 * 3600.0


class ManifestError(Exception):
    """The manifest cannot be used; the message says which line, why, and what to do."""

    def __init__(self, path: Path, line: int | None, problem: object) -> None:
        super().__init__(f"MANIFEST: {path}{f', line {line}' if line else ''}: {problem}")


@dataclass(frozen=True)
class Entry:
    """A recording and its reference. `language` is a code, "" without speech; no `words`: their times are unknown."""

    id: str
    audio: Path
    text: str
    language: str
    words: tuple[Word, ...] = ()

    @property
    def is_speech(self) -> bool:
        return bool(plain(self.text))

    @property
    def is_spaced(self) -> bool:
        return self.language not in UNSPACED

    def samples(self) -> NDArray[np.float32]:
        """(n,) mono at 16 kHz. Raises UndecodableAudio."""
        return decode(str(self.audio), max_seconds=LONGEST_S).samples


def lines_of(path: Path) -> list[str]:
    """The lines of a list, without a byte order mark. Raises ManifestError."""
    try:
        # not splitlines: a sentence may hold other characters that it takes for an end of line
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(path, None, f"{unread(path, error)}; give a file of JSON lines") from error


def read(path: Path) -> list[Entry]:
    """The entries in their order, at least one, with unique ids. Raises ManifestError."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines_of(path), 1):
        try:
            if line.strip():
                entry = _entry(line, path.parent)
                remedy = 'give each recording an "id" of its own'
                _check(entry.id not in entries, f'the id "{entry.id}" is there already; {remedy}')
                entries[entry.id] = entry
        except ValueError as error:
            raise ManifestError(path, number, error) from error
    if not entries:
        raise ManifestError(path, None, "it holds no recordings; write one JSON object on each line")
    return list(entries.values())


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _entry(line: str, folder: Path) -> Entry:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON ({error.msg} at column {error.colno})") from error
    _check(isinstance(fields, dict), "a line must be a JSON object")
    for key in fields:
        _check(key in KEYS, f'the key "{key}" is not known; known keys: {", ".join(KEYS)}')
    for key in ("audio", "text", "language", *(("id",) if "id" in fields else ())):
        _check(isinstance(fields.get(key), str), f'"{key}" must be there and be a string')
        _check(bool(fields[key]) or key not in ("audio", "id"), f'"{key}" must not be empty')
    audio = (folder / fields["audio"]).resolve()
    _check(not audio.is_dir(), f'{audio} is a folder; "audio" names one recording')
    _check(audio.is_file(), f'there is no file {audio}; "audio" counts from the manifest\'s folder')
    entry_id = fields.get("id", Path(fields["audio"]).with_suffix("").as_posix())
    entry = Entry(entry_id, audio, fields["text"], _language(fields["language"]), _words(fields.get("words", [])))
    _check(
        bool(entry.language) == entry.is_speech,
        '"text" and "language" must both be given, or both be empty where nobody speaks',
    )
    return entry


def _language(name: str) -> str:
    try:
        return code_of(name) or ""
    except UnsupportedLanguage as error:
        raise ValueError(f'"language" must be one of {", ".join(NAMES)}, or empty where nobody speaks') from error


def _words(value: Any) -> tuple[Word, ...]:
    _check(isinstance(value, list), '"words" must be a list of [text, start in seconds, end in seconds]')
    words = tuple(map(_word, value))
    for earlier, later in itertools.pairwise(words):
        in_order = later.start_s >= earlier.start_s
        _check(in_order, f'"words" must be in order of their starts; "{later.text}" is not')
    return words


def _word(item: Any) -> Word:
    match item:
        case [str(text), int() | float() as start, int() | float() as end] if bool not in (type(start), type(end)):
            if 0 <= start <= end < math.inf:
                return Word(text, float(start), float(end))
    raise ValueError(f'"words": {json.dumps(item, ensure_ascii=False)} is not [text, start, end] with 0 ≤ start ≤ end')
