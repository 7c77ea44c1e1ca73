"""The short form of `make fuzz`: the running server is sent everything odd and three hundred cases of chance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devtools.stress import fuzz
from devtools.stress.cases import Case, save


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Those of the JSON."""
    out = tmp_path_factory.mktemp("fuzz")
    fuzz.main(["--cases", "300", "--brief", "--out", str(out)])
    found: list[dict] = json.loads((out / "fuzz.json").read_text())["lines"]
    return found


def test_what_is_bad_is_refused_and_what_is_sound_is_answered(lines: list[dict]) -> None:
    kinds = {line["measure"]: line for line in lines if "outcomes" in line["figures"]}
    assert {"as they are", "no sound", "rates", "channels", "playlists", "paths", "requests", "loads"} <= {*kinds}
    for kind, line in kinds.items():
        print(kind, line["measured"], line["note"])
        failures = line["figures"]["failures"]
        assert all(": took " in failure for failure in failures), failures  # a busy machine's


def test_no_input_ends_the_server_or_touches_another_request(lines: list[dict]) -> None:
    closing = [line for line in lines if line["measure"] in ("all inputs", "a bystander", "golden request")]
    assert len(closing) == 5
    for line in closing:
        assert line["is_met"] or line["what"].startswith("longer than"), line


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
