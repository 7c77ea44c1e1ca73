"""Latency and throughput of whole requests: one clip, a long recording, many clips at once."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from devtools.bench import clips, vocabulary
from devtools.bench.benchmark import Benchmark, loaded
from devtools.bench.measurement import Goal, Row, in_unit, pairs_of, percentile, rows_or_failure
from devtools.bench.system import BASELINE, Reply, Server, System

_AT_ONCE = (1, 8, 32)
_AT_ONCE_QUICKLY = 8  # with a model of a published size the baseline takes minutes for more
_DEMO_PIECE_S = 15.0
_GPU_CLIP_S, _GPU_CLIPS, _GPU_WORDS, _GPU_SPEED = 30.0, 64, 110, 700.0

# of the 0.6B on a CPU against the baseline, by number format
_CLIP_GOALS = {"ours bf16": Goal("≥", 2.5), "ours int8": Goal("≥", 4)}
_EIGHT_CLIPS_GOALS = {"ours bf16": Goal("≥", 6), "ours int8": Goal("≥", 12)}
_LONG_GOALS = {"ours bf16": Goal("≥", 4), "ours int8": Goal("≥", 8)}
_GPU_CLIP_GOAL = Goal("≥", 3)


def _goal(bench: Benchmark, goals: Mapping[str, Goal], subject: System, rival: System) -> Goal | None:
    return goals.get(subject.name) if bench.shape == "0.6b" and rival is BASELINE and not bench.on_gpu else None


def clip(bench: Benchmark) -> Iterator[Row]:
    """One clip of 11 s on an idle server."""
    yield from rows_or_failure("11 s clip", "all", "each other", _clip_rows(bench))


def _clip_rows(bench: Benchmark) -> Iterator[Row]:
    audio, replies = clips.clip(0), defaultdict[System, list[Reply]](list)

    def latency_s(server: Server) -> float:
        replies[server.system].append(server.transcribe(audio))
        return replies[server.system][-1].took_s

    with bench.servers() as servers:
        found = bench.rounds("11 s clip", servers, latency_s)
    for subject, rival in bench.contests:
        is_gpu_goal = bench.on_gpu and rival is BASELINE
        goal = _GPU_CLIP_GOAL if is_gpu_goal else _goal(bench, _CLIP_GOALS, subject, rival)
        note = _note(rival.note, *(reply.warning for reply in replies[subject]))
        wrong = sum(bench.text is not None and reply.text != bench.text for reply in replies[subject])
        pairs = pairs_of(found, subject, rival)
        yield Row("11 s clip", subject.name, rival.name, "s", "fewer", pairs, goal, note, mismatches=wrong)


def long(bench: Benchmark) -> Iterator[Row]:
    """Recordings of 3 and 20 minutes; the latter with a large model only with `--long`.

    A bench checkpoint says its words once for each chunk. Ours cuts a recording into chunks, the package takes up to
    20 minutes as one chunk; so its checkpoint says as many words as ours says in all chunks. The demo's model was
    trained on 15 s and says little in longer chunks; the baseline gets its recording in pieces of 15 s, in sequence.
    """
    for seconds in (clips.LONG_S, clips.LONGEST_S)[: 2 if bench.is_demo or bench.long else 1]:
        measure = f"{seconds / 60:g} min recording"
        yield from rows_or_failure(measure, "all", "each other", _long_rows(bench, measure, seconds))


def _long_rows(bench: Benchmark, measure: str, seconds: float) -> Iterator[Row]:
    words, warnings = defaultdict[System, set[int]](set), defaultdict[System, set[str]](set)

    def latency_s(server: Server) -> float:
        in_pieces = server.system is BASELINE and bench.is_demo
        files = clips.pieces(seconds, _DEMO_PIECE_S) if in_pieces else [clips.recording(seconds)]
        replies = [server.transcribe(file) for file in files]
        words[server.system].add(sum(len(reply.text.split()) for reply in replies))
        warnings[server.system].update(reply.warning for reply in replies)
        return sum(reply.took_s for reply in replies)

    with contextlib.ExitStack() as stack:
        ours = [system for system in bench.systems if system is not BASELINE]
        servers = {system: stack.enter_context(loaded(system, bench.model())) for system in ours}
        if bench.with_baseline:
            baseline = _loaded_to_say_as_much(bench, servers[bench.subjects[0]], seconds)
            servers[BASELINE] = stack.enter_context(baseline)
        found = bench.rounds(measure, servers, latency_s)
    for subject, rival in bench.contests:
        goal = _goal(bench, _LONG_GOALS, subject, rival) if seconds == clips.LONG_S else None
        counts = ", ".join(f"{side.name} {count}" for side in (subject, rival) for count in sorted(words[side]))
        note = f"words: {_note(counts, rival.note, *warnings[subject], *warnings[rival])}"
        yield Row(measure, subject.name, rival.name, "s", "fewer", pairs_of(found, subject, rival), goal, note)


def _loaded_to_say_as_much(bench: Benchmark, ours: Server, seconds: float) -> contextlib.AbstractContextManager[Server]:
    """The baseline with a checkpoint that says in one chunk what ours says in all chunks of the recording."""
    if bench.is_demo:
        return loaded(BASELINE, bench.model())
    bench.say(f"how many words ours says in {seconds:g} s")
    words = len(ours.transcribe(clips.recording(seconds)).text.split())
    # the default of max_new_tokens, 512, would cut the answer
    return loaded(BASELINE, bench.model(words), more=[f"max_new_tokens:{words + 16}"])


class Burst(NamedTuple):
    """Concurrent requests: `speed` in seconds of audio per second, latencies, and how many texts were wrong."""

    speed: float
    p50_s: float
    p95_s: float
    wrong: int


def crowd(bench: Benchmark) -> Iterator[Row]:
    """1, 8 and 32 different clips of 11 s at once; each text must be what it is when requested alone."""
    yield from rows_or_failure("clips at once", "all", "each other", _crowd_rows(bench))


def _crowd_rows(bench: Benchmark) -> Iterator[Row]:
    sizes = [size for size in _AT_ONCE if size <= _AT_ONCE_QUICKLY or bench.is_demo or bench.long]
    audio = [clips.clip(number) for number in range(max(sizes))]
    with bench.servers() as servers:
        ours = {system: server for system, server in servers.items() if system is not BASELINE}
        alone = {s: [bench.text or server.transcribe(path).text for path in audio] for s, server in ours.items()}

        def concurrent(size: int, server: Server) -> Burst:
            return burst(server, audio[:size], alone.get(server.system, ()))

        for size in sizes:
            measure = f"{size} clip{'s'[: size > 1]} at once"
            found = bench.rounds(measure, servers, functools.partial(concurrent, size))
            for subject, rival in bench.contests:
                goal = _goal(bench, _EIGHT_CLIPS_GOALS, subject, rival) if size == 8 else None
                yield from _burst_rows(measure, subject, rival, pairs_of(found, subject, rival), goal)


def _burst_rows(
    measure: str, subject: System, rival: System, found: Sequence[tuple[Burst, Burst]], goal: Goal | None
) -> Iterator[Row]:
    sides = (subject.name, rival.name)
    speeds, wrong = in_unit(found, lambda each: each.speed), sum(ours.wrong for ours, _ in found)
    yield Row(measure, *sides, "× real time", "more", speeds, goal, rival.note, mismatches=wrong)
    if not measure.startswith("1 "):
        yield Row(f"{measure}, p50", *sides, "s", pairs=in_unit(found, lambda each: each.p50_s))
        yield Row(f"{measure}, p95", *sides, "s", pairs=in_unit(found, lambda each: each.p95_s))


def burst(server: Server, audio: Sequence[Path], expected: Sequence[str], clip_s: float = clips.CLIP_S) -> Burst:
    """All at once, each from its own thread. `expected`: the texts; empty means any."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(audio)) as threads:
        replies = list(threads.map(server.transcribe, audio))
    took_s = time.monotonic() - began
    latencies = [reply.took_s for reply in replies]
    wrong = sum(reply.text != text for reply, text in zip(replies, expected, strict=False))
    return Burst(len(audio) * clip_s / took_s, percentile(latencies, 50), percentile(latencies, 95), wrong)


