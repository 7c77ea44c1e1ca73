"""Parts of a request by themselves: aligner, overhead of the server, decode step, C kernels, int8 on CPUs."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator

from devtools.bench import clips, vocabulary
from devtools.bench.benchmark import CLIP_WORDS, Benchmark, loaded
from devtools.bench.engine_worker import KERNELS, ONEDNN_ONLY, Worker
from devtools.bench.measurement import Failed, Goal, Row, alternate, pairs_of, rounds, rows_or_failure
from devtools.bench.system import System
from devtools.server_process import DEMO_MODEL

_OVERHEAD_MS = 5.0
_OVERHEAD_CLIP_S, _OVERHEAD_WARM, _OVERHEAD_PAIRS = 3.0, 15, 20  # a few ms of hundreds need more pairs than a ratio
_LEAST_TOKENS, _TOKENS_PER_S = 32, 12  # the backend's own bound on the tokens of a chunk
_WARM, _ROWS = 2, 8
# seconds of audio, few and many tokens, both before the answer ends, and how often each is measured
_STEPS, _DEMO_STEPS = (2.0, 4, 36, 1), (15.0, 4, 28, 5)
_WEIGHT_BYTES = {"ours fp32": 4, "ours bf16": 2, "ours int8": 1}
_STEP_GOALS = {"ours bf16": Goal("≤", 1.7), "ours int8": Goal("≤", 2)}
_KERNEL_GOAL = Goal("≥", 1.1)  # what keeps a kernel, for one clip or for eight, in bf16 or int8
_INT8_GOAL = Goal("≥", 0.85)  # what lets oneDNN replace FBGEMM


def aligner(bench: Benchmark) -> Iterator[Row]:
    """The aligner alone on a clip and 40 words, ours and the package's, each in its own process.

    Not the difference of requests with and without words: with random weights the backend aligns twice.
    """
    for subject in bench.subjects:
        if not subject.quantization:
            yield from rows_or_failure("aligner", subject.name, "the package", _aligner_rows(bench, subject))


def _aligner_rows(bench: Benchmark, subject: System) -> Iterator[Row]:
    clip = {"audio": str(clips.clip(0)), "text": bench.text or vocabulary.text_of(CLIP_WORDS)}
    with Worker() as ours, Worker(as_served=False) as package:
        ours.load(DEMO_MODEL, subject, bench.aligner)
        package.run("load_package_aligner", aligner=str(bench.aligner))

        def our_speed() -> float:
            return clips.CLIP_S / ours.seconds("align", **clip)

        def package_speed() -> float:
            return clips.CLIP_S / package.seconds("align_by_package", **clip)

        for _ in range(_WARM):
            our_speed(), package_speed()
        pairs = bench.pairs(f"aligner, {subject.name}", our_speed, package_speed)
    yield Row("aligner", subject.name, "the package", "× real time", "more", pairs)


def wire(bench: Benchmark) -> Iterator[Row]:
    """What a request on the demo's model takes beyond the engine's own call for the same clip, in milliseconds.

    Without VAD: gRPC, decoding of the file, the scheduler and the reply. With VAD: everything.
    """
    subject = bench.subjects[0]
    for measure, more in (("wire and scheduler", ("vad:off",)), ("the same, and the detector", ())):
        yield from rows_or_failure(measure, subject.name, "5 ms", _wire_rows(bench, subject, measure, more))


def _wire_rows(bench: Benchmark, subject: System, measure: str, more: tuple[str, ...]) -> Iterator[Row]:
    audio = clips.clip(0, _OVERHEAD_CLIP_S)
    tokens = _LEAST_TOKENS + round(_TOKENS_PER_S * _OVERHEAD_CLIP_S)
    with loaded(subject, DEMO_MODEL, more) as server, Worker() as worker:
        worker.load(DEMO_MODEL, subject)

        def engine_s() -> float:
            return worker.seconds("recognize", audio=str(audio), tokens=tokens)

        for _ in range(_OVERHEAD_WARM):
            engine_s(), server.transcribe(audio)
        bench.say(f"{measure}: {_OVERHEAD_PAIRS * bench.runs} pairs")
        found = alternate(_OVERHEAD_PAIRS * bench.runs, lambda: server.transcribe(audio).took_s, engine_s)
    request_s = statistics.median(request for request, _ in found)
    overhead_s = statistics.median(request - engine for request, engine in found)
    if overhead_s < 0:
        raise Failed("the engine alone took longer than whole requests: the machine is too busy for milliseconds")
    # the medians of equal parts of the pairs, so that the spread is that of the figure
    parts = [found[i :: bench.runs] for i in range(bench.runs)]
    pairs = tuple((statistics.median(a - b for a, b in part) * 1000, _OVERHEAD_MS) for part in parts)
    note = f"{overhead_s / request_s:.0%} of a request of {request_s * 1000:.0f} ms"
    yield Row(measure, subject.name, "5 ms", "ms", "share", pairs, Goal("≤", 1) if more else None, note)


def decode(bench: Benchmark) -> Iterator[Row]:
    """The decode step of the engine alone, against memory bandwidth and against the earlier revision.

    A step is the difference between two answers of different length to the same audio, for each token more. The limit
    is the time in which the same process reads the bytes of the linear layers and the head from memory. The demo's
    answers end by themselves, so its step is measured on 15 s of speech, whose answer is longer than both.
    """
    for subject in bench.subjects if bench.with_baseline and not bench.is_demo else ():
        yield from rows_or_failure("decode step", subject.name, "memory's limit", _decode_rows(bench, subject))
    for subject, rival in bench.contests_with_earlier:
        yield from rows_or_failure("decode step", subject.name, rival.name, _decode_against(bench, subject, rival))


def _decode_rows(bench: Benchmark, subject: System) -> Iterator[Row]:
    needed = bench.size.decoded_parameters * _WEIGHT_BYTES[subject.name]
    with Worker() as worker:
        worker.load(bench.model(), subject)
        bench.say(f"decode step, {subject.name}: {bench.runs} times")
        _step_ms(bench, worker, 1)
        found = []
        for _ in range(bench.runs):
            limit_ms = needed / float(worker.run("read_memory")["bytes_per_s"]) * 1000
            found.append((limit_ms, _step_ms(bench, worker, 1), _step_ms(bench, worker, _ROWS)))
    side, eight_rows = (subject.name, "memory's limit"), f"decode step, {_ROWS} rows"
    goal = None if bench.on_gpu else _STEP_GOALS.get(subject.name)
    ones = tuple((one, limit_ms) for limit_ms, one, _ in found)
    yield Row("decode step, 1 row", *side, "ms", "share", ones, goal, f"{needed / 1e9:.2f} GB a step")
    yield Row(eight_rows, *side, "ms", "share", tuple((eight, limit_ms) for limit_ms, _, eight in found))
    goal = Goal("≤", 1.6) if subject.quantization and not bench.on_gpu else None
    both = tuple((eight, one) for _, one, eight in found)
    yield Row(eight_rows, subject.name, "1 row", "ms", "share", both, goal)


def _decode_against(bench: Benchmark, subject: System, rival: System) -> Iterator[Row]:
    with Worker() as ours, Worker(rival) as theirs:
        ours.load(bench.model(), subject), theirs.load(bench.model(), subject)
        for rows in (1, _ROWS):

            def step_ms(worker: Worker, rows: int = rows) -> float:
                return _step_ms(bench, worker, rows)

            step_ms(ours), step_ms(theirs)
            measure = f"decode step, {rows} row{'s' * (rows > 1)}"
            what = f"{measure}, {subject.name}, {rival.name}"
            pairs = bench.pairs(what, lambda: step_ms(ours), lambda: step_ms(theirs))
            yield Row(measure, subject.name, rival.name, "ms", pairs=pairs, note=rival.note)


def _step_ms(bench: Benchmark, worker: Worker, rows: int) -> float:
    """Raises Failed where the model ends its answer before the token budget."""
    seconds, few, many, times = _DEMO_STEPS if bench.is_demo else _STEPS
    audio = str(clips.clip(0, seconds))

    def took_s(tokens: int) -> float:
        answer = worker.run("recognize", audio=audio, tokens=tokens, rows=rows)
        if answer["finished"]:
            raise Failed(f"the answer has no more than {tokens} tokens")
        return float(answer["took_s"])

    pairs = [(took_s(few), took_s(many)) for _ in range(times)]
    step_s = (min(longer for _, longer in pairs) - min(shorter for shorter, _ in pairs)) / (many - few)
    if step_s <= 0:
        raise Failed(f"{many} tokens took no longer than {few}: the machine is too busy for milliseconds")
    return step_s * 1000


def compiled(bench: Benchmark) -> Iterator[Row]:
    """The recogniser alone on a CPU with all C kernels, against none of them and against all but one.

    In int8 one more row has all products from oneDNN, against FBGEMM: the two libraries that could do without GEMV.
    """
    for subject in bench.subjects if not bench.on_gpu else ():
        yield from rows_or_failure("kernels in C", subject.name, "torch's", _compiled_rows(bench, subject))


def _compiled_rows(bench: Benchmark, subject: System) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:

        def without(*kernels: str) -> Worker:
            worker = stack.enter_context(Worker())
            worker.run("switch_off", kernels=kernels)
            worker.load(bench.model(), subject)
            return worker

        workers = {"all": without(), "torch's": without("all")}
        used = workers["all"].run("used_kernels", audio=str(clips.clip(0)))["kernels"]
        workers |= {f"without {kernel}": without(kernel) for kernel in used}
        rivals = [side for side in workers if side != "all"]
        if subject.quantization:
            workers["oneDNN"] = without(ONEDNN_ONLY)
        for count in (1, _ROWS):
            clip_s = f"{count} clip{'s' * (count > 1)}"
            speeds = {side: _speed_of(worker, count) for side, worker in workers.items()}
            for speed in [*speeds.values()] * _WARM:
                speed()
            bench.say(f"kernels in C, {clip_s}, {subject.name}: {bench.runs} rounds of {len(speeds)}")
            found = rounds(bench.runs, speeds)
            for side in rivals:
                goal = None if side == "torch's" or subject.dtype == "float32" else _KERNEL_GOAL
                pairs = pairs_of(found, "all", side)
                yield Row(f"kernels in C, {clip_s}", subject.name, side, "× real time", "more", pairs, goal)
            if subject.quantization:
                pairs = pairs_of(found, "oneDNN", "without GEMV" if "GEMV" in used else "all")
                yield Row(f"int8 products, {clip_s}", "oneDNN", "FBGEMM", "× real time", "more", pairs, _INT8_GOAL)
        for kernel in [kernel for kernel in KERNELS if kernel not in used]:
            why = "this processor or this number format does not use it"
            yield Row("kernels in C", subject.name, f"without {kernel}", failure=why)


def _speed_of(worker: Worker, count: int) -> Callable[[], float]:
    """Copies of one clip in a batch, in seconds of audio per second."""
    audio, tokens = str(clips.clip(0)), round(_TOKENS_PER_S * clips.CLIP_S)
    return lambda: count * clips.CLIP_S / worker.seconds("recognize", audio=audio, tokens=tokens, rows=count)
