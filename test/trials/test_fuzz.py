"""The short form of `make fuzz`: the running server is sent everything odd and three hundred cases of chance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trials import fuzz
from trials.cases import Case, save

# A load that is answered INTERNAL instead of being refused, for the same reason each: nothing answers it yet.
AWAITED = {"loads"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The lines of the JSON by kind of input."""
    out = tmp_path_factory.mktemp("fuzz")
    fuzz.main(["--cases", "300", "--brief", "--out", str(out)])
    lines = json.loads((out / "fuzz.json").read_text())["lines"]
    return {f"{line['measure']}, {line['what']}" if not line["figures"].get("outcomes") else line["measure"]: line
            for line in lines}  # fmt: skip


def test_what_is_bad_is_refused_and_what_is_sound_is_answered(found: dict[str, dict]) -> None:
    kinds = {kind: line for kind, line in found.items() if "outcomes" in line["figures"]}
    assert {"as they are", "no sound", "rates", "channels", "playlists", "paths", "requests"} <= {*kinds}
    for kind, line in kinds.items():
        print(kind, line["measured"], line["note"])
        in_time = all("took" in failure for failure in line["figures"]["failures"])  # a busy machine's
        assert in_time or kind in AWAITED, line["note"]


def test_no_input_ends_the_server_or_touches_another_request(found: dict[str, dict]) -> None:
    for line in ("all inputs, deaths of the server", "all inputs, more than 512 MiB", "golden request, at the end"):
        assert found[line]["is_met"], found[line]
    (bystander,) = (line for line in found.values() if line["measure"] == "a bystander")
    assert bystander["is_met"], bystander["note"]


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
