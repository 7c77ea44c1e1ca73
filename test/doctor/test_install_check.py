from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from findings import assert_finding

from backend.doctor.findings import Finding
from backend.doctor.install_check import InstallFacts, Pin, judge, pins_of, probe

GOOD = InstallFacts(
    (3, 12, 1),
    "/backend/venv",
    ">=3.11,<3.14",
    "cuda13",
    pins=(Pin("requirements.txt", "grpcio", "1.85.1"), Pin("requirements-cuda.txt", "torch", "2.13.0")),
    installed={"grpcio": "1.85.1", "torch": "2.13.0+cu130"},
    pip_check="No broken requirements found.\n",
)


def found(facts: InstallFacts, name: str) -> Finding:
    return next(finding for finding in judge(facts) if finding.name == name)


def test_a_whole_install_is_fine() -> None:
    assert {finding.level for finding in judge(GOOD)} == {"OK"}
    assert "2 packages as pinned" in found(GOOD, "versions").value
    assert "cuda13" in found(GOOD, "environment").value


@pytest.mark.parametrize(
    ("name", "changes", "level", "value", "remedy"),
    [
        ("Python", {"python": (3, 10, 9)}, "FAIL", "3.10.9 is too old", "PYTHON="),
        ("Python", {"python": (3, 14, 0)}, "WARN", "tried with >=3.11,<3.14 only", "PYTHON="),
        ("Python", {"python": (3, 14, 0), "python_range": ""}, "OK", "3.14.0", ""),
        ("environment", {"kind": ""}, "OK", "unknown kind", ""),
        (
            "protobuf stubs",
            {"stubs_failure": "No module named 'grpc'"},
            "FAIL",
            "No module named 'grpc'",
            "make install",
        ),
        ("versions", {"installed": {"torch": "2.13.0"}}, "FAIL", "not installed: grpcio", "make install"),
        ("versions", {"installed": {"grpcio": "1.0"}}, "WARN", "grpcio 1.0 instead of 1.85.1", "make install"),
        ("versions", {"pins": ()}, "OK", "2 packages; no requirement files", ""),
        ("pip check", {"pip_check": None}, "OK", "no pip", ""),
        ("pip check", {"pip_check": "grpcio 1.85.1 requires gradio, which is not installed."}, "OK", "on purpose", ""),
        (
            "pip check",
            {"pip_check": "torch 2.13.0 requires grpcio, which is not installed."},
            "WARN",
            "requires grpcio",
            "make",
        ),
        (
            "pip check",
            {"pip_check": "torch 2 has requirement numpy<2, but you have numpy 2.4."},
            "WARN",
            "numpy<2",
            "make",
        ),
    ],
)
def test_each_fault_has_its_level_and_remedy(name: str, changes: dict, level: str, value: str, remedy: str) -> None:
    assert_finding(found(replace(GOOD, **changes), name), level, value, remedy)


def test_the_pins_are_those_of_the_files_whatever_the_packages_are_called(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# a comment\nGrpc_IO==1.2.3  # why\nav[x]==18 ; python_version < '3.12'\n--no-deps\n-r other.txt\nopen>=2\n"
    )
    (tmp_path / "requirements-ja.txt").write_text("nagisa==0.2\n")
    (tmp_path / "requirements-dev.txt").write_text("pytest==9\n")
    assert [*pins_of(sorted(tmp_path.glob("*.txt")))] == [
        Pin("requirements-ja.txt", "nagisa", "0.2"),
        Pin("requirements.txt", "grpc-io", "1.2.3"),
        Pin("requirements.txt", "av", "18", conditional=True),
    ]


def test_an_optional_part_that_is_absent_is_named_with_its_file() -> None:
    facts = replace(GOOD, pins=(*GOOD.pins, Pin("requirements-ja.txt", "nagisa", "0.2.11")))
    finding = found(facts, "optional part")
    assert finding.level == "OK"
    assert "requirements-ja.txt: without nagisa" in finding.value
    assert found(facts, "versions").level == "OK"
    here = replace(facts, installed={**facts.installed, "nagisa": "0.2.11"})
    assert found(here, "optional part").value == "requirements-ja.txt: installed"


def test_a_pin_of_another_kind_or_under_a_condition_need_not_be_installed() -> None:
    others = (Pin("requirements-l4t12.txt", "nvidia-thing", "1"), Pin("requirements.txt", "old", "1", conditional=True))
    facts = replace(GOOD, pins=(*GOOD.pins, *others))
    assert {finding.level for finding in judge(facts)} == {"OK"}
    assert "optional part" not in {finding.name for finding in judge(facts)}


def test_two_files_may_pin_two_versions_of_one_package() -> None:
    facts = replace(GOOD, pins=(*GOOD.pins, Pin("requirements-cpu.txt", "torch", "2.9.1")))
    assert found(replace(facts, installed={"grpcio": "1.85.1", "torch": "2.9.1"}), "versions").level == "OK"


def test_this_install_is_looked_at_as_it_is() -> None:
    facts = probe()
    assert {"grpcio", "torch"} <= {pin.name for pin in facts.pins} & {*facts.installed}
    assert not facts.stubs_failure
    assert facts.python_range
