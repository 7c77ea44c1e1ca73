"""The command line of `make live`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devtools.live.__main__ import main
from devtools.server_process import ROOT


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (
            ["--format", "doc"],
            "FORMAT: doc is none of json, verbose_json, srt, vtt, lrc, elrc, txt, timed, srt_words, vtt_karaoke",
        ),
        (["--audio", "nowhere.wav"], "AUDIO: there is no file nowhere.wav"),
        (["--model", "nowhere"], "MODEL: nowhere is neither a folder here nor a hub id such as Qwen/Qwen3-ASR-1.7B"),
    ],
)
def test_a_bad_argument_ends_with_exit_code_1_and_the_cause(
    arguments: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"live: {cause}"


def test_a_file_without_sound_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    assert main(["--audio", str(tmp_path / "a.wav")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("live: AUDIO: ")


def test_a_terminal_is_no_recorder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["--audio", "-"]) == 1
    assert "arecord -f S16_LE -r 16000 -c 1 | make live AUDIO=-" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recording_is_captioned_at_its_own_pace_and_its_final_result_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--audio", str(ROOT / "test/audio/chinese.wav"), "--format", "json"]) == 0
    printed = capsys.readouterr()
    first, second, *final = printed.out.splitlines()
    assert (first[7:], second[7:]) == ("一二三四五。", "六七八九零。")
    assert json.loads("".join(final)) == {"text": "一二三四五。六七八九零。"}
    assert "the rest " in printed.err.splitlines()[-1]
