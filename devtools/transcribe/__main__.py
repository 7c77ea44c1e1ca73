"""Recordings through the backend: transcripts on stdout or in files, everything else on stderr.

Exit code 0, or 1 with the cause as the last line of stderr. One recording that fails does not end the others.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from backend.errors import InvalidOption, UnsupportedLanguage
from backend.languages import NAMES, code_of
from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options
from backend.options.option_table import OPTIONS
from backend.pipeline.alignment import FAILED as ALIGNER_FAILED
from backend.transcript.subtitles.line_breaks import LineRules
from backend.wire.backend_pb2 import ModelOptions, TranscriptRequest, TranscriptResult
from devtools.arguments import parse_arguments
from devtools.log_tail import show_log_tail
from devtools.server_process import DEMO_MODEL, ROOT, ServerFailed, ServerProcess, free_port
from devtools.transcribe.checkpoints import NotLoadable, chosen_aligner, load_options
from devtools.transcribe.client import RequestFailed, stream, transcribe, transcript_request
from devtools.transcribe.formats import CAPTIONS, FORMATS, rendered
from devtools.transcribe.progress import shown_progress
from devtools.transcribe.recordings import BadArgument, Job, format_of, jobs, write

_WITH_ALIGNER = ", the aligner's loading included"
_DEMO_NOTE = (
    "the demo's model knows some fifty words of English and as many of Chinese, and writes any other speech as those; "
    "for your own recordings: MODEL=Qwen/Qwen3-ASR-0.6B ALIGNER=Qwen/Qwen3-ForcedAligner-0.6B"
)


@dataclass
class Run:
    """The jobs of one command and what has become of them."""

    name: str  # of the format
    lines: LineRules | None
    language: str
    streamed: bool
    is_rendered: bool  # the format is shown or written, too, where the text is streamed
    count: int  # of the recordings
    done: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def is_one(self) -> bool:
        """There is one recording, and its failure is the command's."""
        return self.count == 1


