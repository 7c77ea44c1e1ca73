"""Recordings that are recognised on servers, through gRPC."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from devtools.vllm_server import Asked, tagged

ROOT = Path(__file__).parents[2]


async def test_a_recording_is_recognised_on_a_server(vllm, backend, wav) -> None:
    server = vllm(answer=lambda asked: tagged("The quick brown fox.", asked))
    service = await backend([server])
    reply = await service.transcribe(wav(3.0), prompt="Names: Fox")
    assert (reply.text, reply.language, reply.duration) == ("The quick brown fox.", "en", 3.0)
    assert all(segment.tokens for segment in reply.segments)
    asked = server.asked[-1]
    assert (asked.prompt, asked.beginning, asked.samples.size) == ("Names: Fox", "", 48_000)


async def test_a_forced_language_begins_the_answer(vllm, backend, wav) -> None:
    server = vllm(answer=lambda asked: tagged("Guten Morgen.", asked))
    service = await backend([server])
    reply = await service.transcribe(wav(), language="de")
    assert (reply.text, reply.language) == ("Guten Morgen.", "de")
    assert server.asked[-1].beginning == "language German<asr_text>"


async def test_the_samples_arrive_as_they_are(vllm, backend, wav) -> None:
    server = vllm()
    service = await backend([server])
    path = wav(1.7)
    await service.transcribe(path)
    np.testing.assert_array_equal(server.asked[-1].samples, soundfile.read(path, dtype="float32")[0])


async def test_sound_of_ten_milliseconds_is_padded(vllm, backend, wav) -> None:
    """vLLM refuses it, with the samples in the text of the error."""
    server = vllm()
    service = await backend([server])
    assert (await service.transcribe(wav(0.01))).text
    assert server.asked[-1].samples.size == 8000


async def test_passages_of_a_recording_are_shared_out_among_all_servers(vllm, backend, wav) -> None:
    """None is answered before each server has as many as it may have."""
    passages = 4 * 3
    barrier, is_loaded = threading.Barrier(passages, timeout=20), threading.Event()

    def gate(asked: Asked) -> None:
        if is_loaded.is_set():
            barrier.wait()

    servers = [vllm(gate=gate) for _ in range(4)]
    service = await backend(servers, "engine_concurrency:3", "max_chunk_seconds:2")
    for server in servers:
        server.most_in_flight = 0
    is_loaded.set()
    await service.transcribe(wav(2.0 * passages))
    assert [server.most_in_flight for server in servers] == [3] * 4


WITHOUT_TORCH = """
import asyncio, sys
from backend.audio.decoding.pool import DecoderPool
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcriber import Transcriber
from backend.server import LazyLoader
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler

async def main():
    pool = DecoderPool()
    resident = Resident(LazyLoader(pool))
    await resident.load(LoadOptions("demo", model_file=sys.argv[1], engine_urls=(sys.argv[2],)))
    transcript = await Transcriber(resident, Scheduler(), pool).transcribe(sys.argv[3], TranscribeOptions())
    print([transcript.text, "torch" in sys.modules, "safetensors" in sys.modules])
    pool.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_neither_weights_nor_torch_are_needed(vllm, asr_folder, recordings, tmp_path: Path) -> None:
    """The folder of a checkpoint with its configuration and its tokenizer is enough."""
    server = vllm(answer=lambda asked: tagged("Good morning.", asked))
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((asr_folder / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path), server.url, str(recordings / "chinese.wav")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["['Good morning.', False, False]"], done.stderr
