"""One recording through the backend and onto the terminal: the transcript on stdout, everything else on stderr.

Exit code 0, or 1 with the cause as the last line of stderr.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from backend.wire.backend_pb2 import ModelOptions, TranscriptRequest, TranscriptResult
from devtools.arguments import parse_arguments
from devtools.server_process import DEMO_MODEL, ROOT, ServerFailed, ServerProcess
from devtools.transcribe.checkpoints import NotLoadable, chosen_aligner, load_options
from devtools.transcribe.client import RequestFailed, elapsed_time, stream, transcribe, transcript_request
from devtools.transcribe.formats import FORMATS

LOG_LINES_SHOWN = 20


class BadArgument(Exception):
    """The message names the variable."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        if arguments.format not in FORMATS:
            raise BadArgument(f"FORMAT: {arguments.format} is none of {', '.join(FORMATS)}")
        request = transcript_request(existing(arguments.audio), arguments.language)
        aligner = chosen_aligner(arguments.model, arguments.aligner)
        options = load_options(arguments.model, aligner)
        if not aligner:
            say("no ALIGNER: times are coarse, and there are no words")
        result, timing = transcribe_once(options, request, arguments.stream)
    except (BadArgument, NotLoadable, ServerFailed, RequestFailed) as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 1
    if not arguments.stream:
        print(FORMATS[arguments.format](result).rstrip("\n"))
    sys.stdout.flush()  # the transcript first, also where both streams go to one file
    say(timing)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="One recording through the backend.")
    parser.add_argument("--audio", default=str(ROOT / "test/audio/demo.wav"), help="a recording, in any common format")
    parser.add_argument("--model", default=str(DEMO_MODEL), help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    parser.add_argument("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    parser.add_argument("--language", default="", help="its code or English name; empty: detect it")
    parser.add_argument("--format", default="verbose_json", help=", ".join(FORMATS))
    parser.add_argument("--stream", action="store_true", help="show the text while it is decoded, without FORMAT")
    return parse_arguments(parser, argv)


def existing(audio: str) -> str:
    path = Path(audio).resolve()
    if not path.is_file():
        raise BadArgument(f"AUDIO: there is no file {audio}")
    return str(path)


def transcribe_once(
    options: ModelOptions, request: TranscriptRequest, streamed: bool = False
) -> tuple[TranscriptResult, str]:
    """The transcript, and how long it took. `streamed`: prints the text while it is decoded.

    Shows the end of the log when the server or the request failed.
    """
    server = ServerProcess(with_token=True)
    try:
        with server:
            with elapsed_time("loading"):
                load_s = server.load(options)
            began = time.monotonic()
            if streamed:
                result, warnings = stream(server, request, lambda delta: print(delta, end="", flush=True))
                print()
            else:
                with elapsed_time("transcribing"):
                    result, warnings = transcribe(server, request)
            took_s = time.monotonic() - began
    except (ServerFailed, RequestFailed) as failure:
        if not (isinstance(failure, RequestFailed) and failure.is_callers_fault) and server.log_lines():
            say("the end of the backend's log:")
            print(*server.log_lines()[-LOG_LINES_SHOWN:], sep="\n", file=sys.stderr)
        raise
    for warning in warnings:
        say(f"warning: {warning}")
    return result, (
        f"{result.duration:.1f} s of audio in {took_s:.2f} s, {result.duration / took_s:.1f} × real time, the aligner's"
        f" loading included (before that: {server.up_s:.1f} s to start, {load_s:.1f} s to load the model)"
    )


def say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
