"""When text leaves a stream: soon after it is settled, and not in too many messages. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import SpeakingRecognizer, SpeakingSession, answering
from virtual_time import run

from backend.audio.vad import Speech
from backend.audio.waveform import Chunk
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.streaming import StreamedRecognition
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.protocols import Batching, Utterance
from backend.transcript.joining import join
from backend.transcript.scripts import pieces
from backend.transcript.speech_rate import spoken_letters

RATE = 16_000
INTERVAL_S = 0.05


@dataclass
class SteppedScheduler:
    """Runs at most `rows` utterances together, in steps of `steps_s` seconds, one after the other and again."""

    session: SpeakingSession
    rows: int
    steps_s: Sequence[float]
    said: list[tuple[float, Utterance, int]] = field(default_factory=list)  # when, and how many tokens of which
    _waiting: list[tuple[Utterance, asyncio.Future[Any]]] = field(default_factory=list)
    _running: list[tuple[Utterance, asyncio.Future[Any]]] = field(default_factory=list)
    _work: asyncio.Task[None] | None = None

    async def submit(self, kind: object, item: Utterance, **_: object) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._work is None:
            self._work = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        number = 0
        while self._waiting or self._running:
            joining = self._waiting[: self.rows - len(self._running)]
            del self._waiting[: len(joining)]
            self._running += joining
            self.session.add([utterance for utterance, _ in joining])
            await asyncio.sleep(self.steps_s[number % len(self.steps_s)])
            number += 1
            ended = {id(utterance): result for utterance, result in self.session.step()}
            now = asyncio.get_running_loop().time()
            self.said += [(now, utterance, self.session._said[id(utterance)]) for utterance, _ in self._running]
            for utterance, answer in self._running:
                if id(utterance) in ended:
                    answer.set_result(ended[id(utterance)])
            self._running = [each for each in self._running if id(each[0]) not in ended]
        self._work = None


@dataclass
class Case:
    """One recording: passages of speech, what is said in each, and a model with its own pace."""

    lengths_s: list[float]
    texts: list[str]
    language: str | None
    batching: Batching = field(default_factory=Batching)

    def __post_init__(self) -> None:
        sizes = [round(length_s * RATE) for length_s in self.lengths_s]
        begins = [0, *accumulate(sizes)][:-1]
        self.chunks = [Chunk(at, np.full(size, 0.1, np.float32)) for at, size in zip(begins, sizes, strict=True)]
        self.speech = Speech(((0, sum(sizes)),), np.ones(-(-sum(sizes) // 512), np.float32))

    def number_of(self, utterance: Utterance) -> int:
        return next(at for at, chunk in enumerate(self.chunks) if chunk.samples is utterance.samples)

    async def streamed(self, rows: int, steps_s: Sequence[float]) -> tuple[SteppedScheduler, list[tuple[float, str]]]:
        """The model's steps, and the deltas with the time of each."""
        recognizer = SpeakingRecognizer(
            lambda utterance: answering(self.texts[self.number_of(utterance)]), batching=self.batching
        )
        scheduler: Any = SteppedScheduler(recognizer.session(), rows, steps_s)
        lean, options = Lean(LoadOptions("m", batch_max_size=rows), recognizer), TranscribeOptions(self.language)
        policy = RecognitionPolicy(scheduler, lean, options, self.speech, RequestStats())
        streamed = StreamedRecognition(policy, lean, options, self.speech, RequestStats(), self.chunks)
        deltas = [(asyncio.get_running_loop().time(), delta) async for delta in streamed.deltas()]
        return scheduler, deltas

    def settled(self, scheduler: SteppedScheduler) -> list[tuple[float, int]]:
        """After each of the model's steps, how many characters of the text can no longer change."""
        tokens = [0] * len(self.chunks)
        lengths = [len(scheduler.session._recognizer.tokens_of(text)) for text in self.texts]
        tag = int(self.language is None)
        found: list[tuple[float, int]] = []
        for at, utterance, count in scheduler.said:
            number = self.number_of(utterance)
            is_repeated = tokens[number] == count  # the step after the last token, which ends the answer
            tokens[number] = count + is_repeated
            head = next((at for at in range(len(tokens)) if tokens[at] <= lengths[at] + tag), len(tokens))
            whole = join(self.texts[:head])[0]
            if head < len(tokens) and (certain := self._certain(scheduler, head, tokens[head] - tag)):
                whole = join([whole, certain])[0]
            found.append((at, len(whole)))
        return found

    def _certain(self, scheduler: SteppedScheduler, number: int, tokens: int) -> str:
        """All but the last word, once there is so much that the passage is not recognised again for want of text."""
        spoken = scheduler.session._recognizer.tokens_of(self.texts[number])
        text = self.texts[number][: spoken[tokens - 1].end] if tokens > 0 else ""
        if self.lengths_s[number] >= 4 and spoken_letters(text) < 1.5 * self.lengths_s[number]:
            return ""
        return text[: ([0, 0, *(end for _, end in pieces(text))])[-2]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Words all different, and as many as the speech must have; a tag only before long passages."""
    language = draw(st.sampled_from(["en", None]))
    lengths = [4.5, 6.0, 9.0, *([1.0, 2.5] if language else [])]
    lengths_s = draw(st.lists(st.sampled_from(lengths), min_size=1, max_size=5))
    words = iter(f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in ("l", "mi", "nora", "r, and", "stu lu"))
    texts = []
    for length_s in lengths_s:
        count = draw(st.integers(4, 9)) + round(length_s / 2)
        texts.append(" ".join(next(words, "hm") for _ in range(count)) + ".")
    batching = Batching(slow_prefill=draw(st.booleans()), prefill_s=12.0)
    return Case(lengths_s, texts, language, batching)


@settings(max_examples=50)
@given(cases(), st.integers(1, 4), st.lists(st.floats(0.001, 0.3), min_size=1, max_size=5))
def test_no_text_waits_longer_than_50_ms_and_a_step_once_it_is_settled(
    case: Case, rows: int, steps_s: list[float]
) -> None:
    """S9; and that no two deltas but the last leave sooner after each other."""
    scheduler, deltas = run(case.streamed(rows, steps_s))
    assert "".join(delta for _, delta in deltas) == join(case.texts)[0]
    left = list(accumulate((len(delta) for _, delta in deltas), initial=0))
    late_s = INTERVAL_S + max(steps_s) + 1e-6
    for at, count in case.settled(scheduler):
        assert left[sum(sent_at <= at + late_s for sent_at, _ in deltas)] >= count
    gaps = np.diff([at for at, _ in deltas[:-1]])
    assert gaps.size == 0 or gaps.min() >= INTERVAL_S - 1e-6


def test_what_counts_as_settled_here_grows_by_the_word() -> None:
    """Else the property would hold for a stream that sends whole passages."""
    case = Case([6.0, 4.5], ["bal bami banora bar, and bastu lu bel bemi benora.", "dal dami danora."], None)
    scheduler, _ = run(case.streamed(1, [0.1]))
    counts = {count for _, count in case.settled(scheduler)}
    assert counts > {0, len("bal bami"), len("bal bami banora"), len("bal bami banora bar,"), len(join(case.texts)[0])}
