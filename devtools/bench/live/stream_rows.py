"""`make bench ONLY=stream`: AudioTranscriptionStream against the unary call for the same file, in alternation."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from backend.wire import backend_pb2 as pb
from devtools.bench import clips
from devtools.bench.benchmark import Benchmark, loaded
from devtools.bench.live.limits import held_to, the_subject
from devtools.bench.measurement import Failed, Goal, Row, alternate, figures
from devtools.bench.system import Server
from devtools.live.request_log import log_of
from devtools.procfs import cpu_s
from devtools.transcribe.client import RequestFailed, stream

# seconds, pairs for each run (a few ms of some hundred need more of them than a ratio), and the goals of the first
# delta's share: on a CPU, on a GPU
_FILES = ((clips.CLIP_S, 8, (0.6, 0.5)), (16.0, 8, (None, None)), (clips.LONG_S, 2, (0.2, 0.15)))
_METHOD = "AudioTranscriptionStream"
_TOTAL_GOAL, _DEMO_TOTAL_GOAL = Goal("≤", 1.02), Goal("≤", 1.03)


class Answer(NamedTuple):
    """One call. `is_whole`: its deltas are its final text. A unary call has one delta, at its end."""

    text: str
    took_s: float
    cpu_s: float
    deltas_s: tuple[float, ...]
    is_whole: bool = True
    after_detector_ms: float = 0.0


def stream_rows(bench: Benchmark) -> Iterator[Row]:
    """Time and processor time of both calls, the first delta, and the longest gap between two deltas."""
    subject = the_subject(bench)
    with loaded(subject, bench.model(), bench.options) as server:
        for seconds, pairs, goals in _FILES:
            audio = clips.recording(seconds)
            sides = partial(streamed, server, audio), partial(unary, server, audio)
            alternate(1, *sides)
            what = f"stream, {seconds / 60:g} min" if seconds > 60 else f"stream, {seconds:g} s"
            found = alternate(pairs * bench.runs, *sides, what=what)
            yield from _rows(bench, what, found, goals)


def _rows(
    bench: Benchmark,
    what: str,
    found: Sequence[tuple[Answer, Answer]],
    goals: tuple[float | None, float | None],
) -> Iterator[Row]:
    subject, texts = the_subject(bench), {answer.text for pair in found for answer in pair}
    wrong = sum(not answer.is_whole for pair in found for answer in pair) + len(texts) - 1
    # the medians of equal parts of the pairs, so that the spread is that of the figure
    parts = [found[i :: bench.runs] for i in range(bench.runs)]
    medians = [(_median(part, 0), _median(part, 1)) for part in parts]
    sides = (subject.name, "unary")
    goal = _DEMO_TOTAL_GOAL if bench.is_demo else _TOTAL_GOAL
    yield Row(f"{what}, total", *sides, "s", "share", tuple(medians), goal, mismatches=wrong)
    spent = tuple((sum(ours.cpu_s for ours, _ in part), sum(theirs.cpu_s for _, theirs in part)) for part in parts)
    yield Row(f"{what}, CPU of all", *sides, "s", "share", spent)
    share = goals[bench.on_gpu]
    first = figures(found, lambda answer: answer.deltas_s[0])
    share_goal = None if share is None or bench.is_demo else Goal("≤", share)
    yield Row(f"{what}, first delta", subject.name, "unary's total", "s", "share", first, share_goal)
    ours = [answer for answer, _ in found]
    if bench.is_demo:
        after_ms = [statistics.median(answer.after_detector_ms for answer, _ in part) for part in parts]
        yield from held_to(bench, "first delta after the detector", after_ms, what)
    gaps = [max((b - a for a, b in itertools.pairwise(answer.deltas_s)), default=0.0) for answer in ours]
    yield from held_to(bench, "longest gap between deltas", [statistics.median(gaps)], f"{what}, median of the longest")


def _median(part: Sequence[tuple[Answer, Answer]], side: int) -> float:
    return statistics.median(pair[side].took_s for pair in part)


def streamed(server: Server, audio: Path) -> Answer:
    """Raises Failed or ServerFailed."""
    logged = len(log_of(server, _METHOD))
    spent_s, began = cpu_s(server.pid), time.perf_counter()
    at_s: list[float] = []
    pieces: list[str] = []

    def on_delta(delta: str) -> None:
        if delta:
            at_s.append(time.perf_counter() - began)
            pieces.append(delta)

    try:
        result, _ = stream(server, _request(audio), on_delta)
    except RequestFailed as error:
        raise Failed(str(error)) from error
    took_s = time.perf_counter() - began
    line = log_of(server, _METHOD, logged + 1)[-1]
    after_ms = line["first_delta_ms"] - line["decode_ms"] - line["vad_ms"]
    is_whole, times = "".join(pieces) == result.text, tuple(at_s) or (took_s,)
    return Answer(result.text, took_s, cpu_s(server.pid) - spent_s, times, is_whole, after_ms)


def unary(server: Server, audio: Path) -> Answer:
    """Raises Failed or ServerFailed."""
    spent_s, began = cpu_s(server.pid), time.perf_counter()
    text = server.transcribe(audio).text
    took_s = time.perf_counter() - began
    return Answer(text, took_s, cpu_s(server.pid) - spent_s, (took_s,))


def _request(audio: Path) -> pb.TranscriptRequest:
    """As Server.transcribe asks for a recording."""
    return pb.TranscriptRequest(dst=str(audio), diarize=True)
