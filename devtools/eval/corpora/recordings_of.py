"""What MANIFEST names, in any of the forms that are known; and some of it, where that is enough."""

from __future__ import annotations

from pathlib import Path

from devtools.eval import manifest
from devtools.eval.corpora.aishell import is_aishell, read_aishell
from devtools.eval.corpora.common_voice import is_common_voice, read_common_voice
from devtools.eval.manifest import Entry, ManifestError


def recordings_of(path: Path, *, split: str = "test", language: str = "", limit: int | None = None) -> list[Entry]:
    """The entries, at least one. `limit`: at most so many, evenly spread over the list. Raises ManifestError."""
    entries = _all(path, split, language)
    if limit is None or limit >= len(entries):
        return entries
    return [entries[number * len(entries) // limit] for number in range(limit)]


def _all(path: Path, split: str, language: str) -> list[Entry]:
    lines = manifest.lines_of(path)
    first = lines[0] if lines else ""
    if is_aishell(path, first):
        return read_aishell(path, lines, split)
    if is_common_voice(path, first):
        entries = read_common_voice(path, lines, language)
        if not entries:
            raise ManifestError(path, None, "it holds no recordings below its first line")
        return entries
    if path.suffix in (".tsv", ".txt") and not first.lstrip().startswith("{"):
        raise ManifestError(
            path,
            1,
            "this is none of JSON lines, Common Voice's TSV (path, sentence, ...), AISHELL-1's transcript",
        )
    return manifest.read(path)
