"""The metrics, scraped over HTTP from the listener of a server that was used through gRPC."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_service import Service, started
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from backend.live.live_transcriber import LiveTranscriber
from backend.pipeline.admission import Admission
from backend.process.request_stats import STAGES, Totals
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.wire import backend_pb2 as pb
from backend.wire.metrics import BackendCollector

OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


def scraped(port: int) -> dict[str, Metric]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        return {family.name: family for family in text_string_to_metric_families(reply.read().decode())}


class House:
    """A server with metrics, and a client of both."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.serving = service.serving
        self.channel = service.channel
        self.stub = service.stub
        self.clip = folder / "clip.wav"
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
        soundfile.write(self.clip, noise.astype(np.float32), 16_000)

    async def load(self, *options: str) -> bool:
        request = pb.ModelOptions(Model="demo", Options=["vad:off", *options])
        return (await self.stub.LoadModel(request, timeout=20)).success

    def ask(self, path: Path | str = "", **fields) -> grpc.aio.UnaryUnaryCall:
        return self.stub.AudioTranscription(pb.TranscriptRequest(dst=str(path or self.clip), **fields), timeout=20)

    async def figures(self) -> dict[str, Metric]:
        assert self.serving.listener is not None
        return await asyncio.to_thread(scraped, self.serving.listener.port)

    async def values(self, name: str) -> dict[tuple[str, ...], float]:
        """By the values of the labels, in the order of the labels' names; no zeros."""
        samples = (await self.figures())[name].samples
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in samples
            if sample.value
        }


@pytest.fixture
async def house(serve, tmp_path: Path) -> House:
    return House(await serve(metrics="127.0.0.1:0"), tmp_path)


