"""Results are never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.eval import __main__ as command
from devtools.eval.__main__ import main
from devtools.eval.fresh_folder import FolderTaken, fresh_folder


def test_each_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = [fresh_folder(None, tmp_path / "eval", "results.json") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() and folder.parent == tmp_path / "eval" for folder in folders)


def test_a_folder_that_was_asked_for_is_used_unless_it_holds_results(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert fresh_folder(tmp_path, tmp_path, "results.json") == tmp_path
    assert fresh_folder(tmp_path / "new/one", tmp_path) == tmp_path / "new/one"
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(FolderTaken, match=r"holds results\.json already"):
        fresh_folder(tmp_path, tmp_path, "results.json")
    with pytest.raises(FolderTaken, match="cannot be made"):
        fresh_folder(tmp_path / "notes.txt", tmp_path, "results.json")


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert main(["--manifest", str(tmp_path / "none.jsonl")]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert list((tmp_path / "build/eval").iterdir()) == []


def test_the_command_says_so_before_it_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("a page")
    assert main(["--out", str(tmp_path)]) == 1
    assert "OUT: " in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "a page"
