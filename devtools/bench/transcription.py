"""Latency and throughput of whole requests: one clip, a long recording, many clips at once."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from devtools.bench import clips, shapes
from devtools.bench.benchmark import CLIP_WORDS, Benchmark, loaded
from devtools.bench.measurement import Goal, Row, figures, pairs_of, percentile, rounds, say
from devtools.bench.system import BASELINE, Reply, Server, Side, System

_AT_ONCE, _AT_ONCE_QUICKLY = (1, 8, 32), 8  # of a published size; for more the baseline takes minutes
_DEMO_PIECE_S = 15.0
_PASSAGE_S, _PASSAGE_WORDS = float(shapes.CHUNK_S), 110  # the longest passage by default, and about its words
_PASSAGE_OPTION = f"max_chunk_seconds:{_PASSAGE_S:g}"  # also for an earlier revision with another default
_GPU_CLIPS, _GPU_SPEED = 64, 700.0

# of the 0.6B on a CPU against the baseline: bf16, int8
_GOALS = {"11 s clip": (2.5, 4.0), "8 clips at once": (6.0, 12.0), "3 min recording": (4.0, 8.0)}
_GPU_CLIP_GOAL = Goal("≥", 3)


def _goal(bench: Benchmark, measure: str, subject: System, rival: System) -> Goal | None:
    if rival is not BASELINE or bench.on_gpu or bench.shape != "0.6b" or measure not in _GOALS:
        return _GPU_CLIP_GOAL if rival is BASELINE and bench.on_gpu and measure == "11 s clip" else None
    bf16, int8 = _GOALS[measure]
    return {"ours bf16": Goal("≥", bf16), "ours int8": Goal("≥", int8)}.get(subject.name)


def clip(bench: Benchmark) -> Iterator[Row]:
    """One clip of 11 s on an idle server."""
    return _latencies(bench, "11 s clip", clips.CLIP_S)


def long(bench: Benchmark) -> Iterator[Row]:
    """Recordings of 3 and 20 minutes; the latter with a large model only with `--long`.

    A bench checkpoint says its words once for each chunk, here as many as 30 s of speech have. Ours cuts a recording
    into chunks, the package takes up to 20 minutes as one chunk; so its checkpoint says as many words as ours says in
    all chunks. The demo's model was trained on 15 s and says little in longer chunks; the baseline gets its recording
    in pieces of 15 s, in sequence.
    """
    for seconds in (clips.LONG_S, clips.LONGEST_S)[: 2 if bench.is_demo or bench.long else 1]:
        yield from _latencies(bench, f"{seconds / 60:g} min recording", seconds)


def _latencies(bench: Benchmark, measure: str, seconds: float) -> Iterator[Row]:
    replies = defaultdict[System, list[Reply]](list)

    def latency_s(server: Side) -> float:
        in_pieces = server.system is BASELINE and bench.is_demo
        files = clips.pieces(seconds, _DEMO_PIECE_S) if in_pieces else [clips.recording(seconds)]
        found = [server.transcribe(file) for file in files]
        replies[server.system] += found
        return sum(reply.took_s for reply in found)

    is_cut = seconds > clips.CLIP_S and not bench.is_demo
    words, more = (_PASSAGE_WORDS, (_PASSAGE_OPTION,)) if is_cut else (CLIP_WORDS, ())
    with bench.servers({BASELINE}, words, more) as servers, contextlib.ExitStack() as stack:
        if bench.with_baseline:
            baseline = _loaded_to_say_as_much(bench, servers[bench.subjects[0]], seconds)
            servers[BASELINE] = stack.enter_context(baseline)
        every: list[Side] = [*servers.values(), *bench.peers]
        sides = {side.system: functools.partial(latency_s, side) for side in every}
        found = rounds(bench.runs, sides, what=measure)
    peers = {peer.system for peer in bench.peers}
    for subject, rival in bench.request_contests:
        notes, wrong = {rival.note, *(reply.warning for side in (subject, rival) for reply in replies[side])}, 0
        if seconds == clips.CLIP_S:
            wrong = sum(bench.text is not None and reply.text != bench.text for reply in replies[subject])
        if seconds != clips.CLIP_S or rival in peers:
            said = {side: sum(len(reply.text.split()) for reply in replies[side]) for side in (subject, rival)}
            notes.add("words: " + ", ".join(f"{side.name} {count / bench.runs:.0f}" for side, count in said.items()))
        pairs, goal = pairs_of(found, subject, rival), _goal(bench, measure, subject, rival)
        remarks = "; ".join(sorted(notes - {""}))
        yield Row(measure, subject.name, rival.name, "s", "fewer", pairs, goal, remarks, mismatches=wrong)


def _loaded_to_say_as_much(bench: Benchmark, ours: Server, s: float) -> contextlib.AbstractContextManager[Server]:
    """The baseline with a checkpoint that says in one chunk what ours says in all chunks of a recording of `s`."""
    if bench.is_demo:
        return loaded(BASELINE, bench.model())
    words = len(ours.transcribe(clips.recording(s)).text.split())
    # the default of max_new_tokens, 512, would cut the answer
    return loaded(BASELINE, bench.model(words), more=[f"max_new_tokens:{words + 16}"])


class Burst(NamedTuple):
    """Concurrent requests: `speed` in seconds of audio per second, latencies, and how many texts were wrong."""

    speed: float
    p50_s: float
    p95_s: float
    wrong: int


def crowd(bench: Benchmark) -> Iterator[Row]:
    """1, 8 and 32 different clips of 11 s at once; each text must be what it is when requested alone.

    The first crowd that a server meets stands by itself: ours starts decoder processes for it.
    """
    sizes = [size for size in _AT_ONCE if size <= _AT_ONCE_QUICKLY or bench.is_demo or bench.long]
    audio = [clips.clip(number) for number in range(max(sizes))]
    with bench.servers() as servers:
        every: list[Side] = [*servers.values(), *bench.peers]
        first = {side.system: burst(side, audio[:_AT_ONCE_QUICKLY], ()) for side in every}
        for subject, rival in bench.request_contests:
            waits = ((first[subject].p50_s, first[rival].p50_s),)
            measure = f"{_AT_ONCE_QUICKLY} clips at once, the first, p50"
            note = "; ".join(filter(None, (rival.note, "ours starts decoder processes meanwhile")))
            yield Row(measure, subject.name, rival.name, "s", pairs=waits, note=note)
        ours = {system: server for system, server in servers.items() if system is not BASELINE}
        alone = {s: [bench.text or server.transcribe(path).text for path in audio] for s, server in ours.items()}
        for size in sizes:
            sides = {
                each.system: functools.partial(burst, each, audio[:size], alone.get(each.system, ())) for each in every
            }
            yield from _crowd_rows(bench, size, sides)


def _crowd_rows(bench: Benchmark, size: int, sides: Mapping[System, Callable[[], Burst]]) -> Iterator[Row]:
    """Throughput, and how long half and nearly all of the callers wait; one caller has no spread of waits."""
    measure = f"{size} clip{'s'[: size > 1]} at once"
    found = rounds(bench.runs, sides, what=measure)
    for subject, rival in bench.request_contests:
        pairs, names = pairs_of(found, subject, rival), (subject.name, rival.name)
        goal = _goal(bench, measure, subject, rival)
        speeds, wrong = figures(pairs, lambda each: each.speed), sum(burst.wrong for burst, _ in pairs)
        yield Row(measure, *names, "× real time", "more", speeds, goal, rival.note, mismatches=wrong)
        if size > 1:
            yield Row(f"{measure}, p50", *names, "s", pairs=figures(pairs, lambda each: each.p50_s))
            yield Row(f"{measure}, p95", *names, "s", pairs=figures(pairs, lambda each: each.p95_s))


def burst(server: Side, audio: Sequence[Path], expected: Sequence[str], clip_s: float = clips.CLIP_S) -> Burst:
    """All at once, each from its own thread. `expected`: the texts; empty means any."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(audio)) as threads:
        replies = list(threads.map(server.transcribe, audio))
    took_s = time.monotonic() - began
    latencies = [reply.took_s for reply in replies]
    wrong = sum(reply.text != text for reply, text in zip(replies, expected, strict=False))
    return Burst(len(audio) * clip_s / took_s, percentile(latencies, 50), percentile(latencies, 95), wrong)


