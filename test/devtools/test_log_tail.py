"""What of a server's log stands above its cause."""

from __future__ import annotations

import pytest

from devtools.log_tail import show_log_tail

REFUSED = "2026-11-30 12:41:22,760 WARNING backend.wire.servicer: LoadModel refused: option 'x' is wrong [request a4fd]"
INFO = "2026-11-30 12:41:18,359 INFO backend.server: listening on 127.0.0.1:36923, pid 2570"
JSON = '{"method": "LoadModel", "code": "INVALID_ARGUMENT"}'


def test_a_cause_stands_alone_where_the_log_has_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    show_log_tail([INFO, REFUSED, JSON], "the model was not loaded: option 'x' is wrong")
    hub = "2026-11-30 12:44:36,816 WARNING backend.checkpoint.hub: the hub: MaxRetryError < ConnectionRefusedError"
    show_log_tail([INFO, hub, JSON], "the hub repository 'a/b' could not be fetched (ECONNREFUSED); check the name")
    assert capsys.readouterr().err == ""


def test_warnings_traces_and_foreign_lines_are_shown_the_newest_ones(capsys: pytest.CaptureFixture[str]) -> None:
    trace = ["2026-11-30 12:41:22,760 ERROR backend: it failed", "    Traceback (most recent call last):", "Killed"]
    show_log_tail([*["noise"] * 40, INFO, REFUSED, *trace, JSON], "another cause")
    printed = capsys.readouterr().err.splitlines()
    assert printed == ["the end of the backend's log:", *["noise"] * 16, REFUSED, *trace]
