"""What is hidden inside a request: aligner, decoder's step, kernels in C, and what the way to the engine adds."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator

from devtools.bench import clips, vocabulary
from devtools.bench.child import Failed, System
from devtools.bench.inside import Inside
from devtools.bench.pairs import Goal, Row, alternate
from devtools.bench.plan import CLIP_WORDS, Plan, loaded, rows_or_failure
from devtools.bench.shapes import DEMO_MODEL

_WIRE_MS = 5.0
_WIRE_CLIP_S, _WIRE_WARM, _WIRE_PAIRS = 3.0, 15, 20  # milliseconds among hundreds need more pairs than a ratio does
_BUDGET_AT_LEAST, _BUDGET_PER_S = 32, 12  # the backend's own bound on a passage's tokens
# seconds of audio, few and many tokens, both before the answer ends, and how often each is measured
_STEPS, _DEMO_STEPS = (2.0, 4, 36, 1), (15.0, 4, 28, 5)
_WARM, _ROWS = 2, 8
_BYTES = {"ours fp32": 4, "ours bf16": 2, "ours int8": 1}
_STEP_GOALS = {"ours bf16": Goal("≤", 1.7), "ours int8": Goal("≤", 2)}


def aligner(plan: Plan) -> Iterator[Row]:
    """The aligner alone on a clip and a text of 40 words, ours and the package's, each in a process of its own.

    Through the engine and not by requests with and without words: what ours aligns once more, because times make no
    sense, is a remedy that random weights call for and real ones hardly.
    """
    for subject in (system for system in plan.subjects if not system.quantization):
        rows = functools.partial(_aligner_rows, plan, subject)
        yield from rows_or_failure("aligner", subject.name, "the package", rows)


def _aligner_rows(plan: Plan, subject: System) -> Iterator[Row]:
    asked = {"audio": str(clips.clip(0)), "text": plan.text or vocabulary.text_of(CLIP_WORDS)}
    with Inside() as ours, Inside(as_served=False) as package:
        ours.do("load", model=str(DEMO_MODEL), aligner=str(plan.aligner), dtype=subject.dtype)
        package.do("load_package_aligner", aligner=str(plan.aligner))

        def speed(inside: Inside, task: str) -> float:
            return clips.CLIP_S / float(inside.do(task, **asked)["took_s"])

        for _ in range(_WARM):
            speed(ours, "align"), speed(package, "align_by_package")
        found = plan.pairs(
            f"aligner, {subject.name}", lambda: speed(ours, "align"), lambda: speed(package, "align_by_package")
        )
    yield Row("aligner", subject.name, "the package", "× real time", "more", found)


def wire(plan: Plan) -> Iterator[Row]:
    """What a request on the demo's model takes beyond the engine's own call for the same clip, in milliseconds.

    Without the detector of speech this is gRPC, decoding of the file, the scheduler and the reply; with it, all.
    """
    subject = plan.subjects[0]
    for name, more in (("wire and scheduler", ("vad:off",)), ("the same, and the detector", ())):
        rows = functools.partial(_wire_rows, plan, subject, name, more)
        yield from rows_or_failure(name, subject.name, "5 ms", rows)


def _wire_rows(plan: Plan, subject: System, name: str, more: tuple[str, ...]) -> Iterator[Row]:
    audio = clips.clip(0, _WIRE_CLIP_S)
    tokens = _BUDGET_AT_LEAST + round(_BUDGET_PER_S * _WIRE_CLIP_S)
    with loaded(subject, DEMO_MODEL, more=more) as server, Inside() as inside:
        inside.do("load", model=str(DEMO_MODEL), dtype=subject.dtype, quantization=subject.quantization)

        def engine_s() -> float:
            return float(inside.do("recognize", audio=str(audio), tokens=tokens)["took_s"])

        for _ in range(_WIRE_WARM):
            engine_s(), server.ask(audio)
        plan.say(f"{name}: {_WIRE_PAIRS * plan.runs} pairs")
        found = alternate(_WIRE_PAIRS * plan.runs, lambda: server.ask(audio).took_s, engine_s)
    request_s = statistics.median(request for request, _ in found)
    added = statistics.median(request - engine for request, engine in found)
    if added < 0:
        raise Failed("the engine alone took longer than whole requests: the machine is too busy for milliseconds")
    # the medians of equal parts of the pairs, so that the spread is that of the figure
    parts = [found[i :: plan.runs] for i in range(plan.runs)]
    pairs = tuple((statistics.median(a - b for a, b in part) * 1000, _WIRE_MS) for part in parts)
    note = f"{added / request_s:.0%} of a request of {request_s * 1000:.0f} ms"
    goal = Goal("≤", 1) if more else None
    yield Row(name, subject.name, "5 ms", "ms", "share", pairs, goal, note)


def decode(plan: Plan) -> Iterator[Row]:
    """The decode step of the engine alone, against memory bandwidth and against an earlier revision.

    A step is the difference between two answers of different length to the same audio, for each token more. The limit
    is the time in which the same process reads the bytes of the linear layers and the head from memory. The demo's
    answers end by themselves, so its step is measured on 15 s of speech, whose answer is longer than both.
    """
    if plan.with_today and not plan.is_demo:
        for subject in plan.subjects:
            rows = functools.partial(_decode_rows, plan, subject)
            yield from rows_or_failure("decode step", subject.name, "memory's limit", rows)
    for subject, rival in plan.contests_with_earlier:
        rows = functools.partial(_decode_against, plan, subject, rival)
        yield from rows_or_failure("decode step", subject.name, rival.name, rows)


def _decode_rows(plan: Plan, subject: System) -> Iterator[Row]:
    with Inside() as inside:
        _load(inside, plan, subject)
        needed = plan.size.decoded_parameters * _BYTES[subject.name]
        plan.say(f"decode step, {subject.name}: {plan.runs} times")
        _step_ms(plan, inside, 1)
        found = []
        for _ in range(plan.runs):
            limit_ms = needed / float(inside.do("read_memory")["bytes_per_s"]) * 1000
            found.append((limit_ms, _step_ms(plan, inside, 1), _step_ms(plan, inside, _ROWS)))
    limit = "memory's limit"
    note = f"{needed / 1e9:.2f} GB a step"
    goal = None if plan.on_gpu else _STEP_GOALS.get(subject.name)
    ones = tuple((one, limit_ms) for limit_ms, one, _ in found)
    yield Row("decode step, 1 row", subject.name, limit, "ms", "share", ones, goal, note)
    eights = tuple((eight, limit_ms) for limit_ms, _, eight in found)
    yield Row(f"decode step, {_ROWS} rows", subject.name, limit, "ms", "share", eights)
    both = tuple((eight, one) for _, one, eight in found)
    goal = Goal("≤", 1.6) if subject.quantization and not plan.on_gpu else None
    yield Row(f"decode step, {_ROWS} rows", subject.name, "1 row", "ms", "share", both, goal)


def _decode_against(plan: Plan, subject: System, rival: System) -> Iterator[Row]:
    with Inside() as ours, Inside(rival) as theirs:
        for inside in (ours, theirs):
            _load(inside, plan, subject)
        for count in (1, _ROWS):

            def step(inside: Inside, count: int = count) -> float:
                return _step_ms(plan, inside, count)

            step(ours), step(theirs)
            name = f"decode step, {count} row{'s' * (count > 1)}"
            found = plan.pairs(f"{name}, {subject.name}, {rival.name}", lambda: step(ours), lambda: step(theirs))
            yield Row(name, subject.name, rival.name, "ms", pairs=found, note=rival.note)


def _load(inside: Inside, plan: Plan, subject: System) -> None:
    inside.do("load", model=str(plan.model()), dtype=subject.dtype, quantization=subject.quantization)


def _step_ms(plan: Plan, inside: Inside, rows: int) -> float:
    """Raises Failed where the model ended its answer before as many tokens as were asked for."""
    seconds, few, many, times = _DEMO_STEPS if plan.is_demo else _STEPS
    audio = str(clips.clip(0, seconds))

    def took_s(tokens: int) -> float:
        answer = inside.do("recognize", audio=audio, tokens=tokens, rows=rows)
        if answer["finished"]:
            raise Failed(f"the answer has no more than {tokens} tokens")
        return float(answer["took_s"])

    pairs = [(took_s(few), took_s(many)) for _ in range(times)]
    step_s = (min(longer for _, longer in pairs) - min(shorter for shorter, _ in pairs)) / (many - few)
    if step_s <= 0:
        raise Failed(f"{many} tokens took no longer than {few}: the machine is too busy for milliseconds")
    return step_s * 1000


def compiled(plan: Plan) -> Iterator[Row]:
    """The recogniser alone with our kernels in C, and without them, each in a process of its own. On CPUs."""
    if plan.on_gpu:
        return
    for subject in plan.subjects:
        rows = functools.partial(_compiled_rows, plan, subject)
        yield from rows_or_failure("kernels in C", subject.name, "torch's", rows)


def _compiled_rows(plan: Plan, subject: System) -> Iterator[Row]:
    audio, tokens = str(clips.clip(0)), round(_BUDGET_PER_S * clips.CLIP_S)
    with Inside() as with_them, Inside() as without:
        without.do("without_compiled")
        for inside in (with_them, without):
            inside.do("load", model=str(plan.model()), dtype=subject.dtype, quantization=subject.quantization)
        for count in (1, _ROWS):

            def speed(inside: Inside, count: int = count) -> float:
                took_s = float(inside.do("recognize", audio=audio, tokens=tokens, rows=count)["took_s"])
                return count * clips.CLIP_S / took_s

            for _ in range(_WARM):
                speed(with_them), speed(without)
            name = f"kernels in C, {count} clip{'s' * (count > 1)}"
            found = plan.pairs(f"{name}, {subject.name}", lambda: speed(with_them), lambda: speed(without))
            yield Row(name, subject.name, "torch's", "× real time", "more", found)
