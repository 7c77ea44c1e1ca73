"""The demo's models through the server, as the gateway starts it: text, word times, Health, eight at once, int8."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from backend.doctor.findings import REINSTALL, Finding, fail, ok, warn
from backend.doctor.places import DEMO_ALIGNER, DEMO_AUDIO, DEMO_MODEL, DEMO_TRUTH

if TYPE_CHECKING:  # grpc and the stubs may be what is broken
    from backend.doctor.server_process import ServerProcess
    from backend.wire.backend_pb2 import ModelOptions, TranscriptResult

AT_ONCE = 8
_LOAD_TIMEOUT_S, _ANSWER_TIMEOUT_S = 120.0, 60.0
_MAX_WORD_ERROR_S = 0.3  # the demo's aligner is off by 0.07 s at most on a CPU; other devices round otherwise
_HEALTH_INTERVAL_S, _HEALTH_TIMEOUT_S = 0.1, 5.0
_MAX_HEALTH_S = 1.0  # the gateway's shortest patience
_CAUSE_REMEDY = "follow the cause; if it names nothing: " + REINSTALL


class Word(NamedTuple):
    """Seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Truth:
    """What is said in the demo's recording."""

    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class DemoFacts:
    """What the server did, as far as it came. `failure`: the cause that ended it. Times are seconds."""

    failure: str = ""
    up_s: float = 0.0
    load_s: float | None = None
    health_s: float = 0.0  # the longest wait for Health
    text: str | None = None
    words: tuple[Word, ...] = ()
    took_s: float = 0.0
    texts: tuple[str, ...] = ()  # of the requests that were sent at once
    int8_text: str | None = None
    int8_failure: str = ""
    log: tuple[str, ...] = ()


def missing_files() -> list[str]:
    """Of the demo; with one of them missing there is nothing to try."""
    return [str(path) for path in (DEMO_MODEL, DEMO_ALIGNER, DEMO_AUDIO, DEMO_TRUTH) if not path.exists()]


def truth() -> Truth:
    told = json.loads(DEMO_TRUTH.read_text(encoding="utf-8"))
    return Truth(told["text"], tuple(Word(*word) for word in told["words"]))


def probe() -> DemoFacts:
    """Starts a server, asks, and ends it. Whatever fails is in the facts."""
    facts: dict[str, object] = {}
    try:
        from backend.doctor.server_process import ServerProcess

        with ServerProcess(environment={"QWEN_ASR_METRICS": ""}) as server:
            facts["up_s"] = server.up_s
            try:
                with _health_polled(server, facts):
                    _ask(server, facts)
            finally:
                facts["log"] = tuple(server.log_lines())
    except Exception as error:  # noqa: BLE001 - libraries that are broken, and ServerFailed with the server's own cause
        facts["failure"] = " ".join(str(error).split()) or type(error).__name__
    return DemoFacts(**facts)  # type: ignore[arg-type] # the keys are the fields


def _ask(server: ServerProcess, facts: dict[str, object]) -> None:
    from backend.doctor.server_process import ServerFailed

    facts["load_s"] = server.load(_options(), _LOAD_TIMEOUT_S)
    began = time.monotonic()
    result = _transcribe(server)
    facts["took_s"] = time.monotonic() - began
    facts["text"], facts["words"] = result.text, words_of(result)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        facts["texts"] = tuple(reply.text for reply in pool.map(lambda _: _transcribe(server), range(AT_ONCE)))
    try:
        server.load(_options("int8"), _LOAD_TIMEOUT_S)
        facts["int8_text"] = _transcribe(server).text
    except ServerFailed as error:
        server.check_alive(patience_s=1.0)
        facts["int8_failure"] = str(error)


def _options(quantization: str = "") -> ModelOptions:
    from backend.wire.backend_pb2 import ModelOptions

    return ModelOptions(
        Model="demo",
        ModelFile=str(DEMO_MODEL),
        Options=[f"forced_aligner:{DEMO_ALIGNER}"],
        Quantization=quantization,
    )


def _transcribe(server: ServerProcess) -> TranscriptResult:
    return server.transcript(str(DEMO_AUDIO), words=True, timeout_s=_ANSWER_TIMEOUT_S)


