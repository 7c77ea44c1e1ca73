"""The times of a known text: `make align AUDIO=song.flac TEXT=lyrics.lrc FORMAT=lrc|elrc|srt|vtt|verbose_json`.

The transcript goes to stdout or into the file OUT, everything else to stderr. Headings and metadata, which are not
sung, are put back into lrc and elrc; an LRC as TEXT gives how far its lines moved. Exit code 0, or 1 with the cause as
the last line of stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.errors import InvalidRequest
from backend.pipeline.prompt import sanitized_text
from backend.transcript.lyrics.sung_lines import known_text
from backend.wire.backend_pb2 import TranscriptRequest
from devtools.arguments import parse_arguments
from devtools.server_process import DEMO_MODEL, ROOT, ServerFailed
from devtools.transcribe.__main__ import say, transcribe_once
from devtools.transcribe.checkpoints import NotLoadable, chosen_aligner, load_options
from devtools.transcribe.client import RequestFailed
from devtools.transcribe.formats import FORMATS
from devtools.transcribe.lyrics import Row, movements, read_rows, rendered, written_out
from devtools.transcribe.recordings import BadArgument, existing, format_of, jobs, write
from devtools.unread_text import unread

DEMO_TEXT = """\
The quick brown fox jumps over the lazy dog.
Good morning.
Please open the door and turn on the light.
Thank you."""
KEEPS_HEADINGS = {"lrc": False, "elrc": True}  # with the times of words or without


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        name = format_of(arguments.format or ("" if arguments.out else "lrc"), arguments.out, is_terminal=False)
        audio = existing(arguments.audio)
        target = jobs(audio, arguments.out, name)[0].out
        rows = written_out(read_rows(read(arguments.text)))
        text = "\n".join(row.given for row in rows)
        if not known_text(text).lines:
            raise BadArgument(f"TEXT: nothing is sung in {arguments.text}")
        aligner = chosen_aligner(arguments.model, arguments.aligner)
        options = load_options(arguments.model, aligner, ["task:align"])
        request = TranscriptRequest(dst=audio, language=arguments.language, prompt=text)
        result, timing = transcribe_once(options, request)
    except (BadArgument, NotLoadable, ServerFailed, RequestFailed) as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 1
    if name in KEEPS_HEADINGS and is_by_lines(rows):
        shown = rendered(rows, result, with_words=KEEPS_HEADINGS[name])
    else:
        shown = FORMATS[name](result)
    if target:
        write(target, shown.rstrip("\n") + "\n")
        say(f"{arguments.audio} -> {target}")
    else:
        print(shown.rstrip("\n"), flush=True)
    if moved := movements(rows, result):
        say(str(moved))
    say(timing)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="align", description="The times of a known text.")
    parser.add_argument("--audio", default=str(ROOT / "test/audio/demo.wav"), help="a recording, in any common format")
    parser.add_argument("--text", default="", help="its text: plain, or LRC, in UTF-8; default: the demo's")
    parser.add_argument("--model", default=str(DEMO_MODEL), help="a recogniser, or an aligner alone; folder or hub id")
    parser.add_argument("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    parser.add_argument("--language", default="", help="its code or English name; empty: detect it")
    parser.add_argument("--format", default="", help=f"{', '.join(FORMATS)}; default: by the suffix of OUT, or lrc")
    parser.add_argument("--out", default="", help="a file or a folder; default: the terminal")
    return parse_arguments(parser, argv)


def read(path: str) -> str:
    """The file's text; the demo's where none is named. Raises BadArgument."""
    if not path:
        return DEMO_TEXT
    try:
        return sanitized_text(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(f"TEXT: {path}: {unread(Path(path), error)}; give a text file in UTF-8") from error
    except InvalidRequest as refusal:
        raise BadArgument(f"TEXT: {path}: {refusal}") from refusal


def is_by_lines(rows: Sequence[Row]) -> bool:
    """Whether the segments are the lines: of a text without line breaks they are sentences."""
    return sum(bool(row.given.strip()) for row in rows) > 1


if __name__ == "__main__":
    sys.exit(main())
