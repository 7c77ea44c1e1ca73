"""Known texts through gRPC, with fakes: task:align, streams, statuses, and plain requests beside them."""

from __future__ import annotations

import grpc
import pytest

from backend.wire import backend_pb2 as pb

TEXT = "[ar:x]\n[00:01.00]Good morning to you.\nTurn on the light, please. (x2)\n\nThank you."
LINES = ["Good morning to you.", "Turn on the light, please.", "Thank you."]


@pytest.fixture
async def lyrics(service, loader):
    """The service with a model that aligns, whose recogniser hears the text."""
    loader.recognizer.answer = lambda _: " ".join(LINES)
    await service.load(Options=["forced_aligner:x", "task:align"])
    return service


async def test_the_prompt_is_the_text_and_its_lines_are_the_segments(lyrics, wav) -> None:
    reply = await lyrics.transcribe(wav(6.0), prompt=TEXT)
    assert [segment.text for segment in reply.segments] == LINES
    assert reply.text == "Good morning to you.\nTurn on the light, please.\n\nThank you."
    assert [word.text for segment in reply.segments for word in segment.words] == " ".join(LINES).split()
    assert all(segment.tokens for segment in reply.segments)
    edges = [edge for segment in reply.segments for word in segment.words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert reply.language == "en"


async def test_a_stream_sends_a_line_at_a_time_and_the_same_result(lyrics, wav) -> None:
    request = pb.TranscriptRequest(dst=str(wav(6.0)), prompt=TEXT, stream=True)
    *deltas, final = [reply async for reply in lyrics.stub.AudioTranscriptionStream(request, timeout=20)]
    assert [reply.delta for reply in deltas] == [LINES[0], "\n" + LINES[1], "\n\n" + LINES[2]]
    assert final.final_result == await lyrics.transcribe(wav(6.0), prompt=TEXT)


async def test_marks_of_the_model_are_removed_and_nothing_else(lyrics, wav) -> None:
    text = "Good <|im_end|>morning to <3 you.<timestamp>\nThank <<|x|>asr_text>you."
    reply = await lyrics.transcribe(wav(6.0), prompt=text)
    assert [segment.text for segment in reply.segments] == ["Good morning to <3 you.", "Thank you."]


async def test_a_line_that_is_not_heard_is_named_in_the_trailing_metadata(lyrics, wav) -> None:
    request = pb.TranscriptRequest(dst=str(wav(6.0)), prompt=f"{LINES[0]}\nNever said at all\n{LINES[2]}")
    call = lyrics.stub.AudioTranscription(request, timeout=20)
    await call
    assert dict(await call.trailing_metadata())["x-asr-warning"].startswith("1 line is not heard (line 2);")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "send the text as `prompt`"),
        ({"prompt": " \n<|im_end|>"}, "send the text as `prompt`"),
        ({"prompt": "[Chorus]\n"}, "send the text as `prompt`"),
        ({"prompt": "secret words"}, "nothing of the text was heard"),
        ({"prompt": "secret " * 80_000}, "longer than 524288 bytes: it has 560000"),
        ({"prompt": TEXT, "language": "th"}, "one of the aligner's languages"),
    ],
)
async def test_a_refusal_has_its_remedy_and_repeats_no_client_text(lyrics, wav, fields, said) -> None:
    refusal = await lyrics.refusal(wav(6.0), **fields)
    assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in refusal.details()
    assert "secret" not in refusal.details()


async def test_the_aligner_is_loaded_by_the_first_request_and_not_by_the_load(lyrics, loader, wav) -> None:
    assert "align x" not in loader.events
    await lyrics.transcribe(wav(6.0), prompt=TEXT)
    await lyrics.transcribe(wav(6.0), prompt=TEXT)
    assert loader.events.count("align x") == 1


async def test_a_plain_model_takes_the_prompt_as_context(service, loader, wav) -> None:
    await service.load(Options=["forced_aligner:x"])
    reply = await service.transcribe(wav(), prompt="Zoë\nAnna")
    assert reply.text.startswith("Heard")
    assert loader.recognizer.utterances[-1].prompt == "Zoë\nAnna"


async def test_an_aligner_alone_needs_no_task(service, loader, wav) -> None:
    loader.kind = "aligner"
    await service.load()
    status = await service.stub.Status(pb.HealthMessage(), timeout=5)
    assert dict(status.memory.breakdown) == {"recognizer": 0, "aligner": 300}
    reply = await service.transcribe(wav(6.0), prompt=TEXT, language="en")
    assert [segment.text for segment in reply.segments] == LINES
    assert (await service.refusal(wav(6.0))).code() == grpc.StatusCode.INVALID_ARGUMENT
