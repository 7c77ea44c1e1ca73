"""AudioTranscriptionStream over servers: text leaves while they say it."""

from __future__ import annotations

import threading
from pathlib import Path

from decoder_processes import until

from backend.wire import backend_pb2 as pb
from devtools.vllm_server import tagged

TEXT = "The quick brown fox jumps over the lazy dog. Good morning. Please open the door and turn on the light."


async def streamed(service, path: Path) -> tuple[list[str], pb.TranscriptResult]:
    replies = [
        reply async for reply in service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst=str(path)), timeout=60)
    ]
    *deltas, final = replies
    return [reply.delta for reply in deltas], final.final_result


async def test_deltas_leave_before_the_answer_has_ended(vllm, backend, wav) -> None:
    """The server says the second half only when the first half has left the backend."""
    half = threading.Event()
    server = vllm(answer=lambda asked: tagged(TEXT, asked))
    service = await backend([server])
    server.pause = lambda number: number == 12 and half.wait(20)
    call = service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst=str(wav(10.0))), timeout=60)
    deltas, text = "", ""
    async for reply in call:
        half.set()
        deltas, text = deltas + reply.delta, reply.final_result.text
    assert deltas == text == TEXT


async def test_the_deltas_of_many_passages_are_the_final_text(vllm, backend, wav) -> None:
    servers = [vllm(answer=lambda asked: tagged(f"Heard {asked.samples.size} samples.", asked)) for _ in range(3)]
    service = await backend(servers, "max_chunk_seconds:2")
    deltas, final = await streamed(service, wav(30.0))
    assert "".join(deltas) == final.text
    assert final.text.count("Heard") >= 15
    assert all(server.asked[2:] for server in servers)


async def test_a_stream_whose_server_dies_goes_on_with_another_one(vllm, backend, wav) -> None:
    """It says the same, so nothing that has left changes."""
    servers = [vllm(answer=lambda asked: tagged(TEXT, asked)) for _ in range(2)]
    service = await backend(servers)
    servers[0].fault = "die in the middle"
    deltas, final = await streamed(service, wav(10.0))
    assert "".join(deltas) == final.text == TEXT


async def test_a_stream_that_is_cancelled_closes_its_connections(vllm, backend, wav) -> None:
    server = vllm(answer=lambda asked: tagged(TEXT, asked))
    service = await backend([server])
    server.fault = "hang in the middle"
    call = service.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst=str(wav())))
    await until(lambda: server.in_flight == 1)
    call.cancel()
    await until(lambda: server.in_flight == 0 and server.hung_up > 0)
