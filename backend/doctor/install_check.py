"""The installation: Python, the environment's kind, the stubs, and the packages against the pins.

Nothing here knows a package by name: the pins are read from the requirement files that lie beside run.sh.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from backend.doctor.child_process import run
from backend.doctor.findings import REINSTALL, Finding, fail, ok, warn
from backend.doctor.places import ROOT

_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?\s*==\s*([^\s;#]+)\s*(;?)")
_REQUIRED = ("requirements.txt", "requirements-after.txt")
_TOOLS = re.compile(r"requirements-(dev|test|install|build|stubs)\b.*")  # not of the run time
_KIND = re.compile(
    r"requirements-(cpu|cuda|cublas|rocm|hipblas|intel|xpu|l4t|mps|metal)\w*(-after)?\.txt"
)  # one of them
_LEAST_PYTHON = (3, 11)
_STUBS = "backend.wire.backend_pb2_grpc"
_PIP_TIMEOUT_S = 30.0
_MOST_NAMED = 4  # differences that one line names


class Pin(NamedTuple):
    """A line `name==version` of a requirement file. `conditional`: it holds for some Pythons or platforms only."""

    file: str
    name: str
    version: str
    conditional: bool = False


@dataclass(frozen=True)
class InstallFacts:
    """`python_range`: pyproject's, "" without one. `kind`: of the environment, "" if it is not install.sh's.

    `stubs_failure`: why they cannot be imported, "" if they can. `installed`: versions by normalised name.
    """

    python: tuple[int, int, int]
    prefix: str
    python_range: str = ""
    kind: str = ""
    stubs_failure: str = ""
    pins: tuple[Pin, ...] = ()
    installed: Mapping[str, str] = field(default_factory=dict)
    pip_check: str | None = ""  # what it printed; None where there is no pip


def probe(root: Path = ROOT) -> InstallFacts:
    pyproject = _text(root / "pyproject.toml")
    wanted = re.search(r'^requires-python\s*=\s*"([^"]+)"', pyproject, re.MULTILINE)
    return InstallFacts(
        sys.version_info[:3],
        sys.prefix,
        wanted[1] if wanted else "",
        _text(Path(sys.prefix) / ".kind").strip(),
        _stubs_failure(),
        tuple(pins_of(sorted(root.glob("requirements*.txt")))),
        {normalised(one.metadata["Name"]): one.version for one in metadata.distributions() if one.metadata["Name"]},
        _pip_check(),
    )


def pins_of(files: Iterable[Path]) -> Iterator[Pin]:
    """Of the run time: the files of tools are left out."""
    for file in files:
        if not _TOOLS.fullmatch(file.name):
            for line in _text(file).splitlines():
                pin = _PIN.match(line.strip())
                if pin:
                    yield Pin(file.name, normalised(pin[1]), pin[2], conditional=bool(pin[3]))


def normalised(name: str) -> str:
    """A package's name as the registry compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def judge(facts: InstallFacts) -> list[Finding]:
    return [
        _python(facts),
        ok("environment", f"{facts.prefix}, installed for {facts.kind or 'an unknown kind (no stamp of install.sh)'}"),
        _stubs(facts),
        _versions(facts),
        *_parts(facts),
        _pip(facts),
    ]


def _python(facts: InstallFacts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python[:2] < _LEAST_PYTHON:
        return fail("Python", f"{version} is too old", "PYTHON=python3.12 make install")
    limit = re.search(r"<\s*(\d+)\.(\d+)", facts.python_range)
    if limit and facts.python[:2] >= (int(limit[1]), int(limit[2])):
        return warn("Python", f"{version}, tried with {facts.python_range} only", "PYTHON=python3.12 make install")
    return ok("Python", version)


def _stubs(facts: InstallFacts) -> Finding:
    if facts.stubs_failure:
        return fail("protobuf stubs", f"cannot be imported: {facts.stubs_failure}", REINSTALL)
    return ok("protobuf stubs", "can be imported")


def _versions(facts: InstallFacts) -> Finding:
    if not facts.pins:
        return ok("versions", f"{len(facts.installed)} packages; no requirement files here to compare with")
    wanted: dict[str, set[str]] = {}
    for pin in facts.pins:
        wanted.setdefault(pin.name, set()).add(pin.version)
    missing = sorted(
        {pin.name for pin in facts.pins if pin.file in _REQUIRED and not pin.conditional} - {*facts.installed}
    )
    if missing:
        return fail("versions", f"not installed: {_listed(missing)}", REINSTALL)
    other = sorted(
        f"{name} {facts.installed[name]} instead of {' or '.join(sorted(versions))}"
        for name, versions in wanted.items()
        if name in facts.installed and facts.installed[name].partition("+")[0] not in versions
    )
    if other:
        return warn("versions", _listed(other), REINSTALL)
    return ok("versions", f"{sum(name in facts.installed for name in wanted)} packages as pinned")


def _parts(facts: InstallFacts) -> Iterator[Finding]:
    """Files of requirements that are neither obligatory nor a kind's: parts that can be left out."""
    optional: dict[str, list[str]] = {}
    for pin in facts.pins:
        if pin.file not in _REQUIRED and not _KIND.fullmatch(pin.file):
            optional.setdefault(pin.file, []).append(pin.name)
    for file, names in optional.items():
        absent = [name for name in names if name not in facts.installed]
        state = (
            f"without {_listed(absent)}: `pip install -r {file}` in the environment adds it" if absent else "installed"
        )
        yield ok("optional part", f"{file}: {state}")


def _pip(facts: InstallFacts) -> Finding:
    """What packages ask for and do not find. What no pin names was left out by install.sh on purpose."""
    if facts.pip_check is None:
        return ok("pip check", "there is no pip in this environment")
    lines = [
        line for line in facts.pip_check.splitlines() if re.search(r"requires|has requirement|not supported", line)
    ]
    pinned = {pin.name for pin in facts.pins}
    unexplained = [line for line in lines if not _left_out(line, pinned)]
    if unexplained:
        return warn("pip check", _listed(unexplained), REINSTALL)
    if lines:
        return ok("pip check", f"{len(lines)} left out on purpose: {_listed(lines)}")
    return ok("pip check", "nothing is missing")


def _left_out(line: str, pinned: set[str]) -> bool:
    """Whether the line says that a package which we pin lacks one which we do not."""
    found = re.match(r"(\S+) \S+ requires ([^\s,]+), which is not installed", line)
    return found is not None and normalised(found[1]) in pinned and normalised(found[2]) not in pinned


def _listed(texts: list[str]) -> str:
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _stubs_failure() -> str:
    try:
        importlib.import_module(_STUBS)
    except Exception as error:  # noqa: BLE001 - generated code, and a library that may not fit it
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _pip_check() -> str | None:
    output = run([sys.executable, "-m", "pip", "check", "--disable-pip-version-check"], _PIP_TIMEOUT_S)
    return None if "No module named pip" in output.stderr else output.stdout


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
