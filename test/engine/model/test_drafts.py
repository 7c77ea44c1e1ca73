"""Answers with a draft against the same without one, token by token: whatever the draft is, the tokens are the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.engine.model.recognizer import QwenRecognizer
from backend.engine.model.session import QwenSession, SessionDecoder
from backend.errors import NonFiniteLogits
from backend.serving.protocols import Utterance

pytestmark = pytest.mark.slow

Result = tuple[list[int], bool, bool]  # tokens, finished, looped


@pytest.fixture(scope="module")
def asked(clips) -> list[Utterance]:
    """Answers that end by themselves, at their budget, with a forced language, with a penalty, and empty ones."""
    return [*clips, replace(clips[0], max_new_tokens=9), replace(clips[1], repetition_penalty=1.5)]


@pytest.fixture(scope="module")
def free(recognizer, asked) -> list[Result]:
    return [decoded(recognizer, recognizer.decoder, [utterance])[0] for utterance in asked]


def session_of(recognizer: QwenRecognizer, session_decoder: SessionDecoder, eos_ids: Sequence[int] = ()) -> QwenSession:
    parse: Any = lambda utterance, generated, finished, looped: (generated, finished, looped)  # noqa: E731
    return QwenSession(session_decoder, recognizer._encode, parse, eos_ids or recognizer.eos_ids)


def decoded(
    recognizer: QwenRecognizer,
    session_decoder: SessionDecoder,
    utterances: Sequence[Utterance],
    joins: Sequence[int] = (),
    eos_ids: Sequence[int] = (),
) -> list[Result]:
    """The results of one session, in order; `joins`: steps before each utterance but the first is added."""
    session, found = session_of(recognizer, session_decoder, eos_ids), dict[int, Any]()
    for number, utterance in enumerate(utterances):
        for _ in range(joins[number - 1] if number and joins else 0):
            found |= {id(ended): result for ended, result in (session.step() if len(session) else ())}
        session.add([utterance])
    while len(session):
        found |= {id(ended): result for ended, result in session.step()}
    return [found[id(utterance)] for utterance in utterances]


def random_draft(rng: random.Random, answer: list[int], eos_ids: Sequence[int], vocabulary: int) -> tuple[int, ...]:
    """The answer, changed: cut, with a token replaced, repeated, with more behind it, or nothing of it at all."""
    draft = answer[: rng.randrange(len(answer) + 1)] if rng.random() < 0.7 else list(answer)
    kind = rng.randrange(6)
    if kind == 0 and draft:
        draft[rng.randrange(len(draft))] = rng.randrange(vocabulary)
    elif kind == 1:
        draft += [rng.randrange(vocabulary) for _ in range(rng.randrange(30))]
    elif kind == 2:
        draft += [rng.choice(eos_ids), *answer]
    elif kind == 3:
        draft = draft[-3:] * 9
    elif kind == 4:
        draft = [rng.randrange(vocabulary) for _ in range(rng.randrange(1, 40))]
    return tuple(draft)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_any_draft_gives_the_tokens_of_a_free_decode(recognizer, session_decoder, asked, free, seed: int) -> None:
    """Rows with and without drafts join the session one after the other, between steps."""
    rng, vocabulary = random.Random(seed), recognizer.decoder.vocab_size
    numbers = rng.sample(range(len(asked)), 4)
    drafts = [random_draft(rng, free[number][0], recognizer.eos_ids, vocabulary) for number in numbers]
    drafts[rng.randrange(4)] = ()
    utterances = [replace(asked[number], draft=draft) for number, draft in zip(numbers, drafts, strict=True)]
    found = decoded(recognizer, session_decoder, utterances, [rng.randrange(6) for _ in numbers])
    for number, result, draft in zip(numbers, found, drafts, strict=True):
        assert (number, draft, result) == (number, draft, free[number])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_a_draft_that_loops_ends_its_row_where_the_free_decode_does(recognizer, clips, seed: int) -> None:
    """A model that cannot end its answers: all of them loop."""
    rng, never = random.Random(seed), [10**6]
    utterance = replace(clips[1], max_new_tokens=400)
    (free,) = decoded(recognizer, recognizer.decoder, [utterance], eos_ids=never)
    assert free[2]
    draft = tuple((free[0] + free[0][-6:] * 3)[: rng.randrange(len(free[0]) + 18)])
    assert decoded(recognizer, recognizer.decoder, [replace(utterance, draft=draft)], eos_ids=never) == [free]


def test_drafts_are_added_together_and_a_right_one_takes_no_step(recognizer, session_decoder, asked, free) -> None:
    utterances = [replace(asked[number], draft=tuple(free[number][0])) for number in range(3)]
    session = session_of(recognizer, session_decoder)
    session.add(utterances)
    ended = session.step()
    assert [result for _, result in ended] == free[:3]
    assert not len(session)


def test_fixed_tokens_begin_the_answer_and_the_rest_of_a_draft_is_verified(
    recognizer, session_decoder, asked, free
) -> None:
    answer = free[0][0]
    other = free[2][0]
    draft = (*other[:4], *answer[4:9])
    (with_draft,) = decoded(recognizer, session_decoder, [replace(asked[0], draft=draft, fixed=4)])
    (alone,) = decoded(recognizer, session_decoder, [replace(asked[0], draft=draft[:4], fixed=4)])
    assert with_draft == alone
    assert with_draft[0][:4] == other[:4]


def test_the_draft_is_in_a_recognition_with_how_much_of_it_was_right(recognizer, asked, free) -> None:
    answer = free[0][0]
    wrong = (*answer[:7], answer[7] + 1, *answer[8:])
    plain, drafted = recognizer.recognize([asked[0], replace(asked[0], draft=wrong)])
    assert (plain.ids, plain.agreed) == (tuple(answer), 0)
    assert (drafted.ids, drafted.agreed) == (tuple(answer), 7)
    assert (drafted.text, drafted.tokens) == (plain.text, plain.tokens)


def test_a_listener_hears_the_confirmed_tokens_at_once(recognizer, asked, free) -> None:
    told: list[Any] = []
    answer = free[0][0]
    recognizer.recognize([replace(asked[0], draft=tuple(answer[:8]), listener=told.append)])
    assert told[0] == tuple(answer[:9])


def test_nan_in_a_draft_raises_instead_of_confirming_a_token(monkeypatch, recognizer, asked, free) -> None:
    prefill = recognizer.decoder.prefill

    def spoilt(*arguments: Any) -> Any:
        logits, cache = prefill(*arguments)
        logits[2, 7] = float("nan")
        return logits, cache

    monkeypatch.setattr(recognizer.decoder, "prefill", spoilt)
    session = session_of(recognizer, recognizer.decoder)
    draft = (*free[0][0][:2], 7, *free[0][0][3:])
    session.add([replace(asked[0], draft=draft)])
    with pytest.raises(NonFiniteLogits):
        session.step()


def test_positions_that_a_draft_had_wrong_are_zero(recognizer, asked) -> None:
    session = session_of(recognizer, recognizer.decoder)
    session.add([replace(asked[0], draft=(5, 6, 7, 8))])
    cache = session._cache
    assert cache.host_lengths == cache.lengths.tolist()
    assert torch.count_nonzero(cache.kv[:, :, 0, :, cache.host_lengths[0] :]) == 0


def test_a_draft_is_verified_with_the_penalty_of_the_tokens_before_each_place(recognizer, asked) -> None:
    """The step penalises the logits that it takes itself, so verifying must not change them."""
    session = session_of(recognizer, recognizer.decoder)
    logits = torch.tensor([[0.0, 0, 0, 9, 8, 0]]).repeat(4, 1)
    before = logits.clone()
    penalised = replace(asked[0], repetition_penalty=2.0, draft=(3, 4, 3))
    assert session._confirmed(penalised, logits) == 3  # 9; 4.5 and 8; 4.5 and 4
    assert session._confirmed(replace(penalised, draft=(3, 3, 3)), logits) == 1
    assert torch.equal(logits, before)
