"""Which recordings a command transcribes, and where each result goes."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from devtools.transcribe.formats import FORMATS, SUFFIXES

# A folder may hold anything: only files with these names are taken from it. A file that is named is always taken.
SOUND_SUFFIXES = frozenset(
    ".3gp .aac .ac3 .aif .aiff .amr .ape .au .avi .caf .flac .flv .m2ts .m4a .m4b .m4v .mka .mkv .mov .mp2 .mp3 .mp4"
    " .mpg .mts .mxf .oga .ogg .ogv .opus .ts .wav .weba .webm .wma .wmv".split()
)


class BadArgument(Exception):
    """The message names the variable."""


@dataclass(frozen=True)
class Job:
    """A recording, and the file of its result; None: the terminal."""

    audio: Path
    out: Path | None


def jobs(audio: str, out: str, name: str) -> list[Job]:
    """What `audio`, a file, a folder or several of them, and `out`, a file, a folder or "", ask for.

    `name`: the format. Several recordings without `out`: each result lies beside its recording. Raises BadArgument.
    """
    found = _recordings(audio)
    if not out and len(found) == 1 and Path(audio).is_file():
        return [Job(found[0], None)]
    is_folder = out.endswith(os.sep) or Path(out).is_dir() or len(found) > 1 or Path(audio).is_dir()
    if not is_folder:
        return [Job(found[0], _checked(Path(out).resolve(), found))]
    if out and Path(out).exists() and not Path(out).is_dir():
        raise BadArgument(f"OUT: {out} is a file, and there are {len(found)} recordings; name a folder")
    suffix = SUFFIXES.get(name, name)
    folders = [Path(out).resolve() if out else path.parent for path in found]
    by_stem = [folder / f"{path.stem}.{suffix}" for folder, path in zip(folders, found, strict=True)]
    is_taken = {target for target, count in Counter([*by_stem, *found]).items() if count > 1}  # a.wav beside a.mp3
    targets = [
        folder / f"{path.name}.{suffix}" if target in is_taken else target
        for folder, path, target in zip(folders, found, by_stem, strict=True)
    ]
    twice = [target.name for target, count in Counter(targets).items() if count > 1]
    if twice:
        raise BadArgument(f"AUDIO: two recordings would write {twice[0]}; transcribe their folders one by one")
    _check_overwrites(targets, found)
    return [Job(path, target) for path, target in zip(found, targets, strict=True)]


def format_of(name: str, out: str, *, is_terminal: bool) -> str:
    """The format's name: the one asked for, or that of the suffix of `out`, or one for eyes on a terminal, or JSON.

    Raises BadArgument.
    """
    if name:
        return _known_format(name)
    suffix = Path(out).suffix.removeprefix(".").lower()
    if suffix and not out.endswith(os.sep) and not Path(out).is_dir():
        if suffix not in FORMATS:
            raise BadArgument(
                f"OUT: .{suffix} is no format; add FORMAT=..., or end it in .srt, .vtt, .lrc, .txt or .json, or in /"
                " for a folder"
            )
        return "verbose_json" if suffix == "json" else suffix
    return "timed" if is_terminal and not out else "verbose_json"


def write(target: Path, text: str) -> None:
    """The file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{target.name[:64]}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(unfinished).chmod(0o666 & ~umask)
        Path(unfinished).replace(target)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def existing(audio: str) -> str:
    """The absolute path of one recording. Raises BadArgument."""
    path = Path(audio)
    if path.is_dir():
        raise BadArgument(f"AUDIO: {audio} is a folder, not a recording")
    if not path.is_file():
        raise BadArgument(f"AUDIO: there is no file {audio}")
    return str(path.resolve())


def _recordings(audio: str) -> list[Path]:
    if not audio.strip():
        raise BadArgument("AUDIO: it is empty; name a recording, or a folder of them")
    found: list[Path] = []
    for name in _names(audio):
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SOUND_SUFFIXES and p.is_file())
            if not inside:
                raise BadArgument(f"AUDIO: the folder {name} holds no recording (by the names: .wav, .mp3, .mp4, ...)")
            found += [p.resolve() for p in inside]
        else:
            found.append(Path(existing(name)))
    return list(dict.fromkeys(found))


def _names(audio: str) -> Sequence[str]:
    """One path, spaces and all, if it exists; else the words of a shell."""
    if Path(audio).exists() or not audio.strip():
        return [audio]
    try:
        names = shlex.split(audio)
    except ValueError:  # an apostrophe
        return [audio]
    return names if len(names) > 1 else [audio]


def _known_format(name: str) -> str:
    if name.lower() in FORMATS:
        return name.lower()
    near = [known for known in FORMATS if name.lower() in known] or get_close_matches(name.lower(), FORMATS, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise BadArgument(f"FORMAT: {name} is none of {', '.join(FORMATS)}{meant}")


def _checked(target: Path, recordings: Sequence[Path]) -> Path:
    if not target.suffix and not target.exists():
        raise BadArgument(f"OUT: {target.name} has no suffix; write {target.name}/ for a folder, or name a file")
    if not target.parent.is_dir():
        raise BadArgument(f"OUT: there is no folder {target.parent}")
    if target.suffix.lower() in SOUND_SUFFIXES:
        raise BadArgument(f"OUT: {target.name} is a recording by its name; name a file such as {target.stem}.srt")
    _check_overwrites([target], recordings)
    return target


def _check_overwrites(targets: Iterable[Path], recordings: Sequence[Path]) -> None:
    """Raises BadArgument if a result would replace a recording, by whatever name, or a device."""
    for target in targets:
        if target.exists() and not target.is_file():
            raise BadArgument(f"OUT: {target} is no regular file; without OUT one result goes to the terminal")
        if target.exists() and any(target.samefile(recording) for recording in recordings):
            raise BadArgument(f"OUT: {target} is a recording of AUDIO, which the result would replace")
