"""Live streams of any messages in any order through the running server, as part of `make fuzz` and in short."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from backend.wire import backend_pb2 as pb
from devtools.stress.client import EXACT, OK, Server
from devtools.stress.fakes import text_of
from devtools.stress.odd_streams import REFUSED, Config, Message, Sound, expected, streams
from devtools.stress.plan import Plan
from devtools.stress.profile import Profile
from devtools.stress.results import Results

pytestmark = pytest.mark.slow


def answer(server: Server, messages: list[Message]) -> tuple[str, list[pb.TranscriptLiveResponse], str]:
    """Status, replies and details."""
    replies: list[pb.TranscriptLiveResponse] = []
    try:
        for reply in server.stub.AudioTranscriptionLive(iter([each.message for each in messages]), timeout=20):
            replies.append(reply)  # noqa: PERF402 - those before an error, too
    except grpc.RpcError as error:
        return error.code().name, replies, error.details() or ""
    return OK, replies, ""


def problems(messages: list[Message], status: str, replies: list[pb.TranscriptLiveResponse], details: str) -> list[str]:
    wanted, text = expected(messages)
    finals = [reply.final_result.text for reply in replies if reply.HasField("final_result")]
    configs = sum(isinstance(message, Config) for message in messages)
    told = "".join(reply.delta for reply in replies)
    found = {
        f"{status} instead of {wanted}: {details}": status != wanted,
        f"final results {finals} instead of {text!r}": finals != ([] if text is None else [text]),
        "deltas that are not the final text": configs == 1 and text is not None and told != text,
        "ready is not the first reply, once": status == OK
        and [reply.ready for reply in replies] != [number == 0 for number in range(len(replies))],
        "an error that makes the gateway evict the model": "connection" in details.lower(),
    }
    return [problem for problem, is_there in found.items() if is_there]


@pytest.mark.fuzz
async def test_any_messages_in_any_order_have_their_answer(profile: Profile, results: Results) -> None:
    results.measure = "live streams of odd messages"
    statuses, failures = Counter[str](), list[str]()
    with Server() as server:
        server.load_plan(Plan(steps=1, step_s=0.0001))

        @seed(profile.seed)
        @settings(max_examples=profile.cases // 5, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(streams)
        def send(messages: list[Message]) -> None:
            status, replies, details = answer(server, messages)
            statuses[status] += 1
            if wrong := problems(messages, status, replies, details):
                failures.append(f"{messages}: {', '.join(wrong)}")

        await asyncio.to_thread(send)
        golden = await server.golden()
    shown = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    results.check(f"{statuses.total()} streams", shown, "as the contract says", not failures, "; ".join(failures[:3]))
    results.check("golden request", golden, EXACT, golden == EXACT)
    assert statuses[OK] > 5 < statuses[REFUSED]


def test_what_is_expected() -> None:
    noise = Sound(1, 1_536)
    assert expected([]) == (OK, None)
    assert expected([noise]) == (REFUSED, None)
    assert expected([Config()]) == (OK, "")
    assert expected([Config(sample_rate=8_000)]) == (REFUSED, None)
    assert expected([Config(), Sound(1, 512, flaw=float("nan"))]) == (REFUSED, None)
    later = Sound(2, 1_025)
    assert expected([Config(), noise, Config(language="en"), later]) == (OK, text_of(later.samples, "", "en"))
    assert expected([Config(), Sound(1, 1_024)]) == (OK, "")  # shorter than speech
    loud = Sound(1, 1_536, level=3.0)
    assert expected([Config(), loud]) == (OK, text_of(np.clip(loud.samples, -1, 1)))
