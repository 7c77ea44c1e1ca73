"""Downloads from a hub that works: what may stand in their way, and which commit is loaded.

Each test has a process of its own: the hub's library reads its variables when it is imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_hub import StandInHub, stand_in_hub

ROOT = Path(__file__).parents[2]
FETCH = """
import logging, os, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(message)s")
from backend.checkpoint import hub
from backend.checkpoint.find import find, inspect
from backend.errors import CheckpointRefused
def load(revision="main"):
    try:
        found = inspect(find("Qwen/Demo", revision=revision), "recognizer")
        folder = Path(found.name) if found.local else hub.fetch(found.name, found.revision)
    except CheckpointRefused as refused:
        print("refused:", refused)
    else:
        print("loaded:", folder.name, sorted(p.name for p in folder.iterdir())[-1], found.local)
"""


@pytest.fixture
def hub(asr_folder: Path, tmp_path: Path) -> Iterator[StandInHub]:
    with stand_in_hub(Path(shutil.copytree(asr_folder, tmp_path / "repository"))) as hub:
        yield hub


def run(hub: StandInHub, home: Path, code: str = "load()", **environment: str) -> tuple[list[str], str]:
    """The lines that `code` printed, and the log."""
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", FETCH + code], capture_output=True, text=True, timeout=100, cwd=ROOT,
        env={**os.environ, **variables, **environment},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    said = [line for line in ended.stdout.splitlines() if not line.startswith("{")]  # without hf_xet's own log
    return said, ended.stderr


def test_an_accelerated_transfer_that_is_not_installed_is_left_out(hub: StandInHub, tmp_path: Path) -> None:
    said, log = run(hub, tmp_path / "home", HF_HUB_ENABLE_HF_TRANSFER="1")
    assert said == [f"loaded: {hub.revisions['main'][0]} vocab.json False"]
    assert "hf_transfer is not installed; fetching without it" in log
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "hf_xet.py").write_text("raise ImportError('built for another machine')")
    said, _ = run(hub, tmp_path / "other", PYTHONPATH=str(broken))
    assert said == [f"loaded: {hub.revisions['main'][0]} vocab.json False"]


def test_a_cache_that_cannot_be_written_is_named_with_its_errno(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (said,), log = run(hub, tmp_path / "file/home")
    assert "the cache folder cannot be written (ENOTDIR, Not a directory); set HF_HOME" in said
    assert "ENOTDIR" in log
    for number, words in ((28, "no space is left in the cache folder (ENOSPC"), (30, "cannot be written (EROFS")):
        refuse = f"os.makedirs = lambda *a, **k: (_ for _ in ()).throw(OSError({number}, os.strerror({number})))\n"
        (said,), _ = run(hub, tmp_path / f"home{number}", refuse + "load()")
        assert words in said


def test_a_socks_proxy_without_its_library_is_named(hub: StandInHub, tmp_path: Path) -> None:
    hide = "import sys; sys.modules['socks'] = None\n"
    (said,), _ = run(hub, tmp_path, hide + "load()", ALL_PROXY="socks5h://127.0.0.1:9", NO_PROXY="", no_proxy="")
    assert "a SOCKS proxy is named" in said
    assert "PySocks" in said


@pytest.mark.parametrize("status", [429, 403])
def test_the_status_of_the_hub_is_named(hub: StandInHub, tmp_path: Path, status: int) -> None:
    hub.status = status
    (said,), _ = run(hub, tmp_path)
    assert f"HTTP status {status}" in said


def test_what_is_whole_on_disk_is_loaded_at_the_first_failure_of_the_hub(hub: StandInHub, tmp_path: Path) -> None:
    assert run(hub, tmp_path)[0] == [f"loaded: {hub.revisions['main'][0]} vocab.json False"]
    hub.status = 503
    hub.requests.clear()
    said, log = run(hub, tmp_path, "load()\nload()")
    assert said == [f"loaded: {hub.revisions['main'][0]} vocab.json True"] * 2
    assert len(hub.requests) == 2  # once for each load: nothing is tried again
    assert log.count("out of reach") == 2
    hub.shutdown()
    hub.server_close()
    said, log = run(hub, tmp_path)
    assert said[0].startswith("loaded:")
    assert "ECONNREFUSED" in log
    assert "Retrying" not in log


def test_part_of_a_download_does_not_stand_in_for_the_whole(hub: StandInHub, tmp_path: Path) -> None:
    run(hub, tmp_path)
    next(tmp_path.glob("hub/models--Qwen--Demo/snapshots/*/model.safetensors")).unlink()
    said, _ = run(hub, tmp_path, "print(hub._whole('Qwen/Demo', 'main'))")
    assert said == ["None"]


def test_the_inspected_commit_is_the_one_that_is_loaded(hub: StandInHub, tmp_path: Path) -> None:
    first = hub.revisions["main"][0]
    newer = Path(shutil.copytree(hub.revisions["main"][1], tmp_path / "newer"))
    (newer / "zz.txt").touch()
    code = """
found = inspect(find("Qwen/Demo"), "recognizer")
input()
print(hub.fetch(found.name, found.revision).name)
"""
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **environment, "HF_HUB_OFFLINE": "0"},
    )  # fmt: skip
    while not any(path.endswith("config.json") for path in hub.requests):
        assert process.poll() is None
    second = hub.publish(newer, "main", "v2/rc")
    assert process.communicate("\n", timeout=60)[0].split() == [first]
    said, _ = run(hub, tmp_path, f"load('v2/rc'); load('{first}'); load('gone')")
    assert said[:2] == [f"loaded: {second} zz.txt False", f"loaded: {first} vocab.json False"]
    assert "has no such revision" in said[2]