@dataclass(frozen=True)
class _Served:
    server: ServerProcess
    metrics_port: int
    note: str  # about the first request's time


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        name = format_of(arguments.format, arguments.out, is_terminal=sys.stdout.isatty())
        work = jobs(arguments.audio, arguments.out, name)
        pairs, lines = _captioning([p for text in arguments.option for p in text.split()], name, arguments.sentences)
        aligner = chosen_aligner(arguments.model, arguments.aligner)
        options = load_options(arguments.model, aligner, pairs)
        if not aligner:
            say("no ALIGNER: times are coarse, and there are no words")
        if options.ModelFile == str(DEMO_MODEL) and any(ROOT / "test" not in job.audio.parents for job in work):
            say(_DEMO_NOTE)
        is_rendered = bool(arguments.format) or not arguments.stream
        run = Run(name, lines, _language(arguments.language), arguments.stream, is_rendered, len(work))
        _run(run, options, _not_done(run, work, is_forced=arguments.force or run.is_one))
    except (BadArgument, NotLoadable, ServerFailed, RequestFailed) as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 1
    if not run.is_one:
        skipped = f"{run.skipped} there already{' (FORCE=1 writes them again)' if run.skipped else ''}"
        say(f"{run.done} transcribed, {skipped}, {len(run.failures)} failed")
    for failed in run.failures:
        say(failed)
    return 1 if run.failures else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="transcribe", description="Recordings through the backend.")
    add = parser.add_argument
    add("--audio", default=str(ROOT / "test/audio/demo.wav"), help="a recording, a folder of them, or several of both")
    add("--model", default=str(DEMO_MODEL), help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    add("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    add("--language", default="", help="its code or English name; empty: detect it")
    add("--format", default="", help=f"{', '.join(FORMATS)}; by default timed on a terminal, else verbose_json")
    add("--out", default="", help="a file or a folder; by default the terminal, or beside each of several recordings")
    add("--force", action="store_true", help="write again what is there already")
    add("--option", "--options", action="append", default=[], help="name:value of LoadModel; several with spaces")
    add("--sentences", action="store_true", help="srt and vtt with a caption for each sentence, however long it is")
    add("--stream", action="store_true", help="show the text while it is decoded; with FORMAT and no OUT: on stderr")
    return parse_arguments(parser, argv)


def _captioning(pairs: list[str], name: str, sentences: bool) -> tuple[list[str], LineRules | None]:
    """The options with those of captions where the format shows some, and how they are wrapped. Raises BadArgument."""
    if name in CAPTIONS and not sentences:
        pairs = ["subtitles:on", *pairs]
    try:
        load = with_options(LoadOptions(""), pairs, "")
    except InvalidOption as refusal:
        commas = any(f",{name}:" in pair for pair in pairs for name in OPTIONS)
        hint = "; between two options stands a space, not a comma" if commas else ""
        raise BadArgument(f"OPTIONS: {refusal}{hint}") from refusal
    lines = LineRules(load.subtitle_line_chars, load.subtitle_wide_line_chars, load.subtitle_lines)
    return pairs, lines if load.subtitles else None


def _language(name: str) -> str:
    """LANGUAGE as it is given, before a model is loaded for it. Raises BadArgument."""
    try:
        code_of(name)
    except UnsupportedLanguage as refusal:
        known = f"a code or English name of one of {', '.join(NAMES)}"
        raise BadArgument(f"LANGUAGE: {name} is not known; give {known}, or nothing to detect it") from refusal
    return name


def _not_done(run: Run, work: list[Job], *, is_forced: bool) -> list[Job]:
    """The jobs whose result is not there yet."""
    left = [job for job in work if is_forced or job.out is None or not job.out.exists()]
    run.skipped = len(work) - len(left)
    return left


def _run(run: Run, options: ModelOptions, work: list[Job]) -> None:
    """Transcribe all. Raises ServerFailed, or the RequestFailed of the only recording."""
    if not work:
        return
    with _served(options) as served:
        for job in work:
            try:
                _transcribe(run, served, job)
                run.done += 1
            except (RequestFailed, OSError) as failure:
                if run.is_one and isinstance(failure, RequestFailed):
                    raise
                run.failures.append(f"{job.audio.name}: {failure}")


def transcribe_once(options: ModelOptions, request: TranscriptRequest) -> tuple[TranscriptResult, str]:
    """The reply to one request, and how long it took. Warnings are shown. Raises ServerFailed or RequestFailed."""
    with _served(options) as served:
        began = time.monotonic()
        with shown_progress("transcribing", served.metrics_port):
            result, warnings = transcribe(served.server, request)
        timing = _timing(result, time.monotonic() - began, served.note)
        show_warnings(warnings, server_log=served.server.log_lines)
    return result, timing


@contextlib.contextmanager
def _served(options: ModelOptions) -> Iterator[_Served]:
    """A server with the model. Shows the end of its log when it fails, or a request by its fault."""
    metrics_port = free_port()
    server = ServerProcess(with_token=True, environment={"QWEN_ASR_METRICS": str(metrics_port)})
    try:
        with server:
            with shown_progress("loading", None, functools.partial(_last_download, server)):
                load_s = server.load(options)
            aligner = any(option.startswith("forced_aligner:") for option in options.Options)
            note = f" (before that: {server.up_s:.1f} s to start, {load_s:.1f} s to load the model)"
            yield _Served(server, metrics_port, f"{_WITH_ALIGNER if aligner else ''}{note}")
    except (ServerFailed, RequestFailed) as failure:
        if not (isinstance(failure, RequestFailed) and failure.is_callers_fault):
            show_log_tail(server.log_lines(), str(failure))
        raise


def _transcribe(run: Run, served: _Served, job: Job) -> None:
    request = transcript_request(str(job.audio), run.language)
    number = run.done + len(run.failures) + 1
    began = time.monotonic()
    if run.streamed:
        shown_on = sys.stderr if job.out is None and run.is_rendered else sys.stdout
        result, warnings = stream(served.server, request, lambda delta: print(delta, end="", flush=True, file=shown_on))
        print(file=shown_on)
    else:
        of_several = "" if run.is_one else f" {number} of {run.count - run.skipped}, {job.audio.name}"
        with shown_progress(f"transcribing{of_several}", served.metrics_port):
            result, warnings = transcribe(served.server, request)
    timing = _timing(result, time.monotonic() - began, served.note if number == 1 else "")
    if job.out is not None:
        write(job.out, rendered(result, run.name, run.lines))
        say(f"{job.audio.name} -> {job.out}")
    elif run.is_rendered:
        print(rendered(result, run.name, run.lines), end="")
    sys.stdout.flush()  # the transcript first, also where both streams go to one file
    show_warnings(warnings, server_log=served.server.log_lines)
    if not result.text:
        say(f"{job.audio.name}: nobody speaks")
    say(timing)


def show_warnings(warnings: Sequence[str], server_log: Callable[[], Sequence[str]]) -> None:
    """One line each. Why an aligner failed stands in the log alone, whose end is shown above them then."""
    if any(ALIGNER_FAILED in warning for warning in warnings):
        show_log_tail(server_log(), "")
    for warning in warnings:
        say(f"warning: {warning}")


def _timing(result: TranscriptResult, took_s: float, note: str) -> str:
    return f"{result.duration:.1f} s of audio in {took_s:.2f} s, {result.duration / took_s:.1f} × real time{note}"


def _last_download(server: ServerProcess) -> str:
    """What the backend says about a download that runs: checkpoint and size."""
    fetched = [line for line in server.log_lines() if " fetching " in line]
    return fetched[-1].partition(" fetching ")[2].partition(" [request ")[0] if fetched else ""


def say(text: str) -> None:
    print(f"transcribe: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
