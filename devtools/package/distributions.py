"""Which of the installed distributions the backend needs at run time, and which of their files.

The roots are what the requirement files name; the rest follows from the metadata of what is installed. So a package
made from an environment with the tools for tests holds none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

# Folders of wheels that nothing imports at run time: tests, and headers for compilers. torch's take 200 MB.
_LEFT_OUT = {"tests", "test", "include", "__pycache__"}
_LEFT_OUT_OF_DIST_INFO = {"INSTALLER", "REQUESTED", "direct_url.json"}  # how this environment was made
_PROGRAMS = PurePosixPath("torch/bin")  # tests of torch's own, but for one
_NEEDED_PROGRAM = "torch_shm_manager"


class NotInstalled(Exception):
    """A requirement is not in this environment; the message names it."""


def required(root: Path, site: Path) -> list[Distribution]:
    """The distributions in `site` that a run of the backend in `root` needs, by name. Raises NotInstalled."""
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions(path=[str(site)])}
    needed = with_dependencies([Requirement("torch"), *requirements_in(root / "requirements.txt")], installed)
    for requirement in requirements_in(root / "requirements-after.txt"):  # those come without their dependencies
        name = canonicalize_name(requirement.name)
        needed[name] = _the_installed(requirement, installed)
    return [needed[name] for name in sorted(needed)]


def with_dependencies(
    roots: Iterable[Requirement], installed: Mapping[NormalizedName, Distribution]
) -> dict[NormalizedName, Distribution]:
    """What `roots` need, themselves included, for this Python on this machine. Raises NotInstalled."""
    waiting = list(roots)
    needed: dict[NormalizedName, Distribution] = {}
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key not in seen:
            seen.add(key)
            needed[name] = _the_installed(requirement, installed)
            waiting += _dependencies(needed[name], requirement.extras)
    return needed


def _the_installed(requirement: Requirement, installed: Mapping[NormalizedName, Distribution]) -> Distribution:
    found = installed.get(canonicalize_name(requirement.name))
    if found is None:
        raise NotInstalled(f"{requirement.name} is not installed; run `make install`")
    return found


def requirements_in(path: Path) -> list[Requirement]:
    """The requirements of a file, without options and comments."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def _dependencies(found: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            yield requirement


def dependencies_of(found: Distribution) -> list[NormalizedName]:
    """The canonical names of what a distribution needs here, without extras; each once."""
    return sorted({canonicalize_name(requirement.name) for requirement in _dependencies(found, ())})


@cache  # parsing torch's list takes half a second
def files_of(found: Distribution) -> tuple[PurePosixPath, ...]:
    """The files of a distribution that belong into a package, relative to its folder of packages."""
    return tuple(_files_of(found))


def _files_of(found: Distribution) -> Iterator[PurePosixPath]:
    for file in found.files or ():
        path = PurePosixPath(file.as_posix())
        if path.parts[0] == ".." or path.is_absolute():  # scripts, which name an interpreter by its path
            continue
        in_dist_info = path.parts[0].endswith(".dist-info")
        if in_dist_info and path.name in _LEFT_OUT_OF_DIST_INFO:
            continue
        if path.suffix == ".pyc" or (not in_dist_info and _LEFT_OUT & set(path.parts[:-1])):
            continue
        if path.is_relative_to(_PROGRAMS) and path.name != _NEEDED_PROGRAM:
            continue
        yield path
