"""Captions of a recording or a microphone, as their words settle: the captions on stdout, everything else on stderr.

Ctrl-C ends the sound, and what was said last is still shown; a second one stops at once. Exit code 0, or 1 with the
cause as the last line of stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from backend.audio.waveform import Samples
from backend.errors import UndecodableAudio
from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.arguments import parse_arguments
from devtools.live.caption_session import Session, StreamFailed, say, show, summary
from devtools.live.captions import Captions
from devtools.live.paced_client import UNLIMITED, LiveCall, Metadata
from devtools.live.sound_source import played, read_recording, recorded
from devtools.log_tail import show_log_tail
from devtools.server_process import DEMO_MODEL, ROOT, ServerFailed, ServerProcess
from devtools.transcribe.checkpoints import NotLoadable, load_options
from devtools.transcribe.client import elapsed_time
from devtools.transcribe.formats import FORMATS
from devtools.transcribe.recordings import BadArgument, existing

_STDIN = "-"
_RECORDER = "arecord -f S16_LE -r 16000 -c 1 | make live AUDIO=-"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        if arguments.format and arguments.format not in FORMATS:
            raise BadArgument(f"FORMAT: {arguments.format} is none of {', '.join(FORMATS)}")
        if arguments.audio == _STDIN:
            if sys.stdin.isatty():
                raise BadArgument(f"AUDIO: a terminal is no sound; {_RECORDER}")
            source = recorded()
        else:
            source = played(read_recording(existing(arguments.audio)))
        options = load_options(arguments.model, "", [p for text in arguments.option for p in text.split()])
        final, session = caption(options, source, arguments.language)
    except (BadArgument, NotLoadable, ServerFailed, StreamFailed) as failure:
        say(str(failure))
        return 1
    except UndecodableAudio as failure:
        say(f"AUDIO: {failure}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 1
    if arguments.format:
        print(FORMATS[arguments.format](final).rstrip("\n"), flush=True)
    if session.shown != final.text:
        say("the captions are not the final text: a fault of the backend")
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="live", description="Captions of sound while it is spoken.")
    add = parser.add_argument
    add("--audio", default=str(ROOT / "test/audio/demo.wav"), help=f"a recording, or - for a recorder: {_RECORDER}")
    add("--model", default=str(DEMO_MODEL), help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    add("--language", default="", help="its code or English name; empty: detect it")
    add("--option", "--options", action="append", default=[], help="name:value of LoadModel; several with spaces")
    add("--format", default="", help=f"the final result at the end, too, as {', '.join(FORMATS)}")
    return parse_arguments(parser, argv)


def caption(
    options: pb.ModelOptions, source: AsyncIterator[Samples], language: str
) -> tuple[pb.TranscriptResult, Session]:
    """Shows the captions; the final result. Raises ServerFailed or StreamFailed after the end of the server's log."""
    server = ServerProcess(with_token=True)
    try:
        with server:
            with elapsed_time("loading"):
                server.load(options)
            return asyncio.run(_caption(server.address, server.metadata, source, language))
    except (ServerFailed, StreamFailed) as failure:
        show_log_tail(server.log_lines(), str(failure))
        raise


async def _caption(
    address: str, metadata: Metadata, source: AsyncIterator[Samples], language: str
) -> tuple[pb.TranscriptResult, Session]:
    is_terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if is_terminal else None
    session = Session(Captions(lambda text: print(text, end="", flush=True), columns))
    with _stopping_by_ctrl_c(session.stop):
        async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
            stub = rpc.BackendStub(channel)  # type: ignore[no-untyped-call] # generated without types
            final, flush_s = await show(LiveCall(stub, language, metadata=metadata), source, session)
    say(summary(session, flush_s))
    return final, session


@contextlib.contextmanager
def _stopping_by_ctrl_c(stop: asyncio.Event) -> Any:
    """The first Ctrl-C sets `stop`; the next one raises KeyboardInterrupt."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
