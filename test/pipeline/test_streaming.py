"""A stream against the transcript of the same recording: what leaves, when, in which order, and what never leaves."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from answers import seconds
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import Answer, SpeakingRecognizer, answering

from backend.audio.chunks import split
from backend.audio.vad import Speech
from backend.errors import EngineFailure
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline import streaming
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.recognized_chunk import ALREADY_SENT, NO_TEXT, OTHER_LANGUAGE, PROMPT_LEAKAGE, RecognizedChunk
from backend.pipeline.streaming import StreamedRecognition
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.protocols import Batching, Utterance
from backend.serving.scheduler import Scheduler
from backend.transcript.joining import join
from backend.transcript.scripts import pieces

RATE = 16_000
PLAIN = TranscribeOptions()
MORNING = "Good morning, everybody. Please open the door."


class Streams:
    """One scheduler and many recordings: bursts of noise of given lengths, each a chunk of its own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def begin(
        self,
        recognizer: SpeakingRecognizer,
        lengths_s: list[float],
        options: TranscribeOptions,
        likelihood: float = 1.0,
        rows: int = 2,
    ) -> StreamedRecognition:
        chunks, speech = recording(lengths_s, likelihood)
        lean, stats = Lean(LoadOptions("m", batch_max_size=rows), recognizer), RequestStats()
        self.policy = RecognitionPolicy(self.scheduler, lean, options, speech, stats)
        self.stats = stats
        self.chunks = chunks
        return StreamedRecognition(self.policy, lean, options, speech, stats, chunks)

    async def both(
        self, recognizer: SpeakingRecognizer, lengths_s: list[float], options: TranscribeOptions = PLAIN, **how: Any
    ) -> tuple[list[str], list[RecognizedChunk], list[RecognizedChunk]]:
        """The deltas, and the recognised chunks of the stream and of the unary call."""
        streamed = self.begin(recognizer, lengths_s, options, **how)
        deltas = [delta async for delta in streamed.deltas()]
        stats = self.stats
        self.begin(recognizer, lengths_s, options, **how)
        unary = await self.policy.recognize(self.chunks)
        self.stats = stats
        return deltas, streamed.recognized, unary


