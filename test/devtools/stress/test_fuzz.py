"""The short form of `make fuzz`: the running server is sent everything odd and three hundred cases of chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.stress import fuzz
from devtools.stress.cases import Case, save
from devtools.stress.fuzz import KINDS, FuzzRunner, runner
from devtools.stress.profile import Profile
from devtools.stress.results import Results

__all__ = ["runner"]


def test_the_kinds_of_inputs() -> None:
    known = {"as they are", "no sound", "rates", "channels", "playlists", "paths", "requests", "loads"}
    assert known <= {*KINDS}


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bombs"])
def test_what_is_bad_is_refused_and_what_is_sound_is_answered(
    kind: str, runner: FuzzRunner, profile: Profile, results: Results
) -> None:
    fuzz.test_inputs(kind, runner, profile, results)
    (row,) = results.rows
    print(kind, row.measured, row.note)
    failures = row.figures["failures"]
    assert all(": took " in failure for failure in failures), failures  # a busy machine's


@pytest.mark.fuzz
async def test_no_input_ends_the_server_or_touches_another_request(runner: FuzzRunner, results: Results) -> None:
    await fuzz.test_the_server_after_all_inputs(runner, results)
    assert len(results.rows) == 5
    for row in results.rows:
        assert row.is_met or row.what.startswith("longer than"), row


def test_a_saved_case_is_sent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("no sound", "empty, and expected to be sound", "good", b"")
    path = save(case, tmp_path, 1, 1, [])
    assert fuzz.main(["--replay", str(path)]) == 1
    said = capsys.readouterr().out
    assert "INVALID_ARGUMENT qwen-asr: cannot read the audio: the file is empty" in said


def test_what_is_no_saved_case_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert fuzz.main(["--replay", str(tmp_path / "x.json")]) == 1
    assert "is no saved case" in capsys.readouterr().out
