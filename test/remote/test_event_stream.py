"""Whatever a server sends is an answer or a fault, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.remote.event_stream import Piece, pieces_of
from backend.remote.faults_of_servers import CUT_OFF, FAILED, FOREIGN, Fault, ServerFailure


def event(content: object, finish: object = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": content}, "finish_reason": finish}]}).encode()


def test_pieces_end_with_the_reason() -> None:
    lines = [b": ping\n", b"\n", event(None), event("The"), b'data: {"choices": [], "usage": {}}', b"event: x",
             event(" fox"), event("", "stop"), event("never seen")]  # fmt: skip
    assert list(pieces_of(lines)) == [Piece("", ""), Piece("The", ""), Piece(" fox", ""), Piece("", "stop")]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([], CUT_OFF),
        ([event("The")], CUT_OFF),
        ([event("The"), b"data: [DONE]\n"], CUT_OFF),
        ([b'data: {"error": {"message": "x"}}'], FAILED),
        ([b"data: {"], FOREIGN),
        ([b"data: []"], FOREIGN),
        ([b"data: null"], FOREIGN),
        ([b"data: {}"], FOREIGN),
        ([b'data: {"choices": [{}]}'], FOREIGN),
        ([b'data: {"choices": 5}'], FOREIGN),
        ([event(5)], FOREIGN),
        ([event("", 5)], FOREIGN),
        ([b"data: " + b"[" * 100_000], FOREIGN),
    ],
)
def test_what_is_no_answer_is_a_fault(lines: list[bytes], fault: Fault) -> None:
    with pytest.raises(ServerFailure) as caught:
        list(pieces_of(lines))
    assert caught.value.fault is fault


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "content", "finish_reason", "error"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=40) | JSON.map(lambda value: b"data: " + json.dumps(value).encode()), max_size=6))
def test_nothing_else_is_raised(lines: list[bytes]) -> None:
    try:
        pieces = list(pieces_of(lines))
    except ServerFailure:
        return
    assert pieces[-1].finish
