"""A hub that fails, is silent or refuses. Each test has a process of its own: the endpoint is read at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONFIG = 'hub.fetch_config("Qwen/Qwen3-ASR-0.6B", timeout_s=1)'
FILES = 'hub._ANSWER_TIMEOUT_S = 1; hub.fetch("Qwen/Qwen3-ASR-0.6B")'
FETCH = """
import os, time
from backend.checkpoint import hub
from backend.errors import HubFailure
began = time.monotonic()
try:
    {call}
except HubFailure as failure:
    print(failure)
print(time.monotonic() - began, flush=True)
os._exit(0)  # as the backend does: a hanging request would delay the exit
"""


class Hub(BaseHTTPRequestHandler):
    error = ""  # the X-Error-Code of its answers; "": it never answers
    enough = threading.Event()

    def do_HEAD(self) -> None:
        if not self.error:
            self.enough.wait(60)
            return
        self.send_response(401 if self.error == "GatedRepo" else 404)
        self.send_header("X-Error-Code", self.error)
        self.send_header("X-Error-Message", "connection refused: no such host")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.enough.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        Hub.enough.set()
        server.shutdown()
        thread.join()


def fetched(port: int, home: Path, call: str = CONFIG) -> tuple[str, float, str]:
    """The failure's text, its seconds, and all output of the process."""
    process = subprocess.run(
        [sys.executable, "-c", FETCH.replace("{call}", call)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_geheim",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        },
    )
    failure, seconds = process.stdout.splitlines()
    return failure, float(seconds), process.stdout + process.stderr


@pytest.mark.parametrize(
    ("error", "text"),
    [("RepoNotFound", "does not exist, or is private"), ("GatedRepo", "is gated"),
     ("EntryNotFound", "has no config.json"), ("Whatever", "could not be fetched"), ("", "could not be fetched")],
)  # fmt: skip
def test_a_refusal_of_the_hub_has_a_remedy(hub, tmp_path: Path, monkeypatch, error: str, text: str) -> None:
    monkeypatch.setattr(Hub, "error", error)
    failure, seconds, output = fetched(hub.server_port, tmp_path)
    assert text in failure
    assert seconds < 10
    for harmful in ("refused", "no such host", "geheim"):
        assert harmful not in failure
    assert "geheim" not in output


@pytest.mark.parametrize(
    ("error", "text"),
    [("RepoNotFound", "does not exist, or is private"), ("GatedRepo", "is gated"), ("", "could not be fetched")],
)
def test_a_download_that_the_hub_refuses_or_does_not_answer_fails(
    hub, tmp_path: Path, monkeypatch, error: str, text: str
) -> None:
    monkeypatch.setattr(Hub, "error", error)
    failure, seconds, output = fetched(hub.server_port, tmp_path, FILES)
    assert text in failure
    assert seconds < 10
    assert "geheim" not in output


@pytest.mark.parametrize("call", [CONFIG, FILES])
def test_a_hub_that_cannot_be_reached_fails_the_load(hub, tmp_path: Path, call: str) -> None:
    port = hub.server_port
    hub.shutdown()
    hub.server_close()
    failure, seconds, output = fetched(port, tmp_path, call)
    assert "could not be fetched" in failure
    assert "; check the name and the network" in failure
    assert "efused" not in failure
    assert seconds < 10
    assert "geheim" not in output
    assert "urllib3" not in output
    assert "Retry(" not in output


class Listing(BaseHTTPRequestHandler):
    """A hub that lists a repository and has none of its files."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def do_GET(self) -> None:
        files = {"model.safetensors": 1_876_000_000, "config.json": 5000, "README.md": 9_000_000_000}
        siblings = [{"rfilename": name, "size": size} for name, size in files.items()]
        answer = json.dumps({"id": "Qwen/Qwen3-ASR-0.6B", "sha": "f" * 40, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("weights", [True, False])
def test_a_download_that_takes_time_is_announced_with_its_size(tmp_path: Path, weights: bool) -> None:
    call = f"import logging; logging.basicConfig(level=20); hub.fetch('Qwen/Qwen3-ASR-0.6B', weights={weights})"
    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        _, _, output = fetched(server.server_port, tmp_path, call)
        server.shutdown()
        thread.join()
    assert ("fetching Qwen/Qwen3-ASR-0.6B: 1.9 GB\n" in output) == weights


def test_an_earlier_download_is_found_without_asking_the_hub(tmp_path: Path) -> None:
    call = 'print(hub.downloaded("Qwen/Qwen3-ASR-0.6B"), hub.downloaded("Qwen/Other"))'
    snapshot = tmp_path / "hub/models--Qwen--Qwen3-ASR-0.6B/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text("abc")
    found, seconds, _ = fetched(1, tmp_path, call)  # nobody listens there
    assert found == f"{snapshot} None"
    assert seconds < 30
