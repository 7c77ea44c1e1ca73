"""The door: who may call, and with how much."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from backend.errors import TokenRefused
from backend.process.operator_token import operator_token
from backend.wire import backend_pb2 as pb

TOKEN = "geheim"
RIGHT = ("authorization", "Bearer geheim")
WRONG = {
    "none": (),
    "empty": (("authorization", ""),),
    "no scheme": (("authorization", "geheim"),),
    "another scheme": (("authorization", "Basic geheim"),),
    "another case": (("authorization", "bearer geheim"),),
    "token in another case": (("authorization", "Bearer GEHEIM"),),
    "a part of it": (("authorization", "Bearer gehei"),),
    "more than it": (("authorization", "Bearer geheim2"),),
    "two spaces": (("authorization", "Bearer  geheim"),),
    "several": (RIGHT, RIGHT),
    "wrong and right": (("authorization", "Bearer wrong"), RIGHT),
    "right and wrong": (RIGHT, ("authorization", "Bearer wrong")),
    "another key": (("proxy-authorization", "Bearer geheim"),),
    "bytes": (("authorization-bin", b"Bearer geheim"),),
}
METHODS = ["Health", "LoadModel", "AudioTranscription", "Status", "Free", "AudioTranscriptionStream"]
METHODS += ["AudioTranscriptionLive", "NoSuchMethod"]
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


async def first_answer(port: int, method: str, metadata: tuple) -> grpc.StatusCode:
    """The status of a call that is opened as a stream and on which nothing is ever sent."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.aio.StreamStreamCall = channel.stream_stream(method)(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.read(), 10)
        return caught.value.code()