def gpu(bench: Benchmark) -> Iterator[Row]:
    """On a GPU: 64 clips of 30 s at once, with the words that 30 s have, against 700 × real time."""
    for subject in bench.subjects if bench.on_gpu and not bench.is_demo else ():
        measure, rival = f"{_GPU_CLIPS} clips of {_GPU_CLIP_S:g} s", f"{_GPU_SPEED:g} × real time"
        yield from rows_or_failure(measure, subject.name, rival, _gpu_rows(bench, subject, measure, rival))


def _gpu_rows(bench: Benchmark, subject: System, measure: str, rival: str) -> Iterator[Row]:
    audio = [clips.clip(number % 30, _GPU_CLIP_S) for number in range(_GPU_CLIPS)]
    more = (f"max_chunk_seconds:{_GPU_CLIP_S:g}", f"batch_max_size:{_GPU_CLIPS}")
    texts = [vocabulary.text_of(_GPU_WORDS)] * _GPU_CLIPS
    with loaded(subject, bench.model(_GPU_WORDS), more) as ours:
        burst(ours, audio, ())
        bench.say(f"{measure}, {subject.name}: {bench.runs} times")
        found = [burst(ours, audio, texts, _GPU_CLIP_S) for _ in range(bench.runs)]
    speeds = tuple((each.speed, _GPU_SPEED) for each in found)
    goal = Goal("≥", 1) if bench.shape == "1.7b" else None
    wrong = sum(each.wrong for each in found)
    yield Row(measure, subject.name, rival, "× real time", "more", speeds, goal, mismatches=wrong)


def _note(*remarks: str) -> str:
    return "; ".join(filter(None, dict.fromkeys(remarks)))