def documented() -> set[str]:
    """The metrics of the table in docs/operations.md, as Prometheus shows them."""
    rows = [line.split(" | ")[0] for line in OPERATIONS.read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`((?:qwen_asr|process)_[a-z_]+)`", row)}


async def test_the_operations_page_names_every_metric_and_no_other(house) -> None:
    def shown(family: Metric) -> str:
        return f"{family.name}_total" if family.type == "counter" else family.name

    assert {shown(family) for family in (await house.figures()).values()} == documented()


async def test_every_label_value_of_an_idle_backend_is_known(house) -> None:
    assert await house.values("qwen_asr_aligner_state") == {("none",): 1}
    assert await house.values("qwen_asr_weight_bytes") == {}
    stages = (await house.figures())["qwen_asr_stage_seconds"].samples
    assert [sample.labels["stage"] for sample in stages] == list(STAGES)


async def test_requests_are_counted_by_code(house, loader) -> None:
    await asyncio.gather(house.ask(), return_exceptions=True)
    await house.load()
    assert not await house.load("max_tokens:5")
    calls = [house.ask() for _ in range(5)]
    calls += [house.ask("/nowhere") for _ in range(3)]
    calls += [house.ask(ModelIdentity="other"), house.ask(language="tlhIngan")]
    await asyncio.gather(*calls, return_exceptions=True)
    await house.stub.Health(pb.HealthMessage())
    health = health_pb2_grpc.HealthStub(house.channel)
    await health.Check(health_pb2.HealthCheckRequest())
    for path in ("/backend.Backend/Invented", "/x.Y/Z"):
        await asyncio.gather(house.channel.unary_unary(path)(b""), return_exceptions=True)
    while sum((await house.values("qwen_asr_requests_in_flight")).values()):
        pass  # an error's status is on its way before its stats is closed
    requests = await house.values("qwen_asr_requests")
    assert requests == {
        ("OK", "AudioTranscription"): 5,
        ("FAILED_PRECONDITION", "AudioTranscription"): 1,
        ("INVALID_ARGUMENT", "AudioTranscription"): 4,
        ("NOT_FOUND", "AudioTranscription"): 1,
        ("OK", "LoadModel"): 1,
        ("INVALID_ARGUMENT", "LoadModel"): 1,
        ("OK", "Health"): 1,
        ("OK", "Check"): 1,
        ("UNIMPLEMENTED", "unknown"): 2,
    }
    assert await house.values("qwen_asr_rejections") == {
        ("ModelNotLoaded",): 1,
        ("InvalidOption",): 1,
        ("UndecodableAudio",): 3,
        ("IdentityMismatch",): 1,
        ("UnsupportedLanguage",): 1,
        ("CapabilityMissing",): 2,
    }
    assert await house.values("qwen_asr_audio_seconds") == {(): 10.0}


async def test_calls_without_the_token_are_counted(serve, tmp_path: Path) -> None:
    house = House(await serve(token="geheim", metrics="127.0.0.1:0"), tmp_path)
    await asyncio.gather(house.ask(), house.stub.Health(pb.HealthMessage()), return_exceptions=True)
    while sum((await house.values("qwen_asr_requests_in_flight")).values()):
        pass
    assert await house.values("qwen_asr_requests") == {
        ("UNAUTHENTICATED", "AudioTranscription"): 1,
        ("UNAUTHENTICATED", "Health"): 1,
    }
    assert await house.values("qwen_asr_rejections") == {("Unauthenticated",): 2}


async def test_waiting_and_running_work_is_visible(house, loader) -> None:
    await house.load("batch_max_size:4")
    loader.recognizer.gate = threading.Event()
    calls = [asyncio.ensure_future(house.ask())]
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    calls += [asyncio.ensure_future(house.ask()) for _ in range(3)]
    while (await house.values("qwen_asr_queue_passages")) != {(): 3}:
        pass
    assert await house.values("qwen_asr_queue_audio_seconds") == {(): 6}
    assert await house.values("qwen_asr_requests_in_flight") == {("AudioTranscription",): 4}
    loader.recognizer.gate.set()
    await asyncio.gather(*calls)
    assert await house.values("qwen_asr_queue_passages") == {}
    assert await house.values("qwen_asr_requests_in_flight") == {}
    family = (await house.figures())["qwen_asr_batch_rows"]
    rows = {(s.name.removeprefix("qwen_asr_batch_rows_"), s.labels.get("le")): s.value for s in family.samples}
    assert rows[("bucket", "1")] == 1
    assert rows[("bucket", "2")] == 1
    assert rows[("bucket", "4")] == rows[("bucket", "+Inf")] == rows[("count", None)] == 2
    assert rows[("sum", None)] == 4
    assert (await house.values("qwen_asr_compute_seconds"))[()] > 0
    stages = await house.values("qwen_asr_stage_seconds")
    assert {("decode",), ("queue",), ("infer",)} <= set(stages)


async def test_a_failed_batch_counts_as_retries_and_out_of_memory_as_a_split(house, loader) -> None:
    def fail(_utterance) -> str:
        if len(loader.recognizer.batches) == 2:  # the batch of three after the one that held the model
            raise MemoryError
        return "Hello."

    await house.load()
    loader.recognizer.answer, loader.recognizer.gate = fail, threading.Event()
    first = asyncio.ensure_future(house.ask())
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    rest = [asyncio.ensure_future(house.ask()) for _ in range(3)]
    while house.serving.scheduler.waiting[0] < 3:
        await asyncio.sleep(0)
    loader.recognizer.gate.set()
    await asyncio.gather(first, *rest)
    assert await house.values("qwen_asr_retries") == {(): 3}
    assert await house.values("qwen_asr_splits") == {(): 1}


async def test_the_aligner_state_and_the_weights_are_visible(house, loader) -> None:
    async def seen() -> tuple[dict, dict]:
        return await house.values("qwen_asr_aligner_state"), await house.values("qwen_asr_weight_bytes")

    await house.load("forced_aligner:x")
    assert await seen() == ({("waiting",): 1}, {("recognizer",): 1000})
    loader.refusals["aligner"] = RuntimeError("no such weights")
    await house.ask(timestamp_granularities=["word"])
    assert await seen() == ({("failed",): 1}, {("recognizer",): 1000})
    loader.refusals.clear()
    await house.load("forced_aligner:x", "aligner_retry_seconds:0")
    await house.ask(timestamp_granularities=["word"])
    assert await seen() == ({("loaded",): 1}, {("recognizer",): 1000, ("aligner",): 300})
    await house.stub.Free(pb.HealthMessage())
    state, weights = await seen()
    assert state == {("none",): 1}
    assert weights == {("recognizer",): 1000, ("aligner",): 300}  # the fake loader holds them


async def test_the_listener_closes_with_the_server(loader, decoder_pool) -> None:
    async with started(loader, decoder_pool, metrics="127.0.0.1:0") as serving:
        assert serving.listener is not None
        port = serving.listener.port
        await asyncio.to_thread(scraped, port)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(scraped, port)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


async def test_health_answers_while_a_scraper_does_not_read(house) -> None:
    with socket.create_connection(("127.0.0.1", house.serving.listener.port)) as silent:
        silent.sendall(b"GET /metr")
        assert (await house.stub.Health(pb.HealthMessage(), timeout=5)).message == b"OK"
        assert await house.figures()


async def test_histogram_buckets_are_cumulative(loader) -> None:
    scheduler = Scheduler()
    scheduler.engine_stats.steps.update({1: 5, 3: 2, 8: 1, 256: 1, 300: 1})
    resident = Resident(loader)
    live = LiveTranscriber(resident, scheduler, Admission())
    families = {f.name: f for f in BackendCollector(Totals(), scheduler, resident, live).collect()}
    scheduler.stop()
    samples = families["qwen_asr_batch_rows"].samples
    buckets = {s.labels["le"]: s.value for s in samples if "le" in s.labels}
    assert buckets == {
        "1": 5, "2": 5, "4": 7, "8": 8, "16": 8, "32": 8, "64": 8, "128": 8, "256": 9, "+Inf": 10,
    }  # fmt: skip
    assert [s.value for s in samples if "le" not in s.labels] == [10, 5 + 6 + 8 + 256 + 300]