@pytest.mark.parametrize("metadata", WRONG.values(), ids=WRONG)
async def test_every_call_without_the_token_is_refused_before_it_has_sent_a_message(serve, metadata) -> None:
    service = await serve(token=TOKEN)
    for method in [*(f"/backend.Backend/{name}" for name in METHODS), REFLECTION, "/", "/a/b/c"]:
        assert await first_answer(service.port, method, metadata) == grpc.StatusCode.UNAUTHENTICATED, method
    for call in (
        service.stub.Health(pb.HealthMessage(), metadata=metadata),
        service.stub.LoadModel(pb.ModelOptions(Model="demo"), metadata=metadata),
        service.stub.AudioTranscription(pb.TranscriptRequest(dst="/x"), metadata=metadata),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        details = caught.value.details()
        assert details is not None
        assert TOKEN not in details


async def test_the_first_refusal_of_each_kind_is_a_line_that_names_the_variable(serve, log) -> None:
    """A gateway whose Health is refused says only that the backend is not ready: the log has to say why."""
    service = await serve(token=TOKEN)
    wrong = (("authorization", "Bearer not-the-token"),)
    for metadata in ((), wrong, (), wrong, ()):
        with pytest.raises(grpc.aio.AioRpcError):
            await service.stub.Health(pb.HealthMessage(), metadata=metadata)
    assert (await service.stub.Health(pb.HealthMessage(), metadata=(RIGHT,))).message == b"OK"
    refusals = [line for line in log.text.splitlines() if "LOCALAI_GRPC_AUTH_TOKEN" in line]
    assert len(refusals) == 2
    assert "WARNING" in refusals[0]
    assert "Health was refused: it carries no token" in refusals[0]
    assert "Health was refused: it carries another token" in refusals[1]
    assert TOKEN not in log.text
    assert "not-the-token" not in log.text


async def test_no_name_that_a_client_made_up_is_in_the_line_of_a_refusal(serve, log) -> None:
    service = await serve(token=TOKEN)
    assert await first_answer(service.port, "/forged/Name", ()) == grpc.StatusCode.UNAUTHENTICATED
    assert "LOCALAI_GRPC_AUTH_TOKEN" in log.text
    assert "forged" not in log.text


async def test_with_the_token_known_methods_are_served_and_others_unimplemented(serve) -> None:
    service = await serve(token=TOKEN)
    assert (await service.stub.Health(pb.HealthMessage(), metadata=(RIGHT,))).message == b"OK"
    for method in ("/backend.Backend/NoSuchMethod", REFLECTION):
        assert await first_answer(service.port, method, (RIGHT,)) == grpc.StatusCode.UNIMPLEMENTED


async def test_a_token_with_non_ascii_letters_is_compared_exactly(serve) -> None:
    service = await serve(token="geheim-ß")
    for sent in ("Bearer geheim-?", "Bearer geheim-"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.Health(pb.HealthMessage(), metadata=(("authorization", sent),))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


MANY = 300_000
ABSURD = {
    "a path without end": ({"path": "/x" * MANY * 2}, "larger than"),
    "a language without end": ({"language": "-" * MANY}, "unknown language"),
    "a prompt without end": ({"prompt": "x" * MANY}, "prompt is longer"),
    "granularities without end": ({"timestamp_granularities": ["word"] * 5000}, "granularities"),
    "a path that is too long": ({"path": "/x" * MANY}, "no such file"),
    "a path with a NUL": ({"path": "/tmp/a\0b"}, "no such file"),
}


@pytest.mark.parametrize(("fields", "said"), ABSURD.values(), ids=ABSURD)
async def test_oversized_requests_are_refused_with_a_short_message(service, wav, fields: dict, said: str) -> None:
    await service.load()
    refusal = await service.refusal(**{"path": wav(), **fields})
    assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in refusal.details()
    assert len(refusal.details()) < 300


async def test_unknown_granularities_are_ignored(service, wav) -> None:
    await service.load()
    assert (await service.transcribe(wav(), timestamp_granularities=["phoneme", "", "\0"] * 30)).text


@pytest.mark.parametrize("name", ["y" * 500_000, "connection refused", "no such host\n", "model not loaded", "\x1b[2J"])
async def test_an_identity_is_quoted_shortened_and_harmless(service, wav, name: str) -> None:
    await service.load()
    refusal = await service.refusal(wav(), ModelIdentity=name)
    assert refusal.code() == grpc.StatusCode.NOT_FOUND
    assert refusal.details().startswith("model identity mismatch: loaded 'demo', requested '")
    assert len(refusal.details()) < 300
    assert refusal.details().isprintable()
    for harmful in ("connection refused", "no such host", "model not loaded"):
        assert harmful not in refusal.details()


@pytest.mark.parametrize(
    "fields",
    [{"Model": "z" * 100_000}, {"Model": "m", "Options": ["q" * 100_000]}, {"Model": "m", "EngineArgs": "[" * 100_000},
     {"Model": "m", "Quantization": "connection refused"}, {"Model": "m", "MainGPU": "no such host"},
     {"Model": "m", "MainGPU": "9" * 5000}, {"Model": "m", "DType": "\n"}],
)  # fmt: skip
async def test_a_load_with_absurd_options_fails_with_a_short_message(service, fields: dict) -> None:
    result = await service.stub.LoadModel(pb.ModelOptions(**fields), timeout=20)
    if fields["Model"] == "m":
        assert not result.success
    assert len(result.message) < 1000
    assert result.message.isprintable()
    for harmful in ("connection refused", "no such host", "internal error"):
        assert harmful not in result.message.lower()


async def test_live_audio_may_be_large(service) -> None:
    await service.load()
    call = service.stub.AudioTranscriptionLive()
    await call.write(pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig()))
    await call.write(pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=[0.0] * (1 << 19))))
    await call.done_writing()
    *_, final = [reply async for reply in call]
    assert final.final_result.duration == pytest.approx((1 << 19) / 16_000)


@pytest.mark.parametrize("setting", ["geheim\n", "geheim\r\n", "geheim\n\n", "geheim"])
def test_a_line_end_is_no_part_of_the_token(setting: str) -> None:
    assert operator_token({"LOCALAI_GRPC_AUTH_TOKEN": setting}) == "geheim"


@pytest.mark.parametrize("setting", ["\n", "\r\n", " ", " \n", "two\nlines", "ümlaut", "tab\t", "\udcff", "\0"])
def test_a_token_that_no_call_can_carry_is_refused_and_never_dropped(setting: str) -> None:
    with pytest.raises(TokenRefused):
        operator_token({"LOCALAI_GRPC_AUTH_TOKEN": setting})


def test_without_the_variable_there_is_no_token() -> None:
    assert operator_token({}) == operator_token({"LOCALAI_GRPC_AUTH_TOKEN": ""}) == ""
