"""The command line, and one recording through a real server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ROOT
from devtools.transcribe.__main__ import main, show_warnings
from devtools.transcribe.checkpoints import chosen_aligner, load_options


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--format", "doc"], "FORMAT: doc is none of json, verbose_json, srt, vtt, lrc, elrc, txt"),
        (["--audio", "nowhere.wav"], "AUDIO: there is no file nowhere.wav"),
        (["--language", "klingon"], "LANGUAGE: klingon is not known; give a code or English name of one of ar, "),
        (["--audio", ""], "AUDIO: it is empty; name a recording, or a folder of them"),
        (
            ["--option", "vad:onn"],
            "OPTIONS: option 'vad' must be one of on, true, yes, 1, off, false, no, 0, not 'onn'",
        ),
        (["--model", "nowhere"], "MODEL: nowhere is neither a folder here nor a hub id such as Qwen/Qwen3-ASR-1.7B"),
        (["--aligner", "nowhere"], "ALIGNER: nowhere is neither a folder here nor a hub id"),
    ],
)
def test_a_bad_argument_ends_with_exit_code_1_and_the_cause(
    arguments: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith(f"transcribe: {cause}")


def test_commas_between_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--option", "vad:off,torch_dtype:bf16"]) == 1
    assert capsys.readouterr().err.endswith("; between two options stands a space, not a comma\n")


def test_only_the_demo_model_gets_the_demo_aligner() -> None:
    assert chosen_aligner(str(DEMO_MODEL), None) == str(DEMO_ALIGNER)
    assert chosen_aligner("Qwen/Qwen3-ASR-0.6B", None) == ""
    assert chosen_aligner(str(DEMO_MODEL), "") == ""
    assert chosen_aligner("Qwen/Qwen3-ASR-0.6B", "Qwen/Qwen3-ForcedAligner-0.6B") == "Qwen/Qwen3-ForcedAligner-0.6B"


def test_a_hub_id_is_no_file_and_options_come_behind_the_aligner() -> None:
    request = load_options("Qwen/Qwen3-ASR-0.6B", "x/y", ["vad:off"], "int8")
    assert (request.Model, request.ModelFile, request.Quantization) == ("Qwen/Qwen3-ASR-0.6B", "", "int8")
    assert list(request.Options) == ["forced_aligner:x/y", "vad:off"]
    assert load_options(str(DEMO_MODEL), "").ModelFile == str(DEMO_MODEL)


def test_a_failing_aligner_has_its_cause_from_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log = ["2026-11-30 12:41:22,760 ERROR backend.serving.scheduler: the aligner: OutOfMemoryError", '{"method": "x"}']
    show_warnings(["the file ends early"], lambda: log)
    assert capsys.readouterr().err == "transcribe: warning: the file ends early\n"
    show_warnings(["some word times are not available (the aligner failed); they are estimates"], lambda: log)
    assert capsys.readouterr().err.splitlines()[:2] == ["the end of the backend's log:", log[0]]


@pytest.mark.slow
def test_a_refused_model_has_its_cause_and_nothing_above_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert lines[0] == "transcribe: no ALIGNER: times are coarse, and there are no words"
    assert len(lines) == 2
    assert lines[-1].startswith("transcribe: the model was not loaded: ")


@pytest.mark.slow
def test_a_recording_goes_through_the_server_and_onto_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr()
    truth = json.loads((ROOT / "test/audio/demo.json").read_text(encoding="utf-8"))
    found = json.loads(printed.out)
    assert (found["text"], found["language"]) == (truth["text"], "en")
    assert [word["word"] for word in found["words"]] == truth["text"].split()
    assert "s of audio in" in printed.err.splitlines()[-1]


@pytest.mark.slow
def test_a_stream_is_the_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stream"]) == 0
    printed = capsys.readouterr()
    truth = json.loads((ROOT / "test/audio/demo.json").read_text(encoding="utf-8"))
    assert printed.out == truth["text"] + "\n"
    assert "s of audio in" in printed.err.splitlines()[-1]


@pytest.mark.slow
def test_a_stream_in_a_format_has_its_text_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stream", "--format", "srt", "--aligner", ""]) == 0
    printed = capsys.readouterr()
    truth = json.loads((ROOT / "test/audio/demo.json").read_text(encoding="utf-8"))
    assert printed.out.startswith("1\n00:00:0")
    assert truth["text"] in printed.err.splitlines()
    assert "the aligner's loading" not in printed.err


@pytest.mark.slow
def test_a_folder_has_its_results_beside_it_and_a_failure_ends_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "test/audio/demo.wav", tmp_path / "talk.wav")
    (tmp_path / "bad.mp3").write_bytes(b"no sound at all")
    (tmp_path / "old.wav").write_bytes(b"not looked at")
    (tmp_path / "old.srt").write_text("kept", encoding="utf-8")
    assert main(["--audio", str(tmp_path), "--format", "srt"]) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert lines[-2] == "transcribe: 1 transcribed, 1 there already (FORCE=1 writes them again), 1 failed"
    assert lines[-1].startswith("transcribe: bad.mp3: ")
    assert any("fifty words" in line for line in lines)
    assert (tmp_path / "old.srt").read_text(encoding="utf-8") == "kept"
    captions = (tmp_path / "talk.srt").read_text(encoding="utf-8")
    assert "\nThe quick brown fox\njumps over the lazy dog.\n" in captions
    assert not (tmp_path / "bad.srt").exists()
