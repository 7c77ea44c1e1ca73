"""Whether vLLM servers say what the backend's own model says: `python -m devtools.compare_vllm http://gpu1:8000`.

Every recording is transcribed in the backend and on the servers, with and without a forced language and a prompt, one
after the other, eight at once, and as a stream. Exit code 1 if a text, language, segment or token differs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from backend.audio.decoding.pool import DecoderPool
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.options.option_parser import with_options
from backend.pipeline.transcriber import Transcriber
from backend.pipeline.transcript_builder import Transcript
from backend.server import LazyLoader
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from devtools.arguments import parse_arguments
from devtools.server_process import DEMO_MODEL, ROOT

_AT_ONCE = 8


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compare_vllm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("urls", help="engine_url: of one or several servers, with commas")
    parser.add_argument("--model", default=str(DEMO_MODEL), help="the folder of the checkpoint that they serve")
    parser.add_argument("--option", action="append", default=[], help="name:value, of the model on the servers")
    parser.add_argument("--own", action="append", default=["torch_dtype:fp32"], help="name:value, of the own model")
    parser.add_argument("recordings", nargs="*", type=Path, help="default: those of test/audio")
    asked = parse_arguments(parser, argv)
    audio = ROOT / "test/audio"
    recordings = asked.recordings or sorted([*audio.glob("*.wav"), *audio.glob("*.flac"), *audio.glob("set/*.flac")])
    return asyncio.run(_compared(asked, recordings))


async def _compared(asked: argparse.Namespace, recordings: list[Path]) -> int:
    pool, scheduler = DecoderPool(), Scheduler()

    async def transcriber(pairs: list[str]) -> Transcriber:
        resident = Resident(LazyLoader(pool))
        await resident.load(with_options(LoadOptions(asked.model, model_file=asked.model), pairs, ""))
        return Transcriber(resident, scheduler, pool)

    own = await transcriber(asked.own)
    servers = await transcriber([f"engine_url:{asked.urls}", *asked.option])
    differing = 0
    for options in (TranscribeOptions(), TranscribeOptions(language="en", prompt="Names: Fox")):
        for path in recordings:
            ours, theirs = [await each.transcribe(str(path), options) for each in (own, servers)]
            differing += _differ(path, ours, theirs)
    expected = [await own.transcribe(str(path), TranscribeOptions()) for path in (recordings * _AT_ONCE)[:_AT_ONCE]]
    began = time.monotonic()
    together = await asyncio.gather(
        *(servers.transcribe(str(path), TranscribeOptions()) for path in (recordings * _AT_ONCE)[:_AT_ONCE])
    )
    took = time.monotonic() - began
    differing += sum(map(_differ, recordings * _AT_ONCE, expected, together))
    for path in recordings:
        *deltas, final = [item async for item in servers.stream(str(path), TranscribeOptions())]
        assert isinstance(final, Transcript)
        differing += "".join(map(str, deltas)) != final.text
    print(f"{len(recordings)} recordings, {differing} of {3 * len(recordings) + _AT_ONCE} transcripts differ")
    print(f"{_AT_ONCE} at once took {took:.2f} s")
    scheduler.stop()
    pool.close()
    return 1 if differing else 0


def _differ(path: Path, ours: Transcript, theirs: Transcript) -> bool:
    differ = (ours.text, ours.language, ours.segments, ours.tokens) != (
        theirs.text, theirs.language, theirs.segments, theirs.tokens,
    )  # fmt: skip
    if differ:
        print(f"{path.name}\n  own    {ours.language} {ours.text}\n  server {theirs.language} {theirs.text}")
    return differ


if __name__ == "__main__":
    sys.exit(main())
