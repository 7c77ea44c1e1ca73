"""What a caller waits for: one clip, a long recording, many clips at once."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import clips
from bench.child import TODAY, Child, System
from bench.pairs import Goal, Row, alternate, percentile
from bench.plan import Plan, Rival, loaded, rows_or_failure

_CROWDS = (1, 8, 32)
_DEMO_PIECE_S = 15.0
_LARGEST_QUICKLY = 8  # of a model of a published size, whose baseline takes minutes for more
_GPU_CLIP_S, _GPU_CLIPS, _GPU_WORDS = 30.0, 64, 110

# what is wanted of the 0.6B, by the way the numbers are written
_CLIP_GOALS = {"ours bf16": Goal("≥", 2.5), "ours int8": Goal("≥", 4)}
_CROWD_GOALS = {"ours bf16": Goal("≥", 6), "ours int8": Goal("≥", 12)}
_LONG_GOALS = {"ours bf16": Goal("≥", 4), "ours int8": Goal("≥", 8)}
_ONE_ON_A_GPU = Goal("≥", 3)


def _goal(plan: Plan, goals: Mapping[str, Goal], subject: System, rival: System) -> Goal | None:
    return goals.get(subject.name) if plan.shape == "0.6b" and rival is TODAY and not plan.on_gpu else None


def clip(plan: Plan) -> Iterator[Row]:
    """One clip of 11 s, nothing else going on."""
    with Rival() as rivals:
        for subject, rival in plan.contests:
            rows = functools.partial(_clip_rows, plan, subject, rival, rivals)
            yield from rows_or_failure("11 s clip", subject.name, rival.name, rows)


def _clip_rows(plan: Plan, subject: System, rival: System, rivals: Rival) -> Iterator[Row]:
    audio, warnings, wrong = clips.clip(0), set[str](), 0
    with loaded(subject, plan.model()) as ours:
        theirs = rivals.get(rival, plan.model())

        def asked() -> float:
            nonlocal wrong
            reply = ours.ask(audio)
            warnings.add(reply.warning)
            wrong += plan.text is not None and reply.text != plan.text
            return reply.took_s

        found = plan.pairs(f"11 s clip, {subject.name} against {rival.name}", asked, lambda: theirs.ask(audio).took_s)
    goal = _ONE_ON_A_GPU if plan.on_gpu and rival is TODAY else _goal(plan, _CLIP_GOALS, subject, rival)
    note = "; ".join(sorted(warnings - {""}))
    yield Row("11 s clip", subject.name, rival.name, "s", "fewer", found, goal, note, mismatches=wrong)


def long(plan: Plan) -> Iterator[Row]:
    """Recordings of 3 and 20 minutes; the latter with a large model only where it is asked for.

    A bench checkpoint says its words once for each chunk that it is given. Ours cuts a recording into chunks, the
    package takes up to 20 minutes as one; its checkpoint therefore knows as many words as ours says in all chunks.
    The demo's model was taught on 15 s and says little in such a chunk; today's way is therefore asked for its
    recording in pieces of 15 s, one after another, by a caller who knows that.
    """
    for seconds in (clips.LONG_S, clips.LONGEST_S)[: 2 if plan.is_demo or plan.long else 1]:
        measure = f"{seconds / 60:g} min recording"
        with Rival() as rivals:
            for subject, rival in plan.contests:
                rows = functools.partial(_long_rows, plan, subject, rival, rivals, measure, seconds)
                yield from rows_or_failure(measure, subject.name, rival.name, rows)


@functools.cache
def _words_said(plan: Plan, seconds: float) -> int:
    """How many words ours says in all chunks of the recording. Raises Failed."""
    plan.say(f"how much is said in {seconds:g} s")
    with loaded(plan.subjects[0], plan.model()) as ours:
        return len(ours.ask(clips.recording(seconds)).text.split())


def _long_rows(
    plan: Plan, subject: System, rival: System, rivals: Rival, measure: str, seconds: float
) -> Iterator[Row]:
    audio, said, warnings = [clips.recording(seconds)], set[str](), set[str]()
    model, more, theirs_audio = plan.model(), list[str](), audio
    if rival is TODAY and plan.is_demo:
        theirs_audio = clips.pieces(seconds, _DEMO_PIECE_S)
    elif rival is TODAY:
        words = _words_said(plan, seconds)
        model, more = plan.model(words), [f"max_new_tokens:{words + 16}"]  # the default, 512, would cut the answer
    with loaded(subject, plan.model()) as ours:
        theirs = rivals.get(rival, model, more)

        def ask(child: Child, files: Sequence[Path]) -> float:
            replies = [child.ask(file) for file in files]
            said.add(f"{child.system.name} {sum(len(reply.text.split()) for reply in replies)}")
            warnings.update(reply.warning for reply in replies)
            return sum(reply.took_s for reply in replies)

        what = f"{measure}, {subject.name} against {rival.name}"
        found = plan.pairs(what, lambda: ask(ours, audio), lambda: ask(theirs, theirs_audio))
    goal = _goal(plan, _LONG_GOALS, subject, rival) if seconds == clips.LONG_S else None
    note = "; ".join([f"words: {', '.join(sorted(said))}", *sorted(warnings - {""})])
    yield Row(measure, subject.name, rival.name, "s", "fewer", found, goal, note)


class Burst(NamedTuple):
    """So many clips at once: seconds of audio for each second, how long callers waited, texts that were not right."""

    speed: float
    p50_s: float
    p95_s: float
    wrong: int


def crowd(plan: Plan) -> Iterator[Row]:
    """1, 8 and 32 clips of 11 s at once, each another; every text must be what it is when asked for alone."""
    sizes = [size for size in _CROWDS if size <= _LARGEST_QUICKLY or plan.is_demo or plan.long]
    with Rival() as rivals:
        for subject, rival in plan.contests:
            rows = functools.partial(_crowd_rows, plan, subject, rival, rivals, sizes)
            yield from rows_or_failure("clips at once", subject.name, rival.name, rows)


def _crowd_rows(plan: Plan, subject: System, rival: System, rivals: Rival, sizes: Sequence[int]) -> Iterator[Row]:
    audio = [clips.clip(number) for number in range(max(sizes))]
    sides = (subject.name, rival.name)
    with loaded(subject, plan.model()) as ours:
        theirs = rivals.get(rival, plan.model())
        alone = [plan.text or ours.ask(path).text for path in audio]
        for size in sizes:
            measure, some = f"{size} clip{'s'[: size > 1]} at once", audio[:size]
            plan.say(f"{measure}, {subject.name} against {rival.name}: {plan.runs} pairs")
            found = alternate(
                plan.runs, functools.partial(burst, ours, some, alone), functools.partial(burst, theirs, some, ())
            )
            goal = _goal(plan, _CROWD_GOALS, subject, rival) if size == 8 else None
            speeds = tuple((a.speed, b.speed) for a, b in found)
            wrong = sum(a.wrong for a, _ in found)
            yield Row(measure, *sides, "× real time", "more", speeds, goal, mismatches=wrong)
            if size > 1:
                yield Row(f"{measure}, p50", *sides, "s", pairs=tuple((a.p50_s, b.p50_s) for a, b in found))
                yield Row(f"{measure}, p95", *sides, "s", pairs=tuple((a.p95_s, b.p95_s) for a, b in found))


def burst(child: Child, audio: Sequence[Path], alone: Sequence[str], clip_s: float = clips.CLIP_S) -> Burst:
    """All at once, each from a thread of its own. `alone`: the text that each must give; none: any will do."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(audio)) as callers:
        replies = list(callers.map(child.ask, audio))
    took_s = time.monotonic() - began
    waits = [reply.took_s for reply in replies]
    wrong = sum(reply.text != text for reply, text in zip(replies, alone, strict=False))
    return Burst(len(audio) * clip_s / took_s, percentile(waits, 50), percentile(waits, 95), wrong)


def gpu(plan: Plan) -> Iterator[Row]:
    """On a GPU: 64 clips of 30 s at once, against 700 × real time, with the words that 30 s have."""
    if not plan.on_gpu or plan.is_demo:
        return
    measure = f"{_GPU_CLIPS} clips of {_GPU_CLIP_S:g} s"
    for subject in plan.subjects:

        def rows(subject: System = subject) -> Iterator[Row]:
            audio = [clips.clip(number % 30, _GPU_CLIP_S) for number in range(_GPU_CLIPS)]
            more = (f"max_chunk_seconds:{_GPU_CLIP_S:g}", f"batch_max_size:{_GPU_CLIPS}")
            with loaded(subject, plan.model(_GPU_WORDS), more=more) as ours:
                burst(ours, audio, ())
                plan.say(f"{measure}, {subject.name}: {plan.runs} times")
                found = [burst(ours, audio, (), _GPU_CLIP_S) for _ in range(plan.runs)]
            speeds = tuple((each.speed, 700.0) for each in found)
            goal = Goal("≥", 1) if plan.shape == "1.7b" else None
            yield Row(measure, subject.name, "700 × real time", "× real time", "more", speeds, goal)

        yield from rows_or_failure(measure, subject.name, "700 × real time", rows)
