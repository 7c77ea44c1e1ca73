"""One recording through the backend and onto the terminal: the result on stdout, everything else on stderr.

Exit code 0, or 1 with the cause as the last line of stderr.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tqdm import tqdm

from backend.wire.backend_pb2 import ModelOptions, Result, TranscriptRequest, TranscriptResult
from devtools.transcribe.child import Backend, BackendFailed
from devtools.transcribe.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
DEMO_AUDIO = str(ROOT / "test/audio/demo.wav")
DEMO_MODEL = str(ROOT / "test/models/asr")
DEMO_ALIGNER = str(ROOT / "test/models/aligner")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LOG_LINES_SHOWN = 20


class DemoFailed(Exception):
    """The cause, for the person at the terminal; `with_log` where the backend's log may tell more."""

    def __init__(self, cause: str, with_log: bool = False) -> None:
        super().__init__(cause)
        self.with_log = with_log


@dataclass(frozen=True)
class Seconds:
    start: float
    load: float
    transcribe: float


def main(argv: Sequence[str] | None = None) -> int:
    wanted = parse(argv)
    try:
        if wanted.format not in FORMATS:
            raise DemoFailed(f"FORMAT: {wanted.format} is none of {', '.join(FORMATS)}")
        audio, model, aligner = existing(wanted.audio), loadable("MODEL", wanted.model), chosen_aligner(wanted)
        options = ModelOptions(
            Model=wanted.model,
            ModelFile=model if Path(model).exists() else "",
            Options=[f"forced_aligner:{aligner}"] if aligner else [],
        )
        request = TranscriptRequest(
            dst=audio, language=wanted.language, timestamp_granularities=["word", "segment"], diarize=True
        )
        result, took = transcribe(options, request)
    except DemoFailed as failure:
        tell(str(failure))
        return 1
    except KeyboardInterrupt:
        tell("stopped")
        return 1
    print(FORMATS[wanted.format](result).rstrip("\n"))
    sys.stdout.flush()  # the result first, also where both streams go to one file
    tell(timing(result.duration, took))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo", description="One recording through the backend, as the gateway does it."
    )
    parser.add_argument("--audio", default=DEMO_AUDIO, help="a recording, in any common format")
    parser.add_argument("--model", default=DEMO_MODEL, help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    parser.add_argument("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    parser.add_argument("--language", default="", help="its code or English name; empty: detect it")
    parser.add_argument("--format", default="verbose_json", help=", ".join(FORMATS))
    return parser.parse_args(argv)


def existing(audio: str) -> str:
    path = Path(audio).resolve()
    if not path.is_file():
        raise DemoFailed(f"AUDIO: there is no file {audio}")
    return str(path)


def loadable(variable: str, name: str) -> str:
    """The folder as an absolute path (the backend runs elsewhere), or the hub id as it is."""
    path = Path(name)
    if path.exists():
        return str(path.resolve())
    if name in (DEMO_MODEL, DEMO_ALIGNER):
        raise DemoFailed(f"{variable}: the demo checkpoints are not in test/models; `make demo-models` trains them")
    if HUB_ID.fullmatch(name) is None:
        raise DemoFailed(f"{variable}: {name} is neither a folder here nor a hub id such as Qwen/Qwen3-ASR-1.7B")
    return name


def chosen_aligner(wanted: argparse.Namespace) -> str:
    name = wanted.aligner
    if name is None:  # the demo's aligner knows the demo's fifty words: with another model, none is the honest default
        name = DEMO_ALIGNER if Path(wanted.model).resolve() == Path(DEMO_MODEL) else ""
    if not name:
        tell("no ALIGNER: times are coarse, and there are no words")
        return ""
    return loadable("ALIGNER", name)


def transcribe(options: ModelOptions, request: TranscriptRequest) -> tuple[TranscriptResult, Seconds]:
    """Starts the backend, loads, transcribes once, stops it. Shows the log where that helps; raises DemoFailed."""
    with Backend() as backend:
        try:
            began = time.monotonic()
            backend.wait_until_up()
            up = time.monotonic()
            load(backend, options)
            loaded = time.monotonic()
            result = recognise(backend, request)
            return result, Seconds(start=up - began, load=loaded - up, transcribe=time.monotonic() - loaded)
        except BackendFailed as failure:
            show_log(backend)
            raise DemoFailed(str(failure)) from failure
        except DemoFailed as failure:
            if failure.with_log:
                show_log(backend)
            raise


def load(backend: Backend, options: ModelOptions) -> None:
    call = backend.stub.LoadModel.future(options, metadata=backend.metadata)
    answer: Result = wait_for(call, backend, "loading")
    if not answer.success:
        raise DemoFailed(f"the model was not loaded: {answer.message}", with_log=True)


def recognise(backend: Backend, request: TranscriptRequest) -> TranscriptResult:
    call = backend.stub.AudioTranscription.future(request, metadata=backend.metadata)
    result: TranscriptResult = wait_for(call, backend, "transcribing")
    for key, value in call.trailing_metadata() or ():
        if key == "x-asr-warning":
            tell(f"warning: {value if isinstance(value, str) else value.decode(errors='replace')}")
    return result


def wait_for(call: Any, backend: Backend, what: str) -> Any:
    """The reply to `call`, with the seconds that it takes on a terminal: nobody knows beforehand how many there are."""
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())
    with tqdm(desc=what, bar_format="{desc} {elapsed}", leave=False, disable=not sys.stderr.isatty()) as clock:
        while not ended.wait(0.2):
            clock.refresh()
    try:
        return call.result()
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            backend.check_alive(patience_s=1.0)  # a process that died says more than its broken connection
        ours = error.code() is grpc.StatusCode.INVALID_ARGUMENT
        raise DemoFailed(f"{what}: {error.details()} ({error.code().name})", with_log=not ours) from error


def timing(audio_s: float, took: Seconds) -> str:
    speed = f"{audio_s / took.transcribe:.1f} × real time" if took.transcribe else "no time at all"
    return (
        f"{audio_s:.1f} s of audio in {took.transcribe:.2f} s, {speed}, the aligner's loading included"
        f" (before that: {took.start:.1f} s to start, {took.load:.1f} s to load the model)"
    )


def show_log(backend: Backend) -> None:
    lines = backend.log_lines()
    if lines:
        tell("the end of the backend's log:")
        print(*lines[-LOG_LINES_SHOWN:], sep="\n", file=sys.stderr)


def tell(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
