"""Live windows of a bench checkpoint: answers grow, the ends of drafts are wrong, and the text is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from grpc_service import serving
from live_client import LiveCall
from speaking import SpeakingRecognizer, answering

from backend.engine.model.session import QwenSession
from backend.errors import NonFiniteLogits
from backend.serving.protocols import Recognition, Utterance
from backend.wire import backend_pb2 as pb
from devtools.bench import clips
from devtools.bench.benchmark import CLIP_WORDS, Benchmark
from devtools.bench.live import revising_server
from devtools.bench.live.limits import the_subject
from devtools.bench.live.live_rows import server_of
from devtools.bench.live.revising_server import WRONG_TOKENS, RevisingLoader, RevisingSession, as_revised
from devtools.bench.shapes import text_of
from devtools.bench.system import Server
from devtools.server_process import ROOT

HAS_PROC = Path("/proc/self/environ").exists()
NOISE = np.random.default_rng(3).normal(0, 0.1, 9 * 16_000).astype(np.float32)
TEXT = text_of(33)  # 9 s of 40 words in 11 s


def utterance(seconds: float, draft: Sequence[int] = (), fixed: int = 0, budget: int = 500) -> Utterance:
    return Utterance(NOISE[: round(16_000 * seconds)], None, "", budget, draft=tuple(draft), fixed=fixed)


class Streamed(NamedTuple):
    """What was said of a live stream, and the drafts that reached the engine."""

    text: str
    deltas: str
    drafts: list[tuple[int, ...]]
    ids: tuple[int, ...]  # of the text, with its tag
    agreed: list[int]


@dataclass
class Engine:
    """Hears what goes into the engine's sessions and what comes out."""

    given: list[Utterance] = field(default_factory=list)
    answers: list[Recognition] = field(default_factory=list)

    def has_answered_more_than(self, times: int) -> bool:
        return len(self.answers) > times

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        add, step = QwenSession.add, QwenSession.step

        def heard_add(session: QwenSession, utterances: Sequence[Utterance]) -> None:
            self.given += utterances
            add(session, utterances)

        def heard_step(session: QwenSession) -> list[tuple[Utterance, Recognition]]:
            ended = step(session)
            self.answers += [answer for _, answer in ended]
            return ended

        patch.setattr(QwenSession, "add", heard_add)
        patch.setattr(QwenSession, "step", heard_step)


async def streamed(checkpoint: Path, decoder_pool, wrong_tokens: int) -> Streamed:
    engine = Engine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revising_server, "WRONG_TOKENS", wrong_tokens)
        async with serving(RevisingLoader(), decoder_pool) as service:
            assert (await service.load(Model=str(checkpoint), DType="float32")).success
            engine.listen(patch)
            async with LiveCall(service.stub) as call:
                await call.open()
                for number, part in enumerate(np.array_split(NOISE, 3)):
                    await call.send(part)
                    await call.until(partial(engine.has_answered_more_than, number))
                replies = await call.end()
            assert replies.error is None
    drafts = [each.draft for each in engine.given if each.draft]
    answers = [each.agreed for each in engine.answers]
    longest = max((answer.ids for answer in engine.answers), key=len)
    return Streamed(replies.final.text, replies.text, drafts, longest, answers)


@pytest.mark.slow
async def test_the_ends_of_drafts_are_wrong_in_the_engine_and_the_text_is_the_same(saying_90, decoder_pool) -> None:
    wrong = await streamed(saying_90, decoder_pool, WRONG_TOKENS)
    right = await streamed(saying_90, decoder_pool, 0)
    assert wrong.text == wrong.deltas == right.text == right.deltas == TEXT

    assert len(wrong.drafts) >= 2
    for draft in wrong.drafts:
        kept = len(draft) - WRONG_TOKENS
        assert draft[:kept] == wrong.ids[:kept]
        assert all(token != said for token, said in zip(draft[kept:], wrong.ids[kept:], strict=False))
        assert kept in wrong.agreed
    assert all(draft == right.ids[: len(draft)] for draft in right.drafts)
    assert {len(draft) for draft in right.drafts} <= {*right.agreed}


@pytest.mark.slow
async def test_a_file_has_as_many_words_as_its_sound_too(saying_90, decoder_pool) -> None:
    async with serving(RevisingLoader(), decoder_pool) as service:
        assert (await service.load(Model=str(saying_90))).success
        reply = await service.transcribe(clips.clip(0))
    assert reply.text == text_of(CLIP_WORDS)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="reads /proc")
def test_the_server_is_the_backend_in_the_environment_of_run_sh(monkeypatch, saying_90) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "64")
    with Server(server_of(Benchmark(shape="tiny"))) as server:
        given = dict(
            line.partition("=")[::2] for line in Path(f"/proc/{server.pid}/environ").read_text().split("\0") if line
        )
        server.load_model(saying_90)
        assert server.stub.Status(pb.HealthMessage()).memory.total > 0
        assert server.transcribe(clips.clip(0)).text == text_of(CLIP_WORDS)
    assert given["GOMP_SPINCOUNT"] == "20000"
    assert given["LRU_CACHE_CAPACITY"] == "64"


def test_the_demo_runs_as_it_is_and_random_weights_as_they_would_be() -> None:
    demo, random = Benchmark(), Benchmark(shape="0.6b", formats=("int8",))
    assert server_of(demo) == the_subject(demo)
    assert str(ROOT / "run.sh") in server_of(demo).command
    assert server_of(random).command[-1] == "devtools.bench.live.revising_server"
    assert (server_of(random).name, server_of(random).quantization) == ("ours int8", "int8")


def test_what_was_sent_stays_right() -> None:
    draft = tuple(range(20, 30))
    assert as_revised(utterance(9, draft)).draft == (*draft[:7], 26, 29, 28)
    assert as_revised(utterance(9, draft, fixed=9)).draft == (*draft[:9], 28)
    assert as_revised(utterance(9, draft, fixed=10)).draft == draft
    assert as_revised(utterance(9)).draft == ()
    assert as_revised(utterance(1, draft, fixed=10)).max_new_tokens == 11  # 4 words of sound, and 10 that must be


def test_an_answer_that_is_cut_by_its_own_budget_is_not_ended() -> None:
    asked = [utterance(3), utterance(2, budget=6)]
    recognizer = SpeakingRecognizer(lambda each: answering("one two", finished=False))
    session = RevisingSession(recognizer.session())
    session.add(asked)
    assert len(session) == 2
    ended: dict[int, bool] = {}
    while len(session):
        for each, answer in session.step():
            assert isinstance(answer, Recognition)
            ended[id(each)] = answer.finished
    assert ended == {id(asked[0]): True, id(asked[1]): False}
    assert [each.max_new_tokens for each in recognizer.utterances] == [14, 6]


def test_a_dropped_utterance_is_dropped_and_a_refused_one_never_came(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = SpeakingRecognizer(lambda each: answering("one"))
    inner = recognizer.session()
    session = RevisingSession(inner)
    first, second = utterance(1), utterance(2)
    session.add([first, second])
    session.drop(first)
    assert [row[0].samples.size for row in inner.rows] == [32_000]

    def refuse(utterances: Sequence[Utterance]) -> None:
        raise NonFiniteLogits

    monkeypatch.setattr(inner, "add", refuse)
    with pytest.raises(NonFiniteLogits):
        session.add([first])
    ended: list[Utterance] = []
    while len(session):
        ended += [each for each, _ in session.step()]
    assert ended == [second]
