"""`make bench ONLY=live`: AudioTranscriptionLive, by clients that speak as the gateway does, each figure to its limit.

The demo's words have true times, so lag is measured from outside. A checkpoint of random weights knows one text by
heart, whatever is said: there the lag is what the server's own log says, and the server is revising_server.py's, with
answers that grow with their sound and drafts whose ends are wrong.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from devtools.bench import clips
from devtools.bench.benchmark import Benchmark, loaded
from devtools.bench.live import sounds
from devtools.bench.live.growing_posts import post_growing
from devtools.bench.live.limits import held_to, the_subject
from devtools.bench.live.paced_runs import (
    arrivals,
    beside,
    connected,
    cpu_between,
    flush_s,
    message_rates,
    ready_ms,
    sampled,
    say_all,
    timed_health,
    utterance_delays,
)
from devtools.bench.live.sounds import Speech, speech
from devtools.bench.measurement import Failed, Goal, Row, percentile, say
from devtools.bench.system import Server, System, environment_of_run_sh
from devtools.eval.live.word_lag import of_texts, rewrites
from devtools.live.paced_client import LiveRun
from devtools.live.request_log import line_of
from devtools.procfs import cpu_s

_PACED_S, _CROWD_S, _SILENT_S, _LONG_S = 60.0, 40.0, 15.0, 600.0
_FAIR_S, _FAIR_LARGE_S = 20.0, 60.0  # a CPU answers eight files of a published size in ten seconds
_READY, _ENDINGS, _FILES = 30, 6, 8
_AT_ONCE = {"demo": 16, "0.6b": 1, "1.7b": 1}
_AT_ONCE_ON_GPU = {"0.6b": 32, "1.7b": 16}
_REVISING_WORDS = 110  # as many as the longest passage has
_REVISED = "random weights: 40 words in 11 s, the last 3 tokens of each draft wrong"


def live_rows(bench: Benchmark) -> Iterator[Row]:
    """All questions in one server, one after the other; they last about five minutes, with `--long` fifteen."""
    options = (*bench.options, *(["live_step_seconds:0.5"] if bench.on_gpu else []))
    model = bench.model() if bench.is_demo else bench.model(_REVISING_WORDS)
    with loaded(server_of(bench), model, options) as server:
        connected(server, lambda stub: say_all(stub, [speech(4.0)]))  # the first stream imports and allocates
        for question in (_ready, _one_speaker, _silence, _endings, _many_speakers, _beside_files):
            name = f"live,{question.__name__.replace('_', ' ')}"
            say(name)
            try:
                yield from question(bench, server)
            except Failed as failure:  # the other questions can be answered
                yield Row(name, the_subject(bench).name, "", failure=str(failure))
        if bench.long:
            say("live, ten minutes")
            yield from _ten_minutes(bench, server)


def server_of(bench: Benchmark) -> System:
    """The subject; one of random weights as revising_server.py, in the environment of run.sh."""
    subject = the_subject(bench)
    if bench.is_demo:
        return subject
    set_there = [f"{name}={value}" for name, value in environment_of_run_sh().items() if name not in os.environ]
    return replace(subject, command=("env", *set_there, sys.executable, "-m", "devtools.bench.live.revising_server"))


def _note(bench: Benchmark, *notes: str) -> str:
    """The notes, and what of the models stands behind the figure."""
    return "; ".join([*notes, *([] if bench.is_demo else [_REVISED])])


def _ready(bench: Benchmark, server: Server) -> Iterator[Row]:
    idle = connected(server, lambda stub: ready_ms(stub, _READY))

    async def busy(stub: Any) -> list[float]:
        async with beside(stub, [clips.recording(clips.LONG_S)] * _FILES):
            await asyncio.sleep(1.0)
            return await ready_ms(stub, _READY)

    yield from held_to(bench, "ready, p99", [percentile(idle, 99)], f"{_READY} times")
    yield from held_to(bench, "ready beside 8 files, p99", [percentile(connected(server, busy), 99)], f"{_READY} times")


def _one_speaker(bench: Benchmark, server: Server) -> Iterator[Row]:
    """Lag, delays, messages and processor time, beside the growing recording and the file as a whole."""
    said = speech(_PACED_S / 2 if bench.runs == 1 else _PACED_S)
    subject = the_subject(bench)

    async def paced(stub: Any) -> tuple[LiveRun, float]:
        async with sampled(server) as samples:
            (run,) = await say_all(stub, [said])
        return run, samples[-1].cpu_s - samples[0].cpu_s

    run, live_cpu_s = connected(server, paced)
    yield from _lags(bench, server, run, said)
    a_second, most = message_rates(run)
    yield from held_to(bench, "messages in a second", [a_second])
    yield from held_to(bench, "most messages in 300 ms", [most])
    share = 100 * live_cpu_s / run.closed_s
    decodes = f"{line_of(server, run.request)['steps']} decodes in {run.closed_s:.0f} s"
    yield from held_to(bench, "CPU while somebody speaks", [share], _note(bench, decodes))
    before_s = cpu_s(server.pid)
    server.transcribe(clips.recording(said.samples.size / 16_000))
    offline_cpu_s = max(cpu_s(server.pid) - before_s, 0.01)
    goal = None if bench.on_gpu else Goal("≤", 4 if bench.is_demo else 3.5)
    pairs = ((live_cpu_s, offline_cpu_s),)
    yield Row("CPU of a stream", subject.name, "its file", "s", "share", pairs, goal, _note(bench, decodes))
    before_s = cpu_s(server.pid)
    texts = connected(server, lambda stub: post_growing(stub, said.samples))
    posts_cpu_s = cpu_s(server.pid) - before_s
    sides = (subject.name, "growing posts")
    note = f"posted every second; {rewrites(text for _, text in texts)} of {len(texts)} replies change earlier words"
    yield Row("CPU of a stream", *sides, "s", pairs=((live_cpu_s, posts_cpu_s),), note=_note(bench, note))
    if bench.is_demo:
        ours = [arrival.lag_s for arrival in arrivals(run, said)]
        theirs = [arrival.lag_s for arrival in of_texts(texts, said.words, said.language)]
        for percent in (50, 95):
            pair = (percentile(ours, percent), percentile(theirs, percent))
            yield Row(f"lag of words, p{percent}", *sides, "s", pairs=(pair,), note=note)


def _lags(bench: Benchmark, server: Server, run: LiveRun, said: Speech) -> Iterator[Row]:
    if not bench.is_demo:
        line = line_of(server, run.request)
        note = _note(bench, "by the server's log")
        for percent in (50, 95):
            yield from held_to(bench, f"lag of words, p{percent}", [line[f"lag_p{percent}_ms"] / 1000], note)
        return
    lags = [arrival.lag_s for arrival in arrivals(run, said)]
    if not lags:
        raise Failed("no word of the recording was shown")
    note = f"{len(lags)} of {len(said.words)} words; deltas are {'' if run.is_whole else 'NOT '}the final text"
    for percent in (50, 95):
        yield from held_to(bench, f"lag of words, p{percent}", [percentile(lags, percent)], note)
    firsts, lasts = utterance_delays(run, said)
    note = f"{len(firsts)} utterances"
    for percent in (50, 95):
        yield from held_to(bench, f"speech to its first delta, p{percent}", [percentile(firsts, percent)], note)
    yield from held_to(bench, "end of speech to its last delta, p95", [percentile(lasts, 95)], note)


def _silence(bench: Benchmark, server: Server) -> Iterator[Row]:
    async def silent(stub: Any) -> float:
        async with sampled(server) as samples:
            (run,) = await say_all(stub, [Speech(sounds.silence(_SILENT_S), ())])
        return 100 * (samples[-1].cpu_s - samples[0].cpu_s) / run.closed_s

    yield from held_to(bench, "CPU in silence", [connected(server, silent)])


def _endings(bench: Benchmark, server: Server) -> Iterator[Row]:
    """Half-closes, one after the other."""
    for where, sound in (("a pause", sounds.ends_in_a_pause), ("speech", sounds.ends_in_a_word)):
        took_s = [flush_s(server, sound(number)) for number in range(_ENDINGS)]
        note = f"{_ENDINGS} times"
        yield from held_to(bench, f"half-close in {where} to the final, p95", [percentile(took_s, 95)], note)


def _many_speakers(bench: Benchmark, server: Server) -> Iterator[Row]:
    count = (_AT_ONCE_ON_GPU if bench.on_gpu else _AT_ONCE).get(bench.shape, 1)
    count += bool(the_subject(bench).quantization and count == 1)
    speeches = [speech(_CROWD_S / 2 if bench.runs == 1 else _CROWD_S, 7.0 * number) for number in range(count)]

    async def crowd(stub: Any) -> tuple[list[LiveRun], list[float]]:
        async with timed_health(stub) as health_s:
            return await say_all(stub, speeches), health_s

    before_s = cpu_s(server.pid)
    runs, health_s = connected(server, crowd)
    share = (cpu_s(server.pid) - before_s) / max(run.final_at_s for run in runs)
    note = f"{count} streams, {sum(run.is_whole for run in runs)} whole; {share:.0%} of a core"
    lag_s = _lag_p95_s(bench, server, runs, speeches)
    yield from held_to(bench, "streams at once, lag of words, p95", [lag_s], _note(bench, note))
    yield from held_to(bench, "Health meanwhile, p99", [percentile(health_s, 99)], note)


def _beside_files(bench: Benchmark, server: Server) -> Iterator[Row]:
    fair_s = _FAIR_S if bench.is_demo or bench.on_gpu else _FAIR_LARGE_S
    said = speech(fair_s)
    files = [clips.clip(number) for number in range(_FILES)]

    async def files_alone(stub: Any) -> int:
        async with beside(stub, files) as done:
            await asyncio.sleep(fair_s)
        return len(done)

    async def both(stub: Any) -> tuple[list[LiveRun], int]:
        async with beside(stub, files) as done:
            runs = await say_all(stub, [said])
        return runs, sum(at_s <= fair_s for at_s in done)

    alone_s = _lag_p95_s(bench, server, connected(server, lambda stub: say_all(stub, [said])), [said])
    answered_alone = connected(server, files_alone)
    runs, answered = connected(server, both)
    more_s = _lag_p95_s(bench, server, runs, [said]) - alone_s
    note = _note(bench, f"alone {alone_s:.2f} s")
    yield from held_to(bench, "lag of words beside 8 files less alone, p95", [more_s], note)
    what = "throughput of 8 files that a stream costs"
    if not answered_alone:
        yield Row(what, the_subject(bench).name, "", failure=f"no file was answered in {fair_s:g} s without a stream")
        return
    lost = 100 * (1 - answered / answered_alone)
    note = f"{answered} of 11 s in {fair_s:g} s, {answered_alone} without"
    yield from held_to(bench, what, [lost], _note(bench, note))


def _lag_p95_s(bench: Benchmark, server: Server, runs: Sequence[LiveRun], speeches: Sequence[Speech]) -> float:
    if bench.is_demo:
        lags = [a.lag_s for run, said in zip(runs, speeches, strict=True) for a in arrivals(run, said)]
        return percentile(lags, 95)
    return max(float(line_of(server, run.request)["lag_p95_ms"]) for run in runs) / 1000


def _ten_minutes(bench: Benchmark, server: Server) -> Iterator[Row]:
    """A minute's sound over and over, so that every minute has as much speech."""
    minute = speech(60.0).samples
    said = Speech(sounds.repeated(minute, _LONG_S), ())

    async def paced(stub: Any) -> list[Any]:
        async with sampled(server) as samples:
            await say_all(stub, [said])
        return samples

    samples = connected(server, paced)
    pair = (cpu_between(samples, _LONG_S - 60, _LONG_S), cpu_between(samples, 60, 120))
    subject = the_subject(bench).name
    yield Row("CPU of minute 10", subject, "minute 2", "s", "share", (pair,), Goal("≤", 1.05))
    after_2 = next(sample.resident_mib for sample in samples if sample.at_s >= 120)
    yield from held_to(bench, "memory from minute 2 to the last", [samples[-1].resident_mib - after_2])
