"""What is wrong with a checkpoint's files is told by their names, for every kind of file and both kinds of models."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.checkpoint import files
from backend.checkpoint.find import Checkpoint, inspect
from backend.checkpoint.layout import Kind
from backend.errors import CheckpointRefused

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3400000\n"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("/not/there")


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pointer": (lambda file: file.write_bytes(POINTER), "git-lfs pointer"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "cut short": (lambda file: os.truncate(file, file.stat().st_size // 2), "is cut short"),
    "a link to nothing": (link_to_nothing, "a link to a file that is not"),
    "a folder": (folder_instead, "does not open .EISDIR, Is a directory"),
}
UNCUT = ("merges.txt",)  # only its use tells


@pytest.fixture(params=["recognizer", "aligner"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def copy(kind: Kind, asr_folder: Path, aligner_folder: Path, tmp_path: Path) -> Path:
    """With weights in two files, as large models have them."""
    copy = Path(shutil.copytree(asr_folder if kind == "recognizer" else aligner_folder, tmp_path / "copy"))
    shutil.copy(copy / "model.safetensors", copy / SHARDS[1])
    (copy / "model.safetensors").rename(copy / SHARDS[0])
    weight_map = {"a": SHARDS[0], "b": SHARDS[1]}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return copy


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".jinja")


def test_each_file_that_is_no_more_what_it_was_is_named(kind: Kind, copy: Path) -> None:
    inspect(Checkpoint(str(copy), local=True), kind)
    for name in names(copy):
        for how, (spoil, said) in SPOILED.items():
            if name in UNCUT and how == "cut short":
                continue
            kept = (copy / name).read_bytes()
            spoil(copy / name)
            with pytest.raises(CheckpointRefused, match=f"{re.escape(name)}.* {said}") as refused:
                inspect(Checkpoint(str(copy), local=True), kind)
            assert str(copy) not in str(refused.value)
            if (copy / name).is_dir():
                (copy / name).rmdir()
            else:
                (copy / name).unlink()
            (copy / name).write_bytes(kept)


def test_each_file_that_is_needed_and_missing_is_named(copy: Path) -> None:
    for lacking, said in (
        (SHARDS[1:], f"{SHARDS[1]} is missing"),
        (("preprocessor_config.json",), "preprocessor_config.json is missing"),
        (("tokenizer.json", "merges.txt"), "merges.txt is missing"),
        (("tokenizer.json", "vocab.json"), "vocab.json is missing"),
        (("tokenizer.json", "vocab.json", "merges.txt"), "tokenizer.json (or vocab.json and merges.txt) is missing"),
    ):
        for name in lacking:
            (copy / name).rename(copy / f"{name}.gone")
        assert list(files.faults(copy)) == [said]
        for name in lacking:
            (copy / f"{name}.gone").rename(copy / name)
    (copy / "tokenizer.json").unlink()  # the two others do
    assert not list(files.faults(copy))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(copy: Path) -> None:
    (copy / "merges.txt").chmod(0)
    assert list(files.faults(copy)) == ["merges.txt does not open (EACCES, Permission denied)"]


def test_a_whole_clone_without_git_lfs_is_named_in_one_line(kind: Kind, copy: Path) -> None:
    for name in (*SHARDS, "tokenizer.json", "vocab.json", "merges.txt"):
        (copy / name).write_bytes(POINTER)
    with pytest.raises(CheckpointRefused, match=r"git lfs pull.*; and 2 more; fetch it again$"):
        inspect(Checkpoint(str(copy), local=True), kind)
