"""Other programs beside ours in `clip`, `long` and `crowd`: a server that speaks OpenAI's API, or a command.

    PEERS="vllm=http://127.0.0.1:8000/v1#Qwen/Qwen3-ASR-1.7B whisper=http://127.0.0.1:8080/v1"
    PEER_COMMAND="cpp=whisper-cli -m ggml-base.bin -np -nt -f {audio} ; other=sh -c 'transcribe {audio} | tail -1'"

They are started and stopped by whoever has them. A command starts for each recording, and its standard output is the
text; there is no shell unless it is named. `PEER_API_KEY` of the environment is sent to the servers.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devtools.bench.measurement import Failed
from devtools.bench.system import Reply, System

TIMEOUT_S = 3600.0
_SHOWN = 200  # characters of what a peer said when it failed
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Peer:
    """`ask` returns the text of a recording. Raises Failed."""

    system: System
    ask: Callable[[Path], str]

    def transcribe(self, audio: Path) -> Reply:
        """The transcript of a recording. Raises Failed."""
        began = time.monotonic()
        text = self.ask(audio)
        return Reply(text, time.monotonic() - began, "")


def url_peers(text: str) -> list[Peer]:
    """NAME=URL or NAME=URL#MODEL, with spaces between them. Raises Failed."""
    return [_url_peer(*_named("PEERS", part)) for part in text.split()]


def command_peers(text: str) -> list[Peer]:
    """NAME=COMMAND, with ` ; ` between them; `{audio}` in it is the recording's path. Raises Failed."""
    return [_command_peer(*_named("PEER_COMMAND", part.strip())) for part in text.split(" ; ") if part.strip()]


def _named(variable: str, part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    if not name.strip() or not value.strip() or " " in name.strip():
        raise Failed(f'{variable}: "{part}" must be NAME=VALUE')
    return name.strip(), value.strip()


def _url_peer(name: str, value: str) -> Peer:
    url, _, model = value.partition("#")
    host = urllib.parse.urlsplit(url)
    if host.scheme not in ("http", "https") or not host.hostname:
        raise Failed(f'PEERS: "{url}" of {name} is no URL such as http://127.0.0.1:8000/v1')
    system = System(name, (), note=f"{name}: {model or 'its own model'}, over HTTP")
    return Peer(system, lambda audio: _post(name, url.rstrip("/"), model, audio))


def _post(name: str, url: str, model: str, audio: Path) -> str:
    """POST URL/audio/transcriptions, as OpenAI's API has it."""
    boundary = uuid.uuid4().hex
    fields = {"model": model or "default", "response_format": "json"}
    field = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{field}"{key}"\r\n\r\n{value}' for key, value in fields.items()]
    head = f'{field}"file"; filename="{audio.name}"'
    body = "\r\n".join([*parts, f"{head}\r\nContent-Type: application/octet-stream\r\n\r\n"]).encode()
    body += audio.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(f"{url}/audio/transcriptions", body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    if key := os.environ.get("PEER_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    # a proxy has no way to this machine's loopback
    handlers = [urllib.request.ProxyHandler({})] if urllib.parse.urlsplit(url).hostname in _LOOPBACK else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as reply:
            return _text(name, reply.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        said = error.read().decode("utf-8", "replace").strip()[:_SHOWN]
        raise Failed(f"{name}: HTTP status {error.code}: {said}") from error
    except OSError as error:
        raise Failed(f"{name}: {getattr(error, 'reason', error)}; is it there, at {url}?") from error


def _text(name: str, said: str) -> str:
    """Of a JSON reply; some servers answer plain text whatever they are asked for."""
    try:
        reply = json.loads(said)
    except json.JSONDecodeError:
        return said.strip()
    if not isinstance(reply, dict) or not isinstance(reply.get("text"), str):
        raise Failed(f'{name}: its reply has no "text": {said[:_SHOWN]}')
    return str(reply["text"]).strip()


def _command_peer(name: str, value: str) -> Peer:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise Failed(f"PEER_COMMAND: {name}: {error}") from error
    if not any("{audio}" in word for word in words):
        raise Failed(f"PEER_COMMAND: {name}: {{audio}} must stand where the recording's path belongs")
    system = System(name, (), note=f"{name}: a process for each recording, which loads its model each time")
    return Peer(system, lambda audio: _output(name, [word.replace("{audio}", str(audio)) for word in words]))


def _output(name: str, command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise Failed(f"{name}: there is no command {command[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{name}: {error}") from error
    if done.returncode:
        raise Failed(f"{name}: exit code {done.returncode}: {done.stderr.strip()[-_SHOWN:]}")
    return done.stdout.strip()
