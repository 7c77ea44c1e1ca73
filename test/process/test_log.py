from __future__ import annotations

import contextvars
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.process import log
from backend.process.request_stats import RequestStats, set_current_stats


def shown(message: str, *arguments: object, name: str = "backend.x", fault: Exception | None = None) -> str:
    info = (type(fault), fault, fault.__traceback__) if fault else None
    return log.LogLines().format(logging.LogRecord(name, logging.INFO, "f", 1, message, arguments, info))


@given(st.text())
def test_no_message_makes_two_lines(text: str) -> None:
    assert len(shown("%s", text).splitlines()) == 1


@given(st.text())
def test_no_traceback_makes_a_line_that_begins_like_a_log_line(text: str) -> None:
    first, *trace = shown("failed", fault=RuntimeError(text)).splitlines()
    assert first.endswith("INFO backend.x: failed")
    assert all(line.startswith("    ") for line in trace)


def test_control_characters_are_escaped() -> None:
    assert shown("a\nb\x1b[31m\x00\u2028").endswith(r"a\nb\x1b[31m\x00\u2028")


def test_a_line_logged_during_a_request_names_it() -> None:
    def inside() -> str:
        set_current_stats(RequestStats("abc-1"))
        return shown("the aligner failed")

    assert contextvars.copy_context().run(inside).endswith("the aligner failed [request abc-1]")
    assert "[request" not in shown("listening")


@given(st.text())
def test_a_request_is_one_line_of_json_in_ascii(text: str) -> None:
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(log.LogLines().format(record))

    handler, logger = Handler(), logging.getLogger(log.REQUESTS)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        log.write_request({"finish": text})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert written[0].isascii()
    assert len(written[0].splitlines()) == 1
    line = json.loads(written[0])
    assert line["finish"] == text
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("name", ["backend", "backend.wire.servicer", "grpc", "asyncio", "root"])
def test_no_sentence_begins_like_json(name: str) -> None:
    assert not shown('{"time": 1}', name=name).startswith("{")