def words_of(result: TranscriptResult) -> tuple[Word, ...]:
    """Of all segments."""
    return tuple(
        Word(word.text, word.start / 1e9, word.end / 1e9) for segment in result.segments for word in segment.words
    )


@contextmanager
def _health_polled(server: ServerProcess, facts: dict[str, object]) -> Iterator[None]:
    """Asks for Health all the while, and keeps the longest wait; one without an answer counts as infinite."""
    ended, longest = threading.Event(), [0.0]

    def poll() -> None:
        while not ended.wait(_HEALTH_INTERVAL_S):
            longest[0] = max(longest[0], server.health_s(_HEALTH_TIMEOUT_S))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_HEALTH_TIMEOUT_S)
        facts["health_s"] = longest[0]


def judge(facts: DemoFacts, truth: Truth, on_gpu: bool) -> list[Finding]:
    if facts.load_s is None:
        return [fail("server", f"failed: {facts.failure}", _CAUSE_REMEDY)]
    found = [ok("server", f"up in {facts.up_s:.1f} s, demo models loaded in {facts.load_s:.1f} s"), _health(facts)]
    if facts.text is None:
        return [*found, fail("text", f"none: {facts.failure}", _CAUSE_REMEDY)]
    found += [_text("text", facts.text, truth, f"exact, in {facts.took_s:.1f} s, the aligner's load included")]
    found += [_times(facts, truth), _batch(facts, truth)]
    if facts.failure and facts.int8_text is None:
        return [*found, fail("int8", facts.failure, _CAUSE_REMEDY)]
    if facts.int8_failure:
        found.append(warn("int8", facts.int8_failure, "leave quantization empty"))
    else:
        found.append(_text("int8", facts.int8_text or "", truth, "exact"))
    return [*found, *([_graphs(facts)] if on_gpu else [])]


def _health(facts: DemoFacts) -> Finding:
    if math.isinf(facts.health_s):
        return fail(
            "Health",
            "did not answer during loads and requests",
            "let other work on this machine end, or threads: fewer than cores",
        )
    value = f"answered within {facts.health_s:.2f} s during loads and requests"
    if facts.health_s > _MAX_HEALTH_S:
        return warn(
            "Health",
            value,
            "let other work on this machine end, or threads: fewer than cores; the gateway waits 1 to 2 s",
        )
    return ok("Health", value)


def _text(name: str, text: str, truth: Truth, value: str) -> Finding:
    if text != truth.text:
        return fail(name, f"wrong: {text!r} instead of {truth.text!r}", f"torch_dtype:fp32 or device:cpu; {REINSTALL}")
    return ok(name, value)


def _times(facts: DemoFacts, truth: Truth) -> Finding:
    said = [word.text.strip(".,?!") for word in facts.words]
    if said != [word.text for word in truth.words]:
        return fail("word times", f"{len(said)} words instead of {len(truth.words)}", REINSTALL)
    errors = [
        max(abs(found.start - told.start), abs(found.end - told.end))
        for found, told in zip(facts.words, truth.words, strict=True)
    ]
    if max(errors) > _MAX_WORD_ERROR_S:
        return fail("word times", f"off by up to {max(errors):.2f} s", f"torch_dtype:fp32 or device:cpu; {REINSTALL}")
    return ok("word times", f"{len(said)} words, off by {max(errors):.2f} s at most")


def _batch(facts: DemoFacts, truth: Truth) -> Finding:
    right = sum(text == truth.text for text in facts.texts)
    if right < AT_ONCE:
        value = f"{right} of {AT_ONCE} texts are exact{f': {facts.failure}' if facts.failure else ''}"
        return fail(f"{AT_ONCE} at once", value, "batch_max_size:1")
    return ok(f"{AT_ONCE} at once", "all texts exact")


def _graphs(facts: DemoFacts) -> Finding:
    """What engine/model/graph_capture.py logged about the last load."""
    line = next((line for line in reversed(facts.log) if "CUDA graphs" in line), "")
    if "decode steps are captured" in line:
        return ok("CUDA graphs", "captured and right")
    if line:
        return warn("CUDA graphs", line.strip(), "cuda_graphs:off, or update the driver")
    return ok("CUDA graphs", "not used on this device")