def recording(lengths_s: list[float], likelihood: float = 1.0):
    """Chunks of noise with pauses of five seconds between them, and the speech in them."""
    rng, at, spans, pieces_of_sound = np.random.default_rng(len(lengths_s)), 0, [], []
    for length_s in lengths_s:
        size = round(length_s * RATE)
        spans.append((at, at + size))
        pieces_of_sound += [rng.uniform(-0.5, 0.5, size), np.zeros(5 * RATE)]
        at += size + 5 * RATE
    samples = np.concatenate(pieces_of_sound).astype(np.float32)
    speech = Speech(tuple(spans), np.full(-(-samples.size // 512), likelihood, np.float32))
    chunks = split(samples, max_s=60, speech=speech, margin_s=0)
    assert len(chunks) == len(lengths_s)
    return chunks, speech


@pytest.fixture
def streams(scheduler) -> Streams:
    return Streams(scheduler)


@pytest.fixture(autouse=True)
def fast(monkeypatch) -> None:
    """Deltas leave as soon as they can."""
    monkeypatch.setattr(streaming, "_MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(streaming, "_LOOK_INTERVAL_S", 0.0)
    monkeypatch.setattr(streaming, "_EARLY_LOOK_INTERVAL_S", 0.0)


def by_length(answers: dict[float, Answer]) -> Callable[[Utterance], Answer]:
    """Answers by the seconds of the utterance; of halves of a chunk, by theirs."""
    return lambda utterance: answers[round(seconds(utterance), 1)]


def text_of(parts: list[RecognizedChunk]) -> str:
    return join([part.recognition.text for part in parts])[0]


def fallbacks(parts: list[RecognizedChunk]) -> list[str]:
    return [fallback for part in parts for fallback in part.fallbacks]


async def test_words_leave_while_the_answer_is_decoded(streams) -> None:
    recognizer = SpeakingRecognizer(lambda _: answering(MORNING), gate=(gate := threading.Event()))
    streamed = streams.begin(recognizer, [5.0], PLAIN)
    async with aclosing(streamed.deltas()) as deltas:
        told = ""
        while told != "Good morning, everybody. Please open the":  # the last word may go on
            told += await asyncio.wait_for(anext(deltas), 10)
        gate.set()
        assert [delta async for delta in deltas] == [" door."]
    assert text_of(streamed.recognized) == MORNING


async def test_a_stream_is_the_unary_text_in_pieces_that_are_words(streams) -> None:
    texts = {
        3.0: "一二三，你好吗？再见。",
        4.0: "你好。",
        5.0: MORNING,
        6.0: "Zoë’s naïve “résumé” — done.",
        4.5: "สวัสดีครับ",
    }
    said = by_length({length: answering(text) for length, text in texts.items()})
    deltas, streamed, unary = await streams.both(SpeakingRecognizer(said, step_s=0.001), [*texts])
    assert "".join(deltas) == text_of(streamed) == text_of(unary)
    assert [part.recognition for part in streamed] == [part.recognition for part in unary]
    assert_whole_words(deltas, streamed)
    assert len(deltas) > 5


def assert_whole_words(deltas: list[str], parts: list[RecognizedChunk]) -> None:
    """S2: every delta ends where a piece of some chunk's text ends; none is empty."""
    whole, offsets = join([part.recognition.text for part in parts])
    ends = {
        offset + end for part, offset in zip(parts, offsets, strict=True) for _, end in pieces(part.recognition.text)
    }
    at = 0
    for delta in deltas:
        assert delta
        at += len(delta)
        assert at in ends
    assert at == len(whole)


async def test_a_later_chunk_that_is_done_first_waits_for_its_turn(streams) -> None:
    said = by_length({9.0: answering("one two three four " * 20), 2.0: answering("Yes."), 2.5: answering("No.")})
    deltas, streamed, unary = await streams.both(SpeakingRecognizer(said), [9.0, 2.0, 2.5])
    assert "".join(deltas) == text_of(streamed) == text_of(unary)
    assert "".join(deltas).endswith("four Yes. No.")


async def test_what_follows_a_slow_chunk_is_not_decoded_without_bound(streams) -> None:
    recognizer = SpeakingRecognizer(speak_long_and_short)
    streamed = streams.begin(recognizer, [9.0, *[2.0] * 12], PLAIN)
    async with aclosing(streamed.deltas()) as deltas:
        await anext(deltas)
        assert len(streamed._first_answers) == 4  # two batches of two


CPU = Batching(slow_prefill=True, prefill_s=12.0)
GPU = Batching(in_groups=True, prefill_s=1920.0)
SERVERS = Batching()


@pytest.mark.parametrize(
    ("batching", "rows", "max_first_prefill_s", "at_first"),
    [
        (CPU, 8, 240.0, 2),
        (replace(CPU, prefill_s=10.0), 8, 240.0, 1),
        (GPU, 8, 240.0, 7),
        (GPU, 8, 14.0, 3),
        (SERVERS, 8, 14.0, 7),
        (SERVERS, 2, 14.0, 4),
    ],
)
async def test_prefills_wait_until_words_of_the_first_chunk_are_certain(
    monkeypatch, streams, batching: Batching, rows: int, max_first_prefill_s: float, at_first: int
) -> None:
    """But for those of the chunks that share the first one's prefill, and where there is no telling what shares one."""
    monkeypatch.setattr(streaming, "_MIN_HELD_BACK_S", 0.0)
    monkeypatch.setattr(streaming, "_MAX_FIRST_PREFILL_S", max_first_prefill_s)
    recognizer = SpeakingRecognizer(speak_long_and_short, step_s=0.001, batching=batching)
    streamed = streams.begin(recognizer, [9.0, *[2.0] * 6], PLAIN, rows=rows)
    begun: list[int] = []
    released = stopped_at(40, recognizer, lambda: begun.append(len(streamed._first_answers)))
    async with aclosing(streamed.deltas()) as deltas:
        first = asyncio.ensure_future(anext(deltas))
        await until(lambda: len(streamed._first_answers) == min(2 * rows, 7))
        released.set()
        assert len(await first) >= 10
    assert begun[:4] == [at_first] * 4  # a token is a word at most


async def test_a_short_first_chunk_is_no_measure_of_longer_ones(monkeypatch, streams) -> None:
    """Its prefill took a tenth of a second; theirs are seven times as long."""
    recognizer = SpeakingRecognizer(lambda u: answering("word " * 90), step_s=0.1, batching=replace(CPU, prefill_s=4.0))
    streamed = streams.begin(recognizer, [4.0, 21.0], PLAIN, rows=8)
    begun: list[int] = []
    recognizer.before_step = lambda: begun.append(len(streamed._first_answers))
    async with aclosing(streamed.deltas()) as deltas:
        await anext(deltas)
    assert begun[:3] == [1, 1, 1]


async def test_no_more_than_two_batches_are_begun_however_many_share_a_prefill(streams) -> None:
    recognizer = SpeakingRecognizer(speak_long_and_short, batching=CPU)
    streamed = streams.begin(recognizer, [6.0, *[1.0] * 9], PLAIN, rows=1)
    async with aclosing(streamed.deltas()) as deltas:
        await anext(deltas)
        assert len(streamed._first_answers) == 2


async def test_prefills_that_nobody_notices_wait_for_the_first_token_only(monkeypatch, streams) -> None:
    monkeypatch.setattr(streaming, "_MIN_HELD_BACK_S", 1e9)
    recognizer = SpeakingRecognizer(speak_long_and_short, batching=CPU)
    streamed = streams.begin(recognizer, [9.0, *[2.0] * 6], PLAIN, rows=8)
    released = stopped_at(1, recognizer)
    async with aclosing(streamed.deltas()) as deltas:
        first = asyncio.ensure_future(anext(deltas))
        await until(lambda: len(streamed._first_answers) == 7)
        assert not first.done()
        released.set()
        await first


def stopped_at(step: int, recognizer: SpeakingRecognizer, look: Callable[[], None] = lambda: None) -> threading.Event:
    """The model looks before each step, and stops before that one until the event is set."""
    steps, released = iter(range(10**6)), threading.Event()

    def before_step() -> None:
        look()
        if next(steps) == step:
            assert released.wait(20)

    recognizer.before_step = before_step
    return released


def speak_long_and_short(utterance: Utterance) -> Answer:
    """A long chunk has 90 words, of a token each and all different."""
    words = (a + b for a in "ba do fe gu hi ja ko lu me".split() for b in "lo mi no ra su te vi wo xa ye".split())
    return answering(" ".join(words) if seconds(utterance) > 5 else "Yes.")


@pytest.mark.parametrize(
    ("text", "early"),
    [
        ("... — Good day", "... — Good"),  # punctuation alone would be no text
        ("no no no no no no no", "no"),  # may be a loop
        ("so the end of it the end of it the end of it", "so the end of it"),
    ],
)
async def test_what_may_be_replaced_waits(streams, text: str, early: str) -> None:
    seen: list[str] = []
    recognizer = SpeakingRecognizer(lambda _: answering(text), step_s=0.004)
    deltas = streams.begin(recognizer, [2.0], PLAIN).deltas()
    async for delta in deltas:
        seen.append("".join([*seen[-1:], delta]))
    assert seen[-1] == text
    assert early in seen
    assert early == max(seen[:-1], key=len)


async def test_too_little_text_leaves_only_once_it_is_enough(streams) -> None:
    """28 s of speech must have 42 letters; with fewer the chunk is recognised in halves."""

    def said(utterance: Utterance) -> Answer:
        return answering("Only few words here." if seconds(utterance) > 20 else "All that was said in this half of it.")

    deltas, streamed, unary = await streams.both(SpeakingRecognizer(said, step_s=0.001), [28.0])
    assert "".join(deltas) == text_of(streamed) == text_of(unary)
    assert "Only" not in "".join(deltas)
    assert streams.stats.rewrites == 0


@pytest.mark.parametrize("likelihood", [0.3, 1.0])
async def test_a_recital_of_the_prompt_never_leaves(streams, likelihood: float) -> None:
    prompt = "Zoë Müller, Ångström, Kubernetes, Qwen"
    recital = " ".join([prompt] * 12)

    def said(utterance: Utterance) -> Answer:
        return answering(recital if utterance.prompt else "Well, hello.")

    deltas, streamed, _ = await streams.both(
        SpeakingRecognizer(said, step_s=0.001), [3.0], TranscribeOptions(prompt=prompt), likelihood=likelihood
    )
    assert "".join(deltas) == "Well, hello."
    assert fallbacks(streamed) == [PROMPT_LEAKAGE]


async def test_of_doubtful_speech_with_a_prompt_nothing_leaves_before_its_end(streams) -> None:
    """The answer begins with words of its own, so nothing else would hold it back."""
    prompt = "Zoë Müller, Ångström, Kubernetes, Qwen"

    def said(utterance: Utterance) -> Answer:
        return answering("Well then, there is " + " ".join([prompt] * 12) if utterance.prompt else MORNING)

    options = TranscribeOptions(prompt=prompt)
    deltas, _, _ = await streams.both(SpeakingRecognizer(said, step_s=0.001), [9.0], options, likelihood=0.3)
    assert deltas == [MORNING]


async def test_punctuation_alone_never_leaves(streams) -> None:
    recognizer = SpeakingRecognizer(lambda _: answering("... — … ♪ ..."), step_s=0.002)
    deltas, _, _ = await streams.both(recognizer, [3.0])
    assert (deltas, streams.stats.rewrites) == ([], 0)


async def test_speech_that_is_not_the_prompts_leaves_early_in_spite_of_a_prompt(streams) -> None:
    recognizer = SpeakingRecognizer(lambda _: answering("I met Zoë Müller in the park this morning."), step_s=0.003)
    options = TranscribeOptions(prompt="Zoë Müller, Ångström")
    deltas, _, _ = await streams.both(recognizer, [4.0], options)
    assert len(deltas) > 2
    assert not streams.stats.rewrites


async def test_a_loop_that_has_begun_to_leave_goes_on_with_what_was_found_in_its_halves(streams) -> None:
    def said(utterance: Utterance) -> Answer:
        if seconds(utterance) > 8:
            return answering("We went to the river and then" + " it was gone" * 12, finished=False, looped=True)
        return answering("We went to the river." if utterance.samples[0] == first else "And then we swam home.")

    first = recording([10.0])[0][0].samples[0]
    deltas, streamed, unary = await streams.both(SpeakingRecognizer(said, step_s=0.002), [10.0])
    assert text_of(unary) == "We went to the river. And then we swam home."
    assert "".join(deltas) == text_of(streamed)
    assert "".join(deltas).startswith("We went to the river and then")
    assert "".join(deltas).count("it was gone") <= 1
    assert streams.stats.rewrites == 1
    assert ALREADY_SENT in fallbacks(streamed)
    assert [token.end for token in streamed[0].recognition.tokens][-1] == len(streamed[0].recognition.text)


async def test_a_truncated_answer_goes_on_behind_what_has_left(streams) -> None:
    def said(utterance: Utterance) -> Answer:
        if seconds(utterance) > 8:
            return answering("One, two, three, four, five, six", finished=False)
        half = "One, two, three, four." if utterance.samples[0] == first else "Five, six, seven, eight."
        return answering(half)

    first = recording([10.0])[0][0].samples[0]
    deltas, streamed, _ = await streams.both(SpeakingRecognizer(said, step_s=0.002), [10.0])
    assert "".join(deltas) == text_of(streamed) == "One, two, three, four, five, six, seven, eight."
    assert streams.stats.rewrites == 1


async def test_a_chunk_in_another_language_waits_for_the_next_one(streams) -> None:
    def said(utterance: Utterance) -> Answer:
        if round(seconds(utterance)) == 2:
            return answering("Ja, gut so." if utterance.language else "Yeah, go so.", utterance.language or "en")
        return answering("Das ist alles auf Deutsch gesagt.", "de")

    deltas, streamed, unary = await streams.both(SpeakingRecognizer(said, step_s=0.001), [6.0, 2.0, 6.0])
    assert "".join(deltas) == text_of(streamed) == text_of(unary)
    assert "Ja, gut so." in "".join(deltas)
    assert fallbacks(streamed) == [OTHER_LANGUAGE]
    assert streams.stats.rewrites == 0


async def test_a_short_first_chunk_waits_for_the_language_of_the_next(streams) -> None:
    def said(utterance: Utterance) -> Answer:
        if seconds(utterance) < 3:
            return answering("Gut." if utterance.language == "de" else "Goot.", utterance.language or "nl")
        return answering("Das ist alles auf Deutsch gesagt.", "de")

    deltas, streamed, unary = await streams.both(SpeakingRecognizer(said, step_s=0.001), [2.0, 6.0])
    assert "".join(deltas) == text_of(streamed) == text_of(unary) == "Gut. Das ist alles auf Deutsch gesagt."


async def test_a_recording_of_one_short_chunk_waits_for_nothing(streams) -> None:
    recognizer = SpeakingRecognizer(lambda _: answering("Turn on the light."), gate=(gate := threading.Event()))
    async with aclosing(streams.begin(recognizer, [1.5], PLAIN).deltas()) as deltas:
        assert (await asyncio.wait_for(anext(deltas), 10)).startswith("Turn")
        gate.set()


async def test_a_failure_ends_the_stream_after_what_had_left(streams) -> None:
    def said(utterance: Utterance) -> Answer:
        if seconds(utterance) < 3:
            raise RuntimeError("boom")
        return answering(MORNING)

    told: list[str] = []
    with pytest.raises(EngineFailure):
        await collect(streams.begin(SpeakingRecognizer(said, step_s=0.001), [5.0, 2.0], PLAIN), told)
    assert MORNING.startswith("".join(told))


async def collect(streamed: StreamedRecognition, into: list[str]) -> None:
    """What comes before an error, too."""
    async for delta in streamed.deltas():
        into.append(delta)  # noqa: PERF401 - of a list comprehension nothing would be left


@pytest.mark.parametrize("taken", range(4))
async def test_a_stream_that_is_left_leaves_no_job_behind(streams, taken: int) -> None:
    recognizer = SpeakingRecognizer(lambda _: answering(MORNING * 300), step_s=0.002)
    before = asyncio.all_tasks()
    async with aclosing(streams.begin(recognizer, [5.0] * 9, PLAIN).deltas()) as deltas:
        for _ in range(taken):
            await anext(deltas)
        left = time.monotonic()
    assert time.monotonic() - left < 5  # the answer would take half a minute
    assert asyncio.all_tasks() == before
    await until(lambda: not any(map(len, recognizer.sessions)) and not streams.scheduler.waiting[0])


async def until(condition: Callable[[], bool]) -> None:
    late_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < late_s
        await asyncio.sleep(0.002)


async def test_deltas_come_at_most_every_50_ms(monkeypatch, streams) -> None:
    """Counted from the beginning: the text of a short recording comes as one."""
    monkeypatch.setattr(streaming, "_MIN_INTERVAL_S", 0.05)
    recognizer = SpeakingRecognizer(lambda _: answering("Many words of many kinds come by. " * 12), step_s=0.002)
    begun_s = time.monotonic()
    arrived = [time.monotonic() async for _ in streams.begin(recognizer, [9.0], PLAIN).deltas()]
    gaps = np.diff([begun_s, *arrived[:-1]])  # the last one waits for nothing
    assert len(gaps) > 1
    assert gaps.min() >= 0.045


async def test_deltas_merge_while_nobody_reads(streams) -> None:
    recognizer = SpeakingRecognizer(lambda u: answering(MORNING if seconds(u) > 4 else "And so on."), step_s=0.001)
    async with aclosing(streams.begin(recognizer, [5.0, 2.0, 3.0], PLAIN).deltas()) as deltas:
        first = await anext(deltas)
        await until(lambda: len(recognizer.utterances) == 3 and not any(map(len, recognizer.sessions)))
        await asyncio.sleep(0.02)
        assert [first, await anext(deltas)] == [first, f"{MORNING} And so on. And so on."[len(first) :]]


async def test_a_job_that_is_run_again_alone_sends_nothing_twice(streams) -> None:
    """A failing step restarts all of its rows: they are told from their first token again."""
    recognizer = SpeakingRecognizer(lambda u: answering(MORNING if seconds(u) > 4 else "And so on."), step_s=0.001)
    steps = iter(range(10**6))

    def fail_once() -> None:
        if next(steps) == 9:
            raise RuntimeError("boom")

    recognizer.before_step = fail_once
    deltas, streamed, unary = await streams.both(recognizer, [5.0, 2.0, 3.0])
    assert "".join(deltas) == text_of(streamed) == text_of(unary) == f"{MORNING} And so on. And so on."
    assert streams.stats.rewrites == 0


WORDS = [
    "good",
    "morning",
    "Zoë",
    "and",
    "river",
    "3",
    "—",
    "„so“",
    "no.",
    "你好",
    "再见。",
    "ひらがな",
    "สวัสดี",
    "한국어",
    "ok!",
]


PROMPT = "Zoë Müller, Ångström, Kubernetes, Qwen"


@st.composite
def recordings(draw) -> tuple[int, list[float], bool, set[int]]:
    """A seed of answers, the passages' lengths, whether some answers are wrong, and which steps fail."""
    lengths = draw(st.lists(st.sampled_from([1.0, 2.5, 5.0, 9.0, 14.0]), min_size=1, max_size=6))
    faulty = draw(st.booleans())
    return draw(st.integers(0, 2**32)), lengths, faulty, draw(st.sets(st.integers(0, 30), max_size=1 if faulty else 0))


def random_answers(seed: int, faulty: bool) -> Callable[[Utterance], Answer]:
    """Answers that depend on what is asked alone; faulty ones loop, stop short, are empty, or recite the prompt."""

    def said(utterance: Utterance) -> Answer:
        rng = random.Random(f"{seed} {utterance.samples[:9].tobytes()!r} {utterance.samples.size} {utterance.language}")
        count = rng.randrange(2, 30)
        text = "".join(rng.choice(["", " ", " "]) + rng.choice(WORDS) for _ in range(count))
        if faulty and utterance.prompt and seconds(utterance) < 6 and rng.random() < 0.5:
            return answering(" ".join([PROMPT] * 6))  # more than can be said in 5 s
        if faulty and rng.random() < 0.5:
            kind = rng.randrange(4)
            if kind == 0:
                return answering(text + " " + " ".join(["it was so gone"] * 9), finished=False, looped=True)
            if kind == 1:
                return answering(text, finished=False)
            return answering(["", "... —"][kind % 2])
        return answering(text)

    return said


@settings(max_examples=60)
@given(recordings(), st.integers(1, 4), st.sampled_from(["", PROMPT]), st.sampled_from([Batching(), CPU]))
async def test_the_deltas_are_the_final_text_whatever_is_said(
    case: tuple[int, list[float], bool, set[int]], rows: int, prompt: str, batching: Batching
) -> None:
    """S1 to S4, S6 and S7; the text is the unary one, but for rewrites and chunks without text."""
    seed, lengths, faulty, failing = case
    scheduler = Scheduler()
    try:
        streams = Streams(scheduler)
        recognizer = SpeakingRecognizer(random_answers(seed, faulty), batching=batching)
        steps = iter(range(10**6))

        def fail_once() -> None:
            if next(steps) in failing:
                raise RuntimeError("boom")

        recognizer.before_step = fail_once
        deltas, streamed, unary = await streams.both(recognizer, lengths, TranscribeOptions(prompt=prompt), rows=rows)
    finally:
        scheduler.stop()
    whole = "".join(deltas)
    assert whole == text_of(streamed)
    assert all(deltas)
    assert bool(deltas) == bool(whole)
    assert not re.search("<|\ufffd", whole)
    assert [part.chunk.start for part in streamed] == sorted(part.chunk.start for part in streamed)
    assert_whole_words(deltas, streamed)
    # Which language a chunk without text is heard in again depends on the chunks that are known.
    if not streams.stats.rewrites and NO_TEXT not in fallbacks(unary):
        assert [part.recognition for part in streamed] == [part.recognition for part in unary]
    assert PROMPT not in whole
    assert whole.count("it was so gone it was so gone") == 0
    assert streams.stats.rewrites == fallbacks(streamed).count(ALREADY_SENT)


@settings(max_examples=30)
@given(recordings(), st.integers(1, 4), st.integers(0, 300), st.sampled_from([Batching(), CPU]))
async def test_a_stream_that_is_cancelled_at_any_await_leaves_no_job_behind_after_one_step(
    case: tuple[int, list[float], bool, set[int]], rows: int, turns: int, batching: Batching
) -> None:
    """S8: after so many turns of the event loop."""
    seed, lengths, faulty, _ = case
    scheduler, steps = Scheduler(), 0
    recognizer = SpeakingRecognizer(random_answers(seed, faulty), step_s=0.0005, batching=batching)

    def count() -> None:
        nonlocal steps
        steps += 1

    recognizer.before_step = count
    before = asyncio.all_tasks()
    try:
        streamed = Streams(scheduler).begin(recognizer, lengths, PLAIN, rows=rows)
        reading = asyncio.ensure_future(collect(streamed, []))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        last = steps
        assert asyncio.all_tasks() == before
        await until(lambda: not any(map(len, recognizer.sessions)) and not scheduler.waiting[0])
        assert steps <= last + 1
    finally:
        scheduler.stop()


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(12, 40), st.integers(0, 8))
async def test_no_phrase_is_said_twice_where_a_loop_or_a_cut_answer_goes_on_with_its_halves(
    seed: int, count: int, period: int
) -> None:
    """S7: all words that are spoken differ, so a phrase of over three words twice in a row was sent twice."""
    rng = random.Random(seed)
    spoken = [
        f"{a}{b}" for a in ("ba", "do", "fe", "gu", "hi", "ja", "ko") for b in ("l", "mi", "nor", "st", "pan", "ru")
    ]
    rng.shuffle(spoken)
    spoken, others = spoken[:count], spoken[count:] or ["other"]
    end, middle = rng.randrange(8, count + 1), rng.randrange(count // 3, 2 * count // 3)
    first = recording([10.0])[0][0].samples[0]

    def said(utterance: Utterance) -> Answer:
        if seconds(utterance) > 8:
            whole = spoken[:end] + spoken[end - period : end] * 9 * bool(period)
            return answering(" ".join(whole), finished=False, looped=period > 0)
        half = spoken[:middle] if utterance.samples[0] == first else spoken[middle:]
        return answering(" ".join(rng.choice(others) if rng.random() < 0.1 else word for word in half))

    scheduler = Scheduler()
    try:
        streamed = Streams(scheduler).begin(SpeakingRecognizer(said, step_s=0.0002), [10.0], PLAIN)
        deltas: list[str] = []
        await collect(streamed, deltas)
    finally:
        scheduler.stop()
    assert "".join(deltas) == text_of(streamed.recognized)
    words = text_of(streamed.recognized).split()
    for size in range(4, len(words) // 2 + 1):
        assert not any(words[at : at + size] == words[at + size : at + 2 * size] for at in range(len(words)))
