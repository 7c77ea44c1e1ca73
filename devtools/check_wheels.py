"""Lists the wheel that pip takes for each run-time pin on Linux on arm64, for each Python. `make check-wheels`.

Asks the indexes that pip is configured with, for glibc 2.28 (Debian 10, RHEL 8) and later. An index that does not serve
metadata apart has pip download the wheels themselves, once. Exit code 0 when every pin has a wheel for every Python; 1,
with pip's own words for each that has none, when one has not.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from devtools.arguments import parse_arguments
from devtools.server_process import ROOT
from devtools.tables import aligned

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_NOT_FOR_USERS = "requirements-dev.txt"
_PIN = re.compile(r"^([\w.-]+==[^\s#;]+)", re.MULTILINE)


class NoWheelError(Exception):
    """Pip takes no wheel for one of the pins; the message is its own."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check-wheels", description="Wheels of the run-time pins for Linux.")
    parser.add_argument("--machine", choices=("aarch64", "x86_64"), default="aarch64")
    machine = parse_arguments(parser, argv).machine
    pins = run_time_pins(path for path in ROOT.glob("requirements*.txt") if path.name != _NOT_FOR_USERS)
    lacking: list[str] = []
    found = {python: wheels(pins, python, machine, lacking) for python in PYTHONS}
    rows = [(pin, *(tags(found[python].get(pin)) for python in PYTHONS)) for pin in pins]
    print(aligned([(machine, *PYTHONS), *rows], left=1 + len(PYTHONS)))
    for line in lacking:
        print(f"check-wheels: {line}", file=sys.stderr)
    return 1 if lacking else 0


def run_time_pins(files: Iterable[Path]) -> list[str]:
    """`name==version` of each pin, sorted, once each. Ranges and pip's own options are no pins."""
    return sorted({pin for path in files for pin in _PIN.findall(path.read_text(encoding="utf-8"))}, key=str.lower)


def wheels(pins: Sequence[str], python: str, machine: str, lacking: list[str]) -> dict[str, str]:
    """The file name of each pin's wheel. A pin without one is left out and has a line in `lacking`."""
    try:
        return ask_pip(pins, python, machine)
    except NoWheelError:  # pip names the first one only
        found: dict[str, str] = {}
        for pin in pins:
            try:
                found |= ask_pip([pin], python, machine)
            except NoWheelError as refusal:
                lacking.append(f"{pin}, Python {python}: {refusal}")
        return found


def tags(wheel: str | None) -> str:
    """The Python and ABI that a wheel is for, or "any" for pure Python; "none" for no wheel."""
    if wheel is None:
        return "none"
    python, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    return "any" if platform == "any" else f"{python}-{abi}"


def ask_pip(pins: Sequence[str], python: str, machine: str) -> dict[str, str]:
    """The wheels of all pins. Raises NoWheelError where one has none."""
    platforms = [*(f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)), f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        command += ["--ignore-installed", "--no-deps", "--only-binary", ":all:", "--python-version", python]
        command += [*(f"--platform={name}" for name in platforms), "--target", folder, "--report", str(report), *pins]
        said = subprocess.run(command, check=False, capture_output=True, text=True)
        if said.returncode:
            raise NoWheelError(next(iter(said.stderr.strip().splitlines()[-1:]), "pip said nothing"))
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = {_name(item["metadata"]["name"]): item["download_info"]["url"].rpartition("/")[2] for item in installed}
    return {pin: names[_name(pin.partition("==")[0])] for pin in pins}


def _name(project: str) -> str:
    """A project's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", project).lower()


if __name__ == "__main__":
    sys.exit(main())
