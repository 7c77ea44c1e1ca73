"""What a caller waits for: one clip, a long recording, many clips at once."""

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
from devtools.bench.child import TODAY, Child, Reply, System
from devtools.bench.pairs import Goal, Row, pairs_of, percentile
from devtools.bench.plan import Plan, loaded, rows_or_failure

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
    yield from rows_or_failure("11 s clip", "all", "each other", functools.partial(_clip_rows, plan))


def _clip_rows(plan: Plan) -> Iterator[Row]:
    audio, replies = clips.clip(0), defaultdict[System, list[Reply]](list)

    def ask(child: Child) -> float:
        replies[child.system].append(child.ask(audio))
        return replies[child.system][-1].took_s

    with contextlib.ExitStack() as stack:
        children = {system: stack.enter_context(loaded(system, plan.model())) for system in plan.systems}
        found = plan.rounds("11 s clip", children, ask)
    for subject, rival in plan.contests:
        goal = _ONE_ON_A_GPU if plan.on_gpu and rival is TODAY else _goal(plan, _CLIP_GOALS, subject, rival)
        note = "; ".join(sorted({rival.note, *(reply.warning for reply in replies[subject])} - {""}))
        wrong = sum(plan.text is not None and reply.text != plan.text for reply in replies[subject])
        pairs = pairs_of(found, subject, rival)
        yield Row("11 s clip", subject.name, rival.name, "s", "fewer", pairs, goal, note, mismatches=wrong)


def long(plan: Plan) -> Iterator[Row]:
    """Recordings of 3 and 20 minutes; the latter with a large model only where it is asked for.

    A bench checkpoint says its words once for each chunk that it is given. Ours cuts a recording into chunks, the
    package takes up to 20 minutes as one; its checkpoint therefore knows as many words as ours says in all chunks.
    The demo's model was taught on 15 s and says little in such a chunk; today's way is therefore asked for its
    recording in pieces of 15 s, one after another, by a caller who knows that.
    """
    for seconds in (clips.LONG_S, clips.LONGEST_S)[: 2 if plan.is_demo or plan.long else 1]:
        measure = f"{seconds / 60:g} min recording"
        yield from rows_or_failure(measure, "all", "each other", functools.partial(_long_rows, plan, measure, seconds))


def _long_rows(plan: Plan, measure: str, seconds: float) -> Iterator[Row]:
    said, warnings = defaultdict[System, set[int]](set), defaultdict[System, set[str]](set)

    def ask(child: Child) -> float:
        in_pieces = child.system is TODAY and plan.is_demo
        files = clips.pieces(seconds, _DEMO_PIECE_S) if in_pieces else [clips.recording(seconds)]
        replies = [child.ask(file) for file in files]
        said[child.system].add(sum(len(reply.text.split()) for reply in replies))
        warnings[child.system].update(reply.warning for reply in replies)
        return sum(reply.took_s for reply in replies)

    with contextlib.ExitStack() as stack:
        children = {s: stack.enter_context(loaded(s, plan.model())) for s in plan.systems if s is not TODAY}
        if plan.with_today:
            children[TODAY] = stack.enter_context(_loaded_to_say_as_much(plan, children[plan.subjects[0]], seconds))
        found = plan.rounds(measure, children, ask)
    for subject, rival in plan.contests:
        goal = _goal(plan, _LONG_GOALS, subject, rival) if seconds == clips.LONG_S else None
        words = (f"{side.name} {number}" for side in (subject, rival) for number in sorted(said[side]))
        notes = sorted((warnings[subject] | warnings[rival] | {rival.note}) - {""})
        note = "; ".join([f"words: {', '.join(words)}", *notes])
        yield Row(measure, subject.name, rival.name, "s", "fewer", pairs_of(found, subject, rival), goal, note)


def _loaded_to_say_as_much(plan: Plan, ours: Child, seconds: float) -> contextlib.AbstractContextManager[Child]:
    """Today's way, with a checkpoint that says in one piece what ours says in all chunks of the recording."""
    if plan.is_demo:
        return loaded(TODAY, plan.model())
    plan.say(f"how much is said in {seconds:g} s")
    words = len(ours.ask(clips.recording(seconds)).text.split())
    # the default of max_new_tokens, 512, would cut the answer
    return loaded(TODAY, plan.model(words), more=[f"max_new_tokens:{words + 16}"])


class Burst(NamedTuple):
    """So many clips at once: seconds of audio for each second, how long callers waited, texts that were not right."""

    speed: float
    p50_s: float
    p95_s: float
    wrong: int


def crowd(plan: Plan) -> Iterator[Row]:
    """1, 8 and 32 clips of 11 s at once, each another; every text must be what it is when asked for alone."""
    yield from rows_or_failure("clips at once", "all", "each other", functools.partial(_crowd_rows, plan))


def _crowd_rows(plan: Plan) -> Iterator[Row]:
    sizes = [size for size in _CROWDS if size <= _LARGEST_QUICKLY or plan.is_demo or plan.long]
    audio = [clips.clip(number) for number in range(max(sizes))]
    with contextlib.ExitStack() as stack:
        children = {system: stack.enter_context(loaded(system, plan.model())) for system in plan.systems}
        ours = {system: child for system, child in children.items() if system is not TODAY}
        alone = {s: [plan.text or child.ask(path).text for path in audio] for s, child in ours.items()}
        for size in sizes:
            measure = f"{size} clip{'s'[: size > 1]} at once"
            found = plan.rounds(measure, children, functools.partial(_own_burst, audio[:size], alone))
            for subject, rival in plan.contests:
                yield from _burst_rows(plan, measure, subject, rival, pairs_of(found, subject, rival))


def _own_burst(audio: Sequence[Path], alone: Mapping[System, Sequence[str]], child: Child) -> Burst:
    return burst(child, audio, alone.get(child.system, ()))


def _burst_rows(
    plan: Plan, measure: str, subject: System, rival: System, found: Sequence[tuple[Burst, Burst]]
) -> Iterator[Row]:
    sides = (subject.name, rival.name)
    goal = _goal(plan, _CROWD_GOALS, subject, rival) if measure.startswith("8 ") else None
    speeds = tuple((a.speed, b.speed) for a, b in found)
    wrong = sum(a.wrong for a, _ in found)
    yield Row(measure, *sides, "× real time", "more", speeds, goal, rival.note, mismatches=wrong)
    if not measure.startswith("1 "):
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
            texts = [vocabulary.text_of(_GPU_WORDS)] * _GPU_CLIPS
            with loaded(subject, plan.model(_GPU_WORDS), more=more) as ours:
                burst(ours, audio, ())
                plan.say(f"{measure}, {subject.name}: {plan.runs} times")
                found = [burst(ours, audio, texts, _GPU_CLIP_S) for _ in range(plan.runs)]
            speeds = tuple((each.speed, 700.0) for each in found)
            goal = Goal("≥", 1) if plan.shape == "1.7b" else None
            wrong = sum(each.wrong for each in found)
            yield Row(measure, subject.name, "700 × real time", "× real time", "more", speeds, goal, mismatches=wrong)

        yield from rows_or_failure(measure, subject.name, "700 × real time", rows)
