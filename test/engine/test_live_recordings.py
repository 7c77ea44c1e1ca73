"""Live streams of the demo models through gRPC: the words of the unary call, and each stream as if it were alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from grpc_service import Service
from live_client import LiveCall, Replies

from backend.transcript.matching import fold
from backend.wire import backend_pb2 as pb

pytestmark = pytest.mark.slow


async def spoken(service: Service, path: Path, pace: float = 0.1, **params: str) -> Replies:
    """The recording, in messages as the gateway sends them, ten times as fast as it was spoken."""
    samples, _ = soundfile.read(path, dtype="float32")
    async with LiveCall(service.stub) as call:
        await call.open(**params)
        await call.send(samples, pace=pace)
        return await call.end()


async def test_live_text_has_the_words_of_the_unary_call_with_their_times(demo_service, recordings) -> None:
    for name in ("demo.wav", "chinese.wav"):
        replies = await spoken(demo_service, recordings / name, timestamp_granularities="word")
        unary = await demo_service.transcribe(recordings / name)
        assert replies.text == replies.final.text
        assert fold(replies.text) == fold(unary.text)
        assert replies.final.language == unary.language
        words = [word for reply in replies.all for word in reply.words]
        assert "".join(word.text for word in words).replace(" ", "") == replies.text.replace(" ", "")
        truth = json.loads((recordings / name).with_suffix(".json").read_text())["words"]
        assert len(words) == len(truth)
        errors = [abs(word.start / 1e9 - start) for word, (_, start, _) in zip(words, truth, strict=True)]
        assert float(np.median(errors)) < 0.1


async def test_an_utterance_ends_at_its_pause_and_not_in_a_sentence(demo_service, recordings) -> None:
    replies = await spoken(demo_service, recordings / "demo.wav")
    utterances, said = [], ""
    for reply in replies.all:
        said += reply.delta
        if reply.eou:
            utterances.append(said.strip())
            said = ""
    assert utterances[:2] == ["The quick brown fox jumps over the lazy dog.", "Good morning."]


async def test_streams_and_a_file_together_are_as_alone(demo_service, recordings) -> None:
    """L13, in float32: a commit does not depend on the decodes before it, nor a row on its neighbours."""
    names = ["demo.wav", "chinese.wav"]
    alone = [(await spoken(demo_service, recordings / name)).text for name in names]
    file = await demo_service.transcribe(recordings / "left_out.wav")
    *together, beside = await asyncio.gather(
        *(spoken(demo_service, recordings / name) for name in names * 2),
        demo_service.transcribe(recordings / "left_out.wav"),
    )
    assert [replies.text for replies in together] == alone * 2
    assert beside == file


async def test_sound_without_speech_has_no_text(demo_service, recordings) -> None:
    replies = await spoken(demo_service, recordings / "noise.wav", pace=0)
    assert replies.all[1:] == [pb.TranscriptLiveResponse(final_result=pb.TranscriptResult(duration=5.0))]
