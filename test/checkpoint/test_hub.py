"""The hub, when it is not what one hopes for; asked in a process of its own: the endpoint is read at import."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONFIG = 'hub.fetch_config("Qwen/Qwen3-ASR-0.6B", patience_s=1)'
FILES = 'hub._ANSWER_S = 1; hub.fetch("Qwen/Qwen3-ASR-0.6B")'
ASK = """
import os, time
from backend.checkpoint import hub
from backend.errors import HubFailure
began = time.monotonic()
try:
    {call}
except HubFailure as failure:
    print(failure)
print(time.monotonic() - began, flush=True)
os._exit(0)  # as the backend does: a request that hangs is not waited for
"""


class Hub(BaseHTTPRequestHandler):
    error = ""  # what the hub calls it; "": it never answers
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


def asked(port: int, home: Path, call: str = CONFIG) -> tuple[str, float, str]:
    """What the failure says, how long it took, and everything that the process wrote."""
    process = subprocess.run(
        [sys.executable, "-c", ASK.replace("{call}", call)],
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
    said, seconds = process.stdout.splitlines()
    return said, float(seconds), process.stdout + process.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [("RepoNotFound", "does not exist, or is private"), ("GatedRepo", "is gated"),
     ("EntryNotFound", "has no config.json"), ("Whatever", "could not be fetched"), ("", "could not be fetched")],
)  # fmt: skip
def test_what_the_hub_says_no_with_has_a_remedy(hub, tmp_path: Path, monkeypatch, error: str, said: str) -> None:
    monkeypatch.setattr(Hub, "error", error)
    failure, seconds, everything = asked(hub.server_port, tmp_path)
    assert said in failure
    assert seconds < 10
    for harmful in ("refused", "no such host", "geheim"):
        assert harmful not in failure
    assert "geheim" not in everything


@pytest.mark.parametrize(
    ("error", "said"),
    [("RepoNotFound", "does not exist, or is private"), ("GatedRepo", "is gated"), ("", "could not be fetched")],
)
def test_files_that_the_hub_does_not_give_are_given_up(hub, tmp_path: Path, monkeypatch, error: str, said: str) -> None:
    monkeypatch.setattr(Hub, "error", error)
    failure, seconds, everything = asked(hub.server_port, tmp_path, FILES)
    assert said in failure
    assert seconds < 10
    assert "geheim" not in everything


@pytest.mark.parametrize("call", [CONFIG, FILES])
def test_a_hub_that_is_not_there_is_given_up(hub, tmp_path: Path, call: str) -> None:
    port = hub.server_port
    hub.shutdown()
    hub.server_close()
    failure, seconds, everything = asked(port, tmp_path, call)
    assert "could not be fetched; check the name and the network" in failure
    assert "efused" not in failure
    assert seconds < 10
    assert "geheim" not in everything