def gpu(bench: Benchmark, subject: System) -> Iterator[Row]:
    """On a GPU: 64 clips of 30 s at once, with the words that 30 s have, against 700 × real time."""
    if bench.is_demo or not bench.on_gpu:
        return
    rival = f"{_GPU_SPEED:g} × real time"
    audio = [clips.clip(number % 30, _PASSAGE_S) for number in range(_GPU_CLIPS)]
    texts = [shapes.text_of(_PASSAGE_WORDS)] * _GPU_CLIPS
    for rows in bench.rows or (0,):
        together = f", {rows} row{'s'[: rows > 1]}" if rows else ""
        measure = f"{_GPU_CLIPS} clips of {_PASSAGE_S:g} s{together}{'' if bench.graphs else ', no graphs'}"
        more = (_PASSAGE_OPTION, *bench.options, *([f"batch_max_size:{rows}"] if rows else []))
        with loaded(subject, bench.model(_PASSAGE_WORDS), more) as ours:
            burst(ours, audio, ())
            say(f"{measure}, {subject.name}: {bench.runs} times")
            found = [burst(ours, audio, texts, _PASSAGE_S) for _ in range(bench.runs)]
        speeds, wrong = tuple((each.speed, _GPU_SPEED) for each in found), sum(each.wrong for each in found)
        goal = Goal("≥", 1) if bench.shape == "1.7b" and not rows and bench.graphs else None
        yield Row(measure, subject.name, rival, "× real time", "more", speeds, goal, mismatches=wrong)
