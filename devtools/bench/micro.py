"""Parts of a request by themselves: aligner, overhead of the server, decode step, C kernels, int8 on CPUs."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from functools import partial

from backend.thresholds import MIN_TOKEN_BUDGET, TOKEN_BUDGET_PER_S
from devtools.bench import clips, shapes
from devtools.bench.benchmark import CLIP_WORDS, Benchmark, loaded
from devtools.bench.engine_worker import KERNELS, ONEDNN_ONLY, Worker
from devtools.bench.measurement import Failed, Goal, Row, alternate, figures, pairs_of, rounds, say
from devtools.bench.shapes import SHAPES
from devtools.bench.system import BASELINE, System
from devtools.server_process import DEMO_MODEL

_OVERHEAD_MS = 5.0
_OVERHEAD_CLIP_S, _OVERHEAD_WARM, _OVERHEAD_PAIRS = 3.0, 15, 20  # a few ms of hundreds need more pairs than a ratio
_WARM, _ROWS = 2, 8
# seconds of audio, few and many tokens, both before the answer ends, and how often each is measured
_STEPS, _DEMO_STEPS = (2.0, 4, 36, 1), (15.0, 4, 28, 5)
_ATTEMPTS = 3  # at a difference that is not positive
_WEIGHT_BYTES = {"ours fp32": 4, "ours bf16": 2, "ours int8": 1}
_STEP_GOALS = {"ours bf16": Goal("≤", 1.7), "ours int8": Goal("≤", 2)}
_KERNEL_GOAL = Goal("≥", 1.1)  # what keeps a kernel, for one clip or for eight, in bf16 or int8
_INT8_GOAL = Goal("≥", 0.85)  # what lets oneDNN replace FBGEMM


def aligner(bench: Benchmark, subject: System) -> Iterator[Row]:
    """The aligner alone on a clip and 40 words, ours and the package's, each in its own process.

    Not the difference of requests with and without words: with random weights the backend aligns twice.
    """
    if subject.quantization:  # of which the aligner has none
        return
    clip = {"audio": str(clips.clip(0)), "text": bench.text or shapes.text_of(CLIP_WORDS)}
    with Worker() as ours, Worker(as_served=False) as package:
        ours.load(DEMO_MODEL, subject, bench.aligner)
        package.run("load_package_aligner", aligner=str(bench.aligner))
        sides = partial(ours.seconds, "align", **clip), partial(package.seconds, "align_by_package", **clip)
        alternate(_WARM, *sides)
        found = alternate(bench.runs, *sides, what=f"aligner, {subject.name}")
    speeds = figures(found, lambda took_s: clips.CLIP_S / took_s)
    yield Row("aligner", subject.name, "the package", "× real time", "more", speeds)


def wire(bench: Benchmark) -> Iterator[Row]:
    """What a request on the demo's model takes beyond the engine's own call for the same clip, in milliseconds.

    Without VAD: gRPC, decoding of the file, the scheduler and the reply. With VAD: everything.
    """
    audio, subject = clips.clip(0, _OVERHEAD_CLIP_S), bench.subjects[0]
    tokens = _token_budget(_OVERHEAD_CLIP_S)
    for measure, more in (("wire and scheduler", ("vad:off",)), ("the same, and the detector", ())):
        with loaded(subject, DEMO_MODEL, more) as server, Worker() as worker:
            worker.load(DEMO_MODEL, subject)
            engine_s = partial(worker.seconds, "recognize", audio=str(audio), tokens=tokens)
            sides = partial(server.seconds, audio), engine_s
            alternate(_OVERHEAD_WARM, *sides)
            found = alternate(_OVERHEAD_PAIRS * bench.runs, *sides, what=measure)
        request_ms = statistics.median(request for request, _ in found) * 1000
        overhead_ms = statistics.median(request - engine for request, engine in found) * 1000
        # the medians of equal parts of the pairs, so that the spread is that of the figure
        parts = [found[i :: bench.runs] for i in range(bench.runs)]
        pairs = tuple((statistics.median(a - b for a, b in part) * 1000, _OVERHEAD_MS) for part in parts)
        note = f"{overhead_ms / request_ms:.0%} of a request of {request_ms:.0f} ms"
        failure = "" if overhead_ms > 0 else "whole requests took no longer than the engine alone: too busy"
        goal = Goal("≤", 1) if more else None
        yield Row(measure, subject.name, "5 ms", "ms", "share", () if failure else pairs, goal, note, failure)


def decode(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    """The decode step of the engine alone, against memory bandwidth and against the earlier revision.

    A step is the difference between two answers of different length to the same audio, for each token more. The limit
    is the time in which the same process reads the bytes of the linear layers and the head from memory. The demo's
    answers end by themselves, so its step is measured on 15 s of speech, whose answer is longer than both.
    """
    if rival is not BASELINE:
        yield from _decode_against(bench, subject, rival)
    elif not bench.is_demo:
        yield from _decode_against_limit(bench, subject)


def _decode_against_limit(bench: Benchmark, subject: System) -> Iterator[Row]:
    needed = SHAPES[bench.shape].decoded_parameters * _WEIGHT_BYTES[subject.name]
    with Worker() as worker:
        worker.load(bench.model(), subject)
        one_row, eight_rows = (partial(_step_ms, bench, rows, worker) for rows in (1, _ROWS))
        one_row()
        say(f"decode step, {subject.name}: {bench.runs} times")
        speeds = [(float(worker.run("read_memory")["bytes_per_s"]), one_row(), eight_rows()) for _ in range(bench.runs)]
    ones = tuple((one, needed / bytes_per_s * 1000) for bytes_per_s, one, _ in speeds)
    eights = tuple((eight, needed / bytes_per_s * 1000) for bytes_per_s, _, eight in speeds)
    both = tuple((eight, one) for _, one, eight in speeds)
    goal = None if bench.on_gpu else _STEP_GOALS.get(subject.name)
    rows_goal = Goal("≤", 1.6) if subject.quantization and not bench.on_gpu else None
    note, sides = f"{needed / 1e9:.2f} GB a step", (subject.name, "memory's limit")
    yield Row("decode step, 1 row", *sides, "ms", "share", ones, goal, note)
    yield Row(f"decode step, {_ROWS} rows", *sides, "ms", "share", eights)
    yield Row(f"decode step, {_ROWS} rows", subject.name, "1 row", "ms", "share", both, rows_goal)


def _decode_against(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    with Worker() as ours, Worker(rival) as theirs:
        ours.load(bench.model(), subject), theirs.load(bench.model(), subject)
        for rows in (1, _ROWS):
            sides = [partial(_step_ms, bench, rows, worker) for worker in (ours, theirs)]
            alternate(1, *sides)
            measure = f"decode step, {rows} row{'s' * (rows > 1)}"
            pairs = alternate(bench.runs, *sides, what=f"{measure}, {subject.name}, {rival.name}")
            yield Row(measure, subject.name, rival.name, "ms", pairs=tuple(pairs), note=rival.note)


def _step_ms(bench: Benchmark, rows: int, worker: Worker) -> float:
    """Raises Failed where the model ends its answer before the token budget."""
    seconds, few, many, times = _DEMO_STEPS if bench.is_demo else _STEPS

    def took_s(tokens: int) -> float:
        answer = worker.run("recognize", audio=str(clips.clip(0, seconds)), tokens=tokens, rows=rows)
        if answer["finished"]:
            raise Failed(f"the answer has no more than {tokens} tokens")
        return float(answer["took_s"])

    for _ in range(_ATTEMPTS):
        pairs = [(took_s(few), took_s(many)) for _ in range(times)]
        step_s = (min(longer for _, longer in pairs) - min(shorter for shorter, _ in pairs)) / (many - few)
        if step_s > 0:
            return step_s * 1000
    raise Failed(f"{many} tokens took no longer than {few}: the machine is too busy for milliseconds")


def compiled(bench: Benchmark, subject: System) -> Iterator[Row]:
    """The recogniser alone on a CPU with all C kernels, against none of them and against all but one.

    In int8 one more row has all products from oneDNN, against FBGEMM: the two libraries that could do without GEMV.
    """
    if bench.on_gpu:
        return
    with contextlib.ExitStack() as stack:

        def without(*kernels: str) -> Worker:
            worker = stack.enter_context(Worker())
            worker.run("switch_off", kernels=kernels)
            worker.load(bench.model(), subject)
            return worker

        workers = {"all": without(), "torch's": without("all")}
        used = workers["all"].run("used_kernels", audio=str(clips.clip(0)))["kernels"]
        workers |= {f"without {kernel}": without(kernel) for kernel in used}
        if subject.quantization:
            workers["oneDNN"] = without(ONEDNN_ONLY)
        for count in (1, _ROWS):
            sides = {side: partial(_batch_speed, count, worker) for side, worker in workers.items()}
            rounds(_WARM, sides)
            clip_s = f"{count} clip{'s' * (count > 1)}"
            found = rounds(bench.runs, sides, what=f"kernels in C, {clip_s}, {subject.name}")
            for side in [side for side in workers if side not in ("all", "oneDNN")]:
                goal = None if side == "torch's" or subject.dtype == "float32" else _KERNEL_GOAL
                pairs = pairs_of(found, "all", side)
                yield Row(f"kernels in C, {clip_s}", subject.name, side, "× real time", "more", pairs, goal)
            if subject.quantization:
                pairs = pairs_of(found, "oneDNN", "without GEMV" if "GEMV" in used else "all")
                yield Row(f"int8 products, {clip_s}", "oneDNN", "FBGEMM", "× real time", "more", pairs, _INT8_GOAL)
    for kernel in [kernel for kernel in KERNELS if kernel not in used]:
        why = "this processor or this number format does not use it"
        yield Row("kernels in C", subject.name, f"without {kernel}", failure=why)


def _batch_speed(count: int, worker: Worker) -> float:
    """Copies of one clip in a batch, in seconds of audio per second."""
    audio, tokens = str(clips.clip(0)), _token_budget(clips.CLIP_S)
    return count * clips.CLIP_S / worker.seconds("recognize", audio=audio, tokens=tokens, rows=count)


def _token_budget(seconds: float) -> int:
    """The backend's own, for a passage of `seconds`."""
    return MIN_TOKEN_BUDGET + round(TOKEN_BUDGET_PER_S * seconds)
