"""Servers that fail: what a request is answered with, what is logged, and that the next request is served."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import grpc
import pytest
from decoder_processes import until

from backend.wire import backend_pb2 as pb
from devtools.vllm_server import Asked, Said, VllmServer, tagged

HARMFUL = ("connection refused", "connection reset", "no such host", "unavailable", "model not loaded")
KEY = "sk-hunter2"
GOLDEN = "The quick brown fox jumps over the lazy dog."
SHORT = ("engine_timeout_seconds:1", "engine_api_key_env:TEST_KEY")


def golden(asked: Asked) -> Said:
    return tagged(GOLDEN, asked)


@pytest.fixture(autouse=True)
def key(monkeypatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def assert_harmless(text: str) -> None:
    assert not any(words in text.lower() for words in HARMFUL)
    assert KEY not in text
    assert not re.search(r"0\.\d{6}", text)  # samples


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("wrong key", "refuses the API key"),
        ("400 with samples", "refused a passage"),
        ("500", "failed"),
        ("overloaded", "has too much to do"),
        ("redirect", "answers as no vLLM server does"),
        ("web page", "answers as no vLLM server does"),
        ("garbage", "answers as no vLLM server does"),
        ("hang", "did not answer in time"),
        ("hang in the middle", "did not answer in time"),
        ("die", "cannot be reached"),
        ("die in the middle", "ended its answer in the middle"),
        ("no end", "ended its answer in the middle"),
        ("error in the stream", "failed"),
    ],
)
async def test_a_fault_is_a_status_with_its_cause_and_nothing_else(
    vllm, backend, wav, log, fault: str, cause: str
) -> None:
    server = vllm(answer=golden, key=KEY)
    service = await backend([server], *SHORT)
    server.fault = fault
    refusal = await service.refusal(wav())
    assert refusal.code() == grpc.StatusCode.INTERNAL
    assert cause in refusal.details()
    assert_harmless(refusal.details())
    assert cause in log.text
    assert_harmless(log.text)
    server.fault = ""
    assert (await service.transcribe(wav())).text == GOLDEN


@pytest.mark.parametrize("fault", ["400 with samples", "500", "die", "die in the middle", "hang", "wrong key"])
async def test_a_passage_that_failed_is_recognised_on_another_server(vllm, backend, wav, log, fault: str) -> None:
    first, second = vllm(answer=golden, key=KEY), vllm(answer=golden, key=KEY)
    service = await backend([first, second], *SHORT)
    first.fault = fault
    replies = await asyncio.gather(*(service.transcribe(wav()) for _ in range(4)))
    assert {reply.text for reply in replies} == {GOLDEN}
    assert_harmless(log.text)


async def test_a_passage_is_tried_on_two_servers_and_no_more(vllm, backend, wav) -> None:
    servers = [vllm(answer=golden) for _ in range(3)]
    service = await backend(servers)
    for server in servers:
        server.asked.clear()
        server.fault = "500"
    await service.refusal(wav())
    assert sum(len(server.asked) for server in servers) == 2


async def test_servers_that_have_gone_are_named_without_the_words_that_evict(backend, wav, log) -> None:
    servers = [VllmServer(answer=golden), VllmServer(answer=golden)]
    with servers[0].running(), servers[1].running():
        service = await backend(servers)
        assert (await service.transcribe(wav())).text == GOLDEN
    refusal = await service.refusal(wav())
    assert (refusal.code(), "cannot be reached" in refusal.details()) == (grpc.StatusCode.INTERNAL, True)
    assert_harmless(refusal.details())
    assert servers[0].url in log.text
    with servers[0].running(servers[0].port):
        assert (await service.transcribe(wav())).text == GOLDEN


async def test_a_server_that_is_slow_but_not_silent_is_waited_for(vllm, backend, wav) -> None:
    server = vllm(answer=golden, fault="slow")
    assert (await (await backend([server])).transcribe(wav())).text == GOLDEN


async def test_an_answer_has_a_time_however_many_pieces_come(vllm, backend, wav) -> None:
    """0.02 s each, a thousand of them."""
    server = vllm(answer=golden)
    service = await backend([server], "engine_timeout_seconds:1")
    server.answer = lambda asked: tagged(" ".join(map(str, range(1000))), asked)
    server.fault = "slow"
    assert "did not answer in time" in (await service.refusal(wav())).details()
    await until(lambda: server.hung_up == 1)


async def test_a_loop_closes_the_connection_and_is_collapsed(vllm, backend, wav) -> None:
    server = vllm(answer=golden)
    service = await backend([server])
    server.fault = "endless loop"
    reply = await service.transcribe(wav(1.0))
    assert reply.text.startswith(f"{GOLDEN} and so on")
    assert len(reply.text) < 3 * len(GOLDEN)
    await until(lambda: server.hung_up == 2)  # a short passage is tried once more, with the strongest penalty
    assert [asked.fields["repetition_penalty"] > 1 for asked in server.asked[-2:]] == [False, True]
    server.fault = ""
    assert (await service.transcribe(wav())).text == GOLDEN


async def test_a_server_that_ignores_the_budget_is_left(vllm, backend, wav) -> None:
    server = vllm(answer=golden)
    service = await backend([server], "max_new_tokens:40")
    server.fault = "endless text"
    assert (await service.transcribe(wav(1.0))).text.startswith("The quick")
    await until(lambda: server.hung_up == 1 and server.in_flight == 0)


async def test_an_answer_that_its_budget_cut_is_recognised_in_halves(vllm, backend, wav) -> None:
    def answer(asked: Asked) -> Said:
        if asked.samples.size > 40_000:
            return Said("language English<asr_text>One two", "length")
        return tagged("Half a text.", asked)

    service = await backend([vllm(answer=answer)], "max_chunk_seconds:10")
    assert (await service.transcribe(wav(4.0))).text == "Half a text. Half a text."


async def test_an_answer_in_another_language_than_the_rest_is_asked_for_again(vllm, backend, bursts, tmp_path) -> None:
    import soundfile

    def answer(asked: Asked) -> Said:
        if asked.samples.size < 32_000 and not asked.beginning:
            return Said("language Chinese<asr_text>狐狸")
        return tagged("And this is some more English text.", asked)

    path = tmp_path / "recording.wav"
    soundfile.write(path, bursts(6.0, 1.2, 6.0, pause_s=4.0), 16_000, subtype="FLOAT")
    server = vllm(answer=answer)
    service = await backend([server], "max_chunk_seconds:7")
    reply = await service.transcribe(path)
    assert reply.language == "en"
    assert "language English<asr_text>" in [asked.beginning for asked in server.asked[3:]] or "狐狸" in reply.text


@pytest.mark.parametrize(("fault", "language"), [("no language tag", ""), ("wrong language", "zh")])
async def test_a_wrong_or_missing_language_keeps_the_text(vllm, backend, wav, fault: str, language: str) -> None:
    server = vllm(answer=golden)
    service = await backend([server])
    server.fault = fault
    reply = await service.transcribe(wav())
    assert (reply.text, reply.language) == (GOLDEN, language)
    assert (await service.transcribe(wav(), language="en")).language == "en"
    server.fault = ""
    assert (await service.transcribe(wav())).language == "en"


async def test_a_server_that_begins_a_forced_answer_anew_is_no_server(vllm, backend, wav) -> None:
    """Its tag would stand in the text."""
    server = vllm(answer=golden)
    service = await backend([server])
    server.fault = "starts anew"
    assert "does not go on from a given language" in (await service.refusal(wav(), language="en")).details()
    server.fault = ""
    assert (await service.transcribe(wav(), language="en")).text == GOLDEN


@pytest.mark.parametrize("fault", ["hang", "hang in the middle", "slow"])
async def test_a_request_that_is_cancelled_closes_its_connections(vllm, backend, wav, fault: str) -> None:
    server = vllm(answer=golden)
    service = await backend([server])
    if fault == "slow":  # of an answer that hangs, so many words would exceed the budget before its middle
        server.answer = lambda asked: tagged(" ".join(map(str, range(1000))), asked)
    server.fault = fault
    call = service.stub.AudioTranscription(pb.TranscriptRequest(dst=str(wav())))
    await until(lambda: server.in_flight == 1)
    call.cancel()
    await until(lambda: server.in_flight == 0 and server.hung_up > 0)


async def test_free_and_a_new_load_work_while_a_server_hangs(vllm, backend, wav, asr_folder: Path) -> None:
    server = vllm(answer=golden)
    service = await backend([server], "engine_timeout_seconds:2")
    server.fault = "hang"
    hanging = asyncio.ensure_future(service.refusal(wav()))
    await until(lambda: server.in_flight == 1)
    await service.stub.Free(pb.HealthMessage(), timeout=5)
    server.fault = ""
    result = await service.load(ModelFile=str(asr_folder), Options=[f"engine_url:{server.url}"])
    assert result.success
    assert (await service.transcribe(wav())).text == GOLDEN
    assert "did not answer in time" in (await hanging).details()


async def test_the_key_is_in_no_line_of_the_log(vllm, backend, wav, log) -> None:
    server = vllm(answer=golden, key=KEY)
    logging.getLogger("backend").setLevel(logging.DEBUG)
    service = await backend([server], *SHORT)
    await service.transcribe(wav())
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in log.text
