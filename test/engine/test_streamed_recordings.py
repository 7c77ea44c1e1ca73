"""Streams of the demo models through gRPC: the text that the unary call returns, while it is decoded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from grpc_service import Service

from backend.wire import backend_pb2 as pb

pytestmark = pytest.mark.slow


async def streamed(service: Service, path: Path, **fields) -> tuple[list[str], pb.TranscriptResult]:
    request = pb.TranscriptRequest(dst=str(path), stream=True, threads=2, **fields)
    *deltas, final = [reply async for reply in service.stub.AudioTranscriptionStream(request, timeout=120)]
    assert not any(reply.HasField("final_result") for reply in deltas)
    return [reply.delta for reply in deltas], final.final_result


@pytest.mark.parametrize("name", ["demo.wav", "chinese.wav", "left_out.wav", "noise.wav", "long.flac"])
async def test_the_deltas_are_the_text_of_the_unary_call(demo_service, recordings, name: str) -> None:
    """`noise.wav` holds no speech; `long.flac` has many passages."""
    deltas, final = await streamed(demo_service, recordings / name)
    assert "".join(deltas) == final.text
    assert bool(deltas) == bool(final.text)
    assert all(deltas)
    assert final == await demo_service.transcribe(recordings / name)


async def test_streams_that_run_together_are_as_alone_and_their_words_are_there(demo_service, recordings) -> None:
    names = ["demo.wav", "chinese.wav", "left_out.wav"]
    asked = {"timestamp_granularities": ["word"]}
    alone = [(await streamed(demo_service, recordings / name, **asked))[1].text for name in names]
    together = await asyncio.gather(*(streamed(demo_service, recordings / name, **asked) for name in names * 3))
    assert [final.text for _, final in together] == alone * 3
    assert all("".join(deltas) == final.text for deltas, final in together)
    assert all(segment.words for _, final in together for segment in final.segments)
