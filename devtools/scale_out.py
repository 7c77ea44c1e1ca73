"""How much faster one recording is recognised on several servers: `python -m devtools.scale_out`.

The servers are stand-ins that take the same time for every passage, so what is measured is the backend: how it shares
out the passages and what it adds. Their texts are checked.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile

from backend.audio.decoding.pool import DecoderPool
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcriber import Transcriber
from backend.server import LazyLoader
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from devtools.arguments import count, parse_arguments
from devtools.server_process import DEMO_MODEL
from devtools.vllm_server import Asked, Said, VllmServer, tagged

_PASSAGE_S = 5.0
_RATE = 16_000


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scale_out", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--servers", type=count, default=4, help="compared with one; default: 4")
    parser.add_argument("--concurrency", type=count, default=4, help="passages at a time at each; default: 4")
    parser.add_argument("--waves", type=count, default=4, help="of passages, for all servers together; default: 4")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a passage takes there; default: 2")
    parser.add_argument("--runs", type=count, default=3, help="default: 3")
    asked = parse_arguments(parser, argv)
    passages = asked.servers * asked.concurrency * asked.waves
    print(
        f"{passages} passages of {_PASSAGE_S:g} s, {asked.concurrency} at a time at a server, {asked.seconds:g} s each"
    )
    for _ in range(asked.runs):
        one, many = (asyncio.run(_measured(servers, asked, passages)) for servers in (1, asked.servers))
        ratio = one / many
        print(
            f"1 server {one:.2f} s, {asked.servers} servers {many:.2f} s: {ratio:.2f} times as fast, "
            f"{ratio / asked.servers:.3f} of {asked.servers}"
        )
    return 0


async def _measured(count: int, asked: argparse.Namespace, passages: int) -> float:
    """Seconds for a recording of so many passages on `count` servers."""
    with ExitStack() as stack:
        servers = [stack.enter_context(VllmServer(answer=_answer).running()) for _ in range(count)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "recording.wav"
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(passages * _PASSAGE_S * _RATE)).astype(np.float32)
        soundfile.write(path, noise, _RATE)
        pool, scheduler = DecoderPool(), Scheduler()
        stack.callback(pool.close)
        stack.callback(scheduler.stop)
        resident = Resident(LazyLoader(pool))
        options = LoadOptions(
            "demo",
            model_file=str(DEMO_MODEL),
            engine_urls=tuple(server.url for server in servers),
            engine_concurrency=asked.concurrency,
            max_chunk_s=_PASSAGE_S,
            vad=False,  # noise is what is said here; detection is the backend's own work, and the same for all
        )
        await resident.load(options)
        transcriber = Transcriber(resident, scheduler, pool)
        await transcriber.transcribe(str(path), TranscribeOptions())  # starts the process that decodes
        for server in servers:
            server.gate = lambda _: time.sleep(asked.seconds)
        began = time.monotonic()
        transcript = await transcriber.transcribe(str(path), TranscribeOptions())
        took = time.monotonic() - began
        if transcript.text.count("samples") != sum(len(server.asked) - 2 for server in servers) // 2:
            sys.exit("scale_out: texts are missing")
        return took


def _answer(asked: Asked) -> Said:
    return tagged(f"Heard {asked.samples.size} samples.", asked)


if __name__ == "__main__":
    sys.exit(main())
