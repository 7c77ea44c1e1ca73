"""`make align`: its arguments, and one recording through a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.transcribe.align import main


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--format", "doc"], "FORMAT: doc is none of json, verbose_json, srt, vtt, lrc, elrc, txt"),
        (["--text", "nowhere.lrc"], "TEXT: nowhere.lrc: there is no such file; give a text file in UTF-8"),
        (["--text", "/"], "TEXT: /: is a folder; give a text file in UTF-8"),
        (["--audio", "nowhere.wav"], "AUDIO: there is no file nowhere.wav"),
        (["--out", "x.doc"], "OUT: .doc is no format"),
    ],
)
def test_a_bad_argument_ends_with_exit_code_1_and_the_cause(arguments, cause, capsys) -> None:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert cause in printed.err.splitlines()[-1]


def test_a_text_in_which_nothing_is_sung_is_refused_before_a_server_starts(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty.lrc").write_text("[ar:x]\n[Chorus]\n")
    assert main(["--text", str(tmp_path / "empty.lrc")]) == 1
    assert "TEXT: nothing is sung" in capsys.readouterr().err


@pytest.mark.slow
def test_an_old_lrc_is_refined_and_its_movements_are_told(tmp_path: Path, capsys) -> None:
    old = "[ti:Demo]\n[Verse]\n[00:01.00]The quick brown fox jumps over the lazy dog.\n\n[00:09.00]Good morning. (x2)\n"
    (tmp_path / "old.lrc").write_text(old)
    assert main(["--text", str(tmp_path / "old.lrc"), "--out", str(tmp_path / "new.elrc")]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = (tmp_path / "new.elrc").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "[ti:Demo]"
    assert lines[1] == "[00:00.25] [Verse]"
    assert lines[2].startswith("[00:00.25] <00:00.25>The <")
    assert lines[3] == ""
    assert lines[4].startswith("[00:06.71] <00:06.71>Good <")
    assert lines[4].endswith("> (x2)")
    assert "2 lines moved by 1.5" in printed.err
