"""The command that lists wheels for arm64, with answers of pip's in its place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from devtools import check_wheels
from devtools.check_wheels import main, run_time_pins, tags
from devtools.server_process import ROOT

WHEELS = {
    "demo-pure==1.0": ("demo_pure", "demo_pure-1.0-py3-none-any.whl"),
    "demo.native==2.0": ("demo-native", "demo_native-2.0-cp312-cp312-manylinux2014_aarch64.manylinux_2_17_aarch64.whl"),
}


def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Has the native wheel for Python 3.12 alone, and answers in another order than it was asked in."""
    pins, python = command[command.index("--report") + 2 :], command[command.index("--python-version") + 1]
    assert "--platform=manylinux_2_28_aarch64" in command
    assert "--dry-run" in command
    if "demo.native==2.0" in pins and python != "3.12":
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n")
    install = [
        {"metadata": {"name": name}, "download_info": {"url": f"https://index/{wheel}"}}
        for name, wheel in (WHEELS[pin] for pin in reversed(pins))
    ]
    Path(command[command.index("--report") + 1]).write_text(json.dumps({"install": install}))
    return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(check_wheels, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", pip)
    (tmp_path / "requirements.txt").write_text("# pins\ndemo-pure==1.0  # pure\ntorch>=2.9,<=2.13.0\n--no-deps\n")
    (tmp_path / "requirements-dev.txt").write_text("linter==9.0\n")
    return tmp_path


def test_every_pin_has_a_wheel(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["demo-pure==1.0", "any", "any", "any", "any"]


def test_a_pin_without_a_wheel_is_named_with_its_python(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "requirements-more.txt").write_text("demo.native==2.0\n")
    assert main([]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[2].split() == ["demo.native==2.0", "none", "cp312-cp312", "none", "none"]
    assert shown.err.splitlines() == [
        f"check-wheels: demo.native==2.0, Python {python}: ERROR: No matching distribution found"
        for python in ("3.11", "3.13", "3.14")
    ]


def test_the_pins_are_those_of_the_requirement_files() -> None:
    pins = run_time_pins([ROOT / f"requirements{part}.txt" for part in ("", "-after", "-cpu")])
    assert {pin.partition("==")[0] for pin in pins} >= {"torch", "grpcio", "numpy", "silero-vad"}
    assert all("==" in pin and "#" not in pin and " " not in pin for pin in pins)


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [
        ("a-1-py3-none-any.whl", "any"),
        ("a-1-cp310-abi3-manylinux2014_aarch64.whl", "cp310-abi3"),
        ("a-1-2-py2.py3-none-manylinux_2_28_aarch64.whl", "py2.py3-none"),
        (None, "none"),
    ],
)
def test_tags(wheel: str | None, expected: str) -> None:
    assert tags(wheel) == expected
