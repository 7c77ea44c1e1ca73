"""Peers: a small HTTP server that speaks OpenAI's API, a shell command, and what is said of those that fail."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import pytest

from devtools.bench import transcription
from devtools.bench.__main__ import OF_PEERS, main, measures_of, parse
from devtools.bench.benchmark import FORMATS, Benchmark
from devtools.bench.measurement import Failed
from devtools.bench.peers import command_peers, url_peers
from devtools.bench.system import BASELINE, Reply


class Api(http.server.BaseHTTPRequestHandler):
    """Says the name, the size and the model of what it got; `answer` overrides that."""

    answer: tuple[int, str] | None = None
    seen: list[dict[str, str]] = []  # noqa: RUF012 - one list for the handlers of all requests

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form: Any = BytesParser(policy=HTTP).parsebytes(head + body)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        sound = fields["file"].get_payload(decode=True)
        model = fields["model"].get_payload(decode=True).decode()
        self.seen.append({"path": self.path, "key": self.headers.get("Authorization", "")})
        text = f"{fields['file'].get_filename()} of {len(sound)} bytes by {model}"
        status, said = self.answer or (200, json.dumps({"text": f" {text}\n"}))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def api() -> Iterator[str]:
    Api.answer, Api.seen = None, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "a clip.wav"
    path.write_bytes(b"\r\n--\x00" * 100)
    return path


def test_a_server_gets_the_file_as_openai_clients_send_it(api: str, audio: Path, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # has no way to the loopback
    named, unnamed = url_peers(f"a={api}/#some/model b={api}")
    assert named.transcribe(audio).text == "a clip.wav of 500 bytes by some/model"
    assert unnamed.transcribe(audio).text.endswith("by default")
    monkeypatch.setenv("PEER_API_KEY", "x-key")
    assert named.transcribe(audio).took_s > 0
    assert [each["path"] for each in Api.seen] == ["/v1/audio/transcriptions"] * 3
    assert [each["key"] for each in Api.seen] == ["", "", "Bearer x-key"]


@pytest.mark.parametrize(
    ("answer", "text"), [((200, "plain text\n"), "plain text"), ((200, '{"text": "", "segments": []}'), "")]
)
def test_a_server_may_answer_in_plain_text_or_with_nothing(api: str, audio: Path, answer, text: str) -> None:
    Api.answer = answer
    assert url_peers(f"a={api}")[0].transcribe(audio).text == text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, "out of memory"), "a: HTTP status 500: out of memory"),
        ((200, '{"error": "no"}'), 'a: its reply has no "text"'),
        ((200, "[1]"), 'a: its reply has no "text"'),
    ],
)
def test_a_server_that_fails_is_named_with_what_it_said(api: str, audio: Path, answer, said: str) -> None:
    Api.answer = answer
    with pytest.raises(Failed, match=said):
        url_peers(f"a={api}")[0].transcribe(audio)


def test_a_server_that_is_not_there_is_an_error_before_anything_is_measured(api: str, capsys) -> None:
    gone = "http://127.0.0.1:9/v1"
    assert main(["--peers", f"a={gone}", "--rivals", "peers"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bench: a: ")
    assert said.endswith(f"; is it there, at {gone}?\n")


def test_a_command_prints_the_text_of_a_path_with_spaces(audio: Path) -> None:
    first, second = command_peers("one=sh -c 'echo noise >&2; basename \"$0\"' {audio} ; two=cat {audio}")
    assert first.transcribe(audio).text == "a clip.wav"
    assert [first.system.name, second.system.name] == ["one", "two"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("a=sh -c 'echo broke >&2; exit 3' {audio}", "a: exit code 3: broke"),
        ("a=no-such-command {audio}", "a: there is no command no-such-command"),
        ("a=cat", r"a: \{audio\} must stand where"),
        ("a=sh -c 'x {audio}", "PEER_COMMAND: a: No closing quotation"),
        ("cat {audio}", 'PEER_COMMAND: "cat {audio}" must be NAME=VALUE'),
    ],
)
def test_a_command_that_fails_is_named_with_what_it_said(audio: Path, command: str, said: str) -> None:
    with pytest.raises(Failed, match=said):
        command_peers(command)[0].transcribe(audio)


@pytest.mark.parametrize("peers", ["a", "a=", "a=ftp://x/v1", "a=127.0.0.1:80"])
def test_what_is_no_url_is_refused(peers: str) -> None:
    with pytest.raises(Failed, match="PEERS"):
        url_peers(peers)


def test_peers_alone_need_one_and_measure_what_they_can(capsys) -> None:
    with pytest.raises(SystemExit):
        parse(["--rivals", "peers"])
    assert "needs --peers or --peer-command" in capsys.readouterr().err
    peers = tuple(command_peers("a=cat {audio}"))
    assert tuple(measures_of(Benchmark(peers=peers, rivals="peers"))) == OF_PEERS
    assert BASELINE not in Benchmark(peers=peers, rivals="peers").systems
    assert set(measures_of(Benchmark(peers=peers))) > set(OF_PEERS)


def test_peers_stand_in_the_table_of_clips_and_crowds(monkeypatch) -> None:
    class Server:
        system = FORMATS["bf16"]

        def transcribe(self, audio: Path) -> Reply:
            return Reply("ours says", 0.1, "")

    bench = Benchmark(runs=2, formats=("bf16",), rivals="peers", peers=tuple(command_peers("cat=echo {audio}")))
    monkeypatch.setattr(Benchmark, "servers", lambda *_, **__: FakeServers({Server.system: Server()}))
    rows = [*transcription.clip(bench), *transcription.crowd(bench)]
    assert {(row.ours, row.theirs) for row in rows} == {("ours bf16", "cat")}
    assert [row.measure for row in rows[:2]] == ["11 s clip", "8 clips at once, the first, p50"]
    assert "words: ours bf16 2, cat 1" in rows[0].note
    assert all(len(row.pairs) == 2 for row in rows if "first" not in row.measure)
    assert not any(row.mismatches for row in rows)


class FakeServers(dict):
    def __enter__(self) -> FakeServers:
        return self

    def __exit__(self, *_: object) -> None:
        return
