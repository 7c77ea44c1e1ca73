"""Common Voice: `LOCALE/test.tsv` (or dev, train, validated) beside the folder `clips`.

The columns `path` and `sentence` are read by their names, `locale` if it is there; every version of the corpus has
them. Quotation marks are part of a sentence, not of the file's format.
"""

from __future__ import annotations

from pathlib import Path

from backend.errors import UnsupportedLanguage
from backend.languages import NAMES, code_of
from devtools.eval.manifest import Entry, ManifestError
from devtools.eval.normalization import plain

_COLUMNS = ("path", "sentence")
_LOCALES = {"zh-hk": "yue"}  # Common Voice files Cantonese of Hong Kong as a kind of Chinese


def is_common_voice(path: Path, first_line: str) -> bool:
    """Whether a list is a TSV of this corpus."""
    return path.suffix == ".tsv" and set(_COLUMNS) <= set(first_line.split("\t"))


def read_common_voice(path: Path, lines: list[str], language: str) -> list[Entry]:
    """The recordings in the file's order. `language`: a code or name for all of them, "" to trust `locale`.

    Raises ManifestError.
    """
    head = lines[0].split("\t")
    found: dict[str, Entry] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(head):
            raise ManifestError(path, number, f"it has {len(cells)} columns, the first line has {len(head)}")
        row = dict(zip(head, cells, strict=True))
        audio, text = _audio(path, number, row["path"]), row["sentence"].strip()
        if not plain(text):
            raise ManifestError(path, number, '"sentence" is empty; remove the line')
        if audio.stem in found:
            raise ManifestError(path, number, f'"{row["path"]}" is there already')
        found[audio.stem] = Entry(audio.stem, audio, text, _language(path, number, row.get("locale", ""), language))
    return list(found.values())


def _audio(path: Path, number: int, name: str) -> Path:
    """The first versions leave the suffix out."""
    clips = path.parent / "clips"
    for spelling in (name, f"{name}.mp3"):
        if name and (clips / spelling).is_file():
            return (clips / spelling).resolve()
    raise ManifestError(path, number, f'there is no file {clips / name}; the folder "clips" belongs beside the list')


def _language(path: Path, number: int, locale: str, forced: str) -> str:
    """Without a column of its own, the folder is the locale, as in the corpus."""
    name = forced or locale or path.resolve().parent.name
    try:
        code = _LOCALES.get(name.lower()) or code_of(name)
    except UnsupportedLanguage:
        code = None
    if code is None:
        known = ", ".join(NAMES)
        raise ManifestError(path, number, f'the locale "{name}" is no language of the model; LANGUAGE may be {known}')
    return code
