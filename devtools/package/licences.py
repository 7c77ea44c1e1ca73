"""Licences of what a package holds: files of the distributions, and a table of all parts.

Wheels bring shared libraries along whose licences they rarely state; _LIBRARIES knows those of the libraries that the
pinned wheels have. Whoever hands a package on must keep to them: libx264 and libx265 in PyAV's wheel are under the GPL.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from devtools.package.distributions import files_of

_LICENCE_FILE = re.compile(r"(?i)(un)?licen[cs]e|copying|notice|authors")
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(.+)")
_LIBRARY = re.compile(r"(lib[\w+-]+?)(?:-[0-9a-f]{8})*\.so[.\d]*")
_UNKNOWN = "not stated"
_GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"
_GPL_OR_LGPL = "LGPL-3.0-or-later OR GPL-2.0-or-later"
_LIBRARIES = {
    "libavcodec": "LGPL-3.0-or-later", "libavdevice": "LGPL-3.0-or-later", "libavfilter": "LGPL-3.0-or-later",
    "libavformat": "LGPL-3.0-or-later", "libavutil": "LGPL-3.0-or-later", "libswresample": "LGPL-3.0-or-later",
    "libswscale": "LGPL-3.0-or-later", "libx264": "GPL-2.0-or-later", "libx265": "GPL-2.0-or-later",
    "libSvtAv1Enc": "BSD-3-Clause-Clear", "libXau": "MIT", "libxcb": "MIT", "libasound": "LGPL-2.1-or-later",
    "libdav1d": "BSD-2-Clause", "libdrm": "MIT", "libgmp": _GPL_OR_LGPL, "libgnutls": "LGPL-2.1-or-later",
    "libhogweed": _GPL_OR_LGPL, "libnettle": _GPL_OR_LGPL, "libmp3lame": "LGPL-2.0-or-later",
    "libopencore": "Apache-2.0", "libopus": "BSD-3-Clause", "libsharpyuv": "BSD-3-Clause", "libwebp": "BSD-3-Clause",
    "libunistring": _GPL_OR_LGPL, "libvpl": "MIT", "libvpx": "BSD-3-Clause", "libgfortran": _GCC, "libgomp": _GCC,
    "libquadmath": "LGPL-2.1-or-later", "libscipy": "BSD-3-Clause", "libdynet": "Apache-2.0",
    "libsndfile": "LGPL-2.1-or-later",
}  # fmt: skip


def field(found: Distribution, name: str) -> str:
    """A field of the metadata; "" where they have none of that name."""
    return found.metadata[name].strip() if name in found.metadata else ""


def licence_of(found: Distribution) -> str:
    """What the metadata say: an SPDX expression, a name or "not stated". One line."""
    if expression := field(found, "License-Expression"):
        return expression
    stated = field(found, "License")
    if stated and "\n" not in stated and len(stated) < 80:
        return stated
    matches = (_CLASSIFIER.fullmatch(line) for line in found.metadata.get_all("Classifier") or ())
    return " AND ".join(match[1] for match in matches if match) or _UNKNOWN


def libraries_of(found: Distribution) -> dict[str, str]:
    """Shared libraries that a wheel brings along, as file names, each with its licence."""
    libraries = {}
    for path in files_of(found):
        match = _LIBRARY.fullmatch(path.name)
        if match and (path.parts[0].endswith(".libs") or match[1].partition("_")[0] in _LIBRARIES):
            libraries[path.name] = _library_licence(match[1])
    return libraries


def _library_licence(name: str) -> str:
    """By the longest known beginning: libopencore-amrnb is libopencore's."""
    known = [prefix for prefix in _LIBRARIES if name.startswith(prefix)]
    return _LIBRARIES[max(known, key=len)] if known else _UNKNOWN


def write_licences(
    folder: Path, site: Path, needed: Sequence[Distribution], others: Sequence[tuple[str, str, Path]]
) -> None:
    """`folder` gets a folder for each distribution and a table, README.txt.

    `others`: what is no distribution, as its name, its licence and the file with the licence's text.
    """
    rows = [(name, licence) for name, licence, _ in others]
    for name, licence, text in others:
        if text.is_file():
            _copy(text, folder / name / text.name)
        else:
            _state(folder / name, f"No file with its licence was found where it was built. It is under {licence}.\n")
    for found in needed:
        name = f"{found.metadata['Name']}-{found.version}"
        rows.append((name, licence_of(found)))
        rows += [(f"  {library}", licence) for library, licence in sorted(libraries_of(found).items())]
        files = [path for path in files_of(found) if _LICENCE_FILE.match(path.name) and path.suffix != ".py"]
        for path in files:
            _copy(site / path, folder / name / _short(path))
        if not files:
            _state(folder / name, f"The wheel has no licence file. Its metadata say: {licence_of(found)}\n")
    width = max(len(name) for name, _ in rows)
    table = "".join(f"{name:{width}}  {licence}\n" for name, licence in rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(table, encoding="utf-8")


def _short(path: PurePosixPath) -> PurePosixPath:
    """A licence's path within its distribution, without the folders that all of them have."""
    parts = path.parts[1:] if path.parts[0].endswith(".dist-info") else path.parts
    return PurePosixPath(*(parts[1:] if len(parts) > 1 and parts[0] == "licenses" else parts))


def _state(folder: Path, statement: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "STATEMENT.txt").write_text(statement, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
