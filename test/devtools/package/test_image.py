"""`make package-image`: a tar as `docker save` writes it, the same bytes for the same contents."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from devtools.package.image import write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package in small."""
    folder = tmp_path / "qwen-asr"
    for name, text in (
        ("run.sh", "#!/bin/sh\n"),
        ("backend/server.py", "x = 1\n"),
        ("python/bin/python3.12", "binary\n"),
        ("venv/lib/python3.12/site-packages/a/__init__.py", "y = 2\n"),
        (f"venv/lib/python3.12/site-packages/a/{'long' * 40}.py", ""),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o700)
    (folder / "venv/bin").mkdir()
    (folder / "venv/bin/python").symlink_to("../../python/bin/python3.12")
    return folder


def read(path: Path) -> tuple[list[Any], dict[str, Any], dict[str, bytes]]:
    with tarfile.open(path) as archive:
        contents = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    manifest = json.loads(contents["manifest.json"])
    return manifest, json.loads(contents[manifest[0]["Config"]]), contents


def test_manifest_configuration_and_layers_fit_each_other(folder: Path, tmp_path: Path) -> None:
    write_image(folder, tmp_path / "x.tar", "qwen-asr:1.2.3")
    manifest, config, contents = read(tmp_path / "x.tar")
    assert len(manifest) == 1
    assert manifest[0]["RepoTags"] == ["qwen-asr:1.2.3"]
    assert manifest[0]["Config"] == hashlib.sha256(contents[manifest[0]["Config"]]).hexdigest() + ".json"
    digests = [f"sha256:{hashlib.sha256(contents[layer]).hexdigest()}" for layer in manifest[0]["Layers"]]
    assert config["rootfs"] == {"type": "layers", "diff_ids": digests}
    assert len(config["history"]) == len(digests) == 3  # the interpreter, the packages, the backend
    assert config["os"] == "linux"
    assert config["architecture"] in ("amd64", "arm64")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen-asr", "x.tar"]


def test_the_layers_are_the_folders_contents_at_the_root_of_the_image(folder: Path, tmp_path: Path) -> None:
    write_image(folder, tmp_path / "x.tar", "qwen-asr:1.2.3")
    (manifest,), _, contents = read(tmp_path / "x.tar")
    target = tmp_path / "unpacked"
    for layer in manifest["Layers"]:
        (tmp_path / "layer").write_bytes(contents[layer])
        with tarfile.open(tmp_path / "layer") as archive:
            assert {(entry.uid, entry.gid, entry.mtime) for entry in archive} == {(0, 0, 0)}
            archive.extractall(target, filter="tar")
    assert {path.relative_to(target) for path in target.rglob("*")} == {
        path.relative_to(folder) for path in folder.rglob("*")
    }
    assert (target / "venv/bin/python").readlink() == Path("../../python/bin/python3.12")
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "backend/server.py").stat().st_mode & 0o777 == 0o644


def test_the_same_contents_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_image(folder, tmp_path / "x.tar", "qwen-asr:1.2.3")
    os.utime(folder / "run.sh", (1, 1))
    (folder / "backend/server.py").write_text("x = 1\n")
    write_image(folder, tmp_path / "y.tar", "qwen-asr:1.2.3")
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()


def test_an_image_that_cannot_be_finished_leaves_the_former_one(folder: Path, tmp_path: Path, monkeypatch) -> None:
    write_image(folder, tmp_path / "x.tar", "qwen-asr:1.2.3")
    before = (tmp_path / "x.tar").read_bytes()

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("devtools.package.image._add_layer", full)
    with pytest.raises(OSError, match="No space"):
        write_image(folder, tmp_path / "x.tar", "qwen-asr:1.2.4")
    assert (tmp_path / "x.tar").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen-asr", "x.tar"]
