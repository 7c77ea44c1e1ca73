"""The baseline serves the same wire as the backend, with the demo's models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.bench.baseline_server import BaselineServicer


@pytest.fixture(scope="module")
def stub() -> Iterator[rpc.BackendStub]:
    server = grpc.server(ThreadPoolExecutor(2))
    rpc.add_BackendServicer_to_server(BaselineServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield rpc.BackendStub(channel)
    server.stop(0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the package reads files with
def test_it_is_healthy_and_transcribes_what_it_has_loaded(
    stub: rpc.BackendStub, asr_folder: Path, aligner_folder: Path, recordings: Path
) -> None:
    assert stub.Health(pb.HealthMessage()).message == b"OK"
    request = pb.TranscriptRequest(dst=str(recordings / "set/01_en_trained.flac"))
    with pytest.raises(grpc.RpcError) as refused:
        stub.AudioTranscription(request)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    options = pb.ModelOptions(Model=str(asr_folder), Options=[f"forced_aligner:{aligner_folder}"])
    assert stub.LoadModel(options).success
    plain = stub.AudioTranscription(request)
    assert plain.language == "en"
    assert plain.segments[0].text == plain.text != ""
    assert not plain.segments[0].words

    request.timestamp_granularities.append("word")
    timed = stub.AudioTranscription(request)
    words = timed.segments[0].words
    assert len(words) == len(plain.text.split())
    assert 0 <= words[0].start < words[-1].end


def test_a_failed_load_says_why(stub: rpc.BackendStub) -> None:
    result = stub.LoadModel(pb.ModelOptions(Model="/nowhere/at/all"))
    assert not result.success
    assert "/nowhere/at/all" in result.message
