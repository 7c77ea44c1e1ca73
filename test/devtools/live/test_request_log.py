"""Lines are found by what they are of, and waited for: they are written after the replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devtools.live import request_log
from devtools.live.request_log import line_of, log_of
from devtools.server_process import ServerFailed


class Logging:
    """A server whose log grows by a line at each look."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self._lines = ["listening on 127.0.0.1:1", *(json.dumps(line) for line in lines)]
        self._seen = 0

    def log_lines(self) -> list[str]:
        self._seen += 1
        return self._lines[: self._seen]


def call(request: str, method: str = "AudioTranscriptionLive", **more: Any) -> dict[str, Any]:
    return {"request": request, "method": method, **more}


def test_the_line_of_a_request_is_not_that_of_the_one_before_it() -> None:
    server: Any = Logging(call("a", steps=1), call("c", causes=["b"]), call("b", steps=2), call("d", steps=3))
    assert line_of(server, "b")["steps"] == 2


def test_a_request_without_a_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "_PATIENCE_S", 0.05)
    server: Any = Logging(call("a"))
    with pytest.raises(ServerFailed, match="'b'"):
        line_of(server, "b")


def test_as_many_lines_of_a_method_as_are_wanted() -> None:
    server: Any = Logging(call("a"), call("b", "Health"), call("c"), call("d"))
    assert [line["request"] for line in log_of(server, "AudioTranscriptionLive", 2)] == ["a", "c"]
