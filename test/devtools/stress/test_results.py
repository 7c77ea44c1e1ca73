"""The table, the JSON and the exit code, of results made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devtools.stress import soak
from devtools.stress.results import Result, Results, are_met, quantile, table

ROOT = Path(__file__).resolve().parents[3]


def results() -> Results:
    made = Results("load")
    made.check("sent", "12 = 12 exact")
    made.none("lost", 0)
    made.at_most("Health, p99", 0.25, 0.1, "s")
    made.measure = "fault"
    made.check("a poison", "x" * 100, "exact", True, "by the way")
    return made


def test_the_table_has_values_goals_verdicts_and_notes() -> None:
    preface, text, notes, closing = table(results().rows, "16 streams").split("\n\n")
    lines = [line.split() for line in text.splitlines()]
    assert preface == "16 streams"
    assert lines[1] == "load sent 12 = 12 exact".split()
    assert lines[2] == "lost 0 0 met".split()  # the measure's name stands once
    assert lines[3] == "Health, p99 0.25 s ≤ 0.1 s FAILED".split()
    assert lines[4][-3:] == ["exact", "met", "[1]"]
    assert notes == f"[1] {'x' * 100}; by the way"  # what is too long for the table stands below it whole
    assert closing == "2 of 3 goals met"


def test_a_missed_goal_is_a_failure_and_so_is_nothing_at_all() -> None:
    made = results()
    assert are_met(made.rows[:2])
    assert not are_met(made.rows)
    assert not are_met([])
    assert not are_met([Result("load", "", "did not start", "measured", False)])
    made.at_most("p99", None, 1, "s")
    assert made["p99"].is_met is False  # nothing was measured
    missed = [row for row in made.rows if row.is_met is False]
    assert [row.is_timed for row in missed] == [True, False]  # nothing measured is no busy machine's


MADE = """
import pytest
from devtools.server_process import ServerFailed
from devtools.stress.client import Server

@pytest.mark.soak("load")
def test_good(results, profile):
    results.measure = "a"
    results.at_most("b", 0.25, profile.seed, "s")

@pytest.mark.soak("stop")
def test_bad(results):
    results.measure = "a"
    results.none("c", 1)

@pytest.mark.soak("engine")
def test_unwritable(results):
    results.check("e", "0", "0", True, figure=object())

@pytest.mark.soak("models")
def test_broken(results):
    results.check("d", "0")
    with Server(("false",)):
        raise AssertionError
"""


def run(tmp_path: Path, only: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, output and JSON of the command, with the tests above; a child, because pytest cannot run in itself."""
    (tmp_path / "test_made.py").write_text(MADE)
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    out = tmp_path / "build/soak.json"
    code = (
        "import sys; from pathlib import Path; from devtools.stress import soak\n"
        f"sys.exit(soak.main(['--only', {only!r}, '--seed', '3', '--out', {str(out)!r}],"
        f" Path({str(tmp_path)!r})))"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines: list[dict[str, Any]] = json.loads(out.read_text())["lines"] if out.exists() else []
    return ended.returncode, ended.stdout + ended.stderr, lines


def test_the_command_keeps_what_it_measured_and_says_whether_all_goals_were_met(tmp_path: Path) -> None:
    code, said, lines = run(tmp_path, "load")
    assert code == 0, said
    assert "1 of 1 goals met" in said
    assert [line["figures"] for line in lines] == [{"value": 0.25, "most": 3}]
    code, said, lines = run(tmp_path, "load,stop")
    assert code == 1
    assert "1 of 2 goals met" in said
    assert [line["is_met"] for line in lines] == [True, False]


def test_a_server_that_does_not_start_is_a_line_and_not_the_end(tmp_path: Path) -> None:
    code, said, (first, second, third) = run(tmp_path, "models,load")
    assert code == 1
    assert first["what"] == "d"
    assert second["is_met"] is False
    assert "the backend ended with exit code 1" in second["measured"], said
    assert third["is_met"]


def test_a_run_that_breaks_off_is_no_success(tmp_path: Path) -> None:
    code, said, _lines = run(tmp_path, "engine,load")
    assert code == 1
    assert "stopped: INTERNAL_ERROR" in said


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        soak.parse(["--only", "nothing"])
    assert f"nothing is not known; there are {', '.join(soak.GROUPS)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "share", "value"), [([], 0.5, None), ([3, 1, 2], 0.5, 2), (range(100), 0.99, 99), ([7], 0.99, 7)]
)
def test_a_quantile_is_one_of_the_values(values: list[float], share: float, value: float | None) -> None:
    assert quantile(list(values), share) == value
