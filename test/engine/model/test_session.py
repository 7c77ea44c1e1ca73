"""Our decoding against the package's own `generate`, token by token: alone, in batches, joined and left midway."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from backend.engine.loader import CheckpointLoader
from backend.engine.model.cuda_graphs import GraphedDecoder
from backend.engine.model.recognizer import Loaded, QwenRecognizer
from backend.engine.model.session import Decoding, QwenSession
from backend.engine.ops import linear
from backend.errors import NonFiniteLogits
from backend.sequences.loop_detection import LEAST_TOKENS
from backend.serving.protocols import Utterance

RATE = 16_000


def tokens_of(recognizer: QwenRecognizer, decoding: Decoding | None = None) -> QwenSession:
    """A session whose results are bare tokens, with how the answer ended."""
    read: Any = lambda utterance, said, finished, looped: (said, finished, looped)  # noqa: E731
    return QwenSession(decoding or recognizer.decoder, recognizer._encoded, read, recognizer.eos_ids)


@pytest.fixture(scope="module", params=["plain", "recorded"])
def decoding(request, recognizer, traced) -> Decoding:
    return recognizer.decoder if request.param == "plain" else GraphedDecoder(recognizer.decoder, traced)


def run(session: QwenSession) -> dict[int, Any]:
    found: dict[int, Any] = {}
    while len(session):
        found |= {id(utterance): result for utterance, result in session.step()}
    return found


def generated(recognizer: QwenRecognizer, package: Any, utterance: Utterance) -> list[int]:
    """What the package's model says, alone, up to its end or the budget."""
    inputs = recognizer.processor(
        text=[recognizer._prompt(utterance)], audio=[utterance.samples], return_tensors="pt", padding=True
    )
    with torch.inference_mode():
        ids = package.thinker.generate(
            **inputs.to(recognizer.model.dtype),
            max_new_tokens=utterance.max_new_tokens,
            eos_token_id=recognizer.eos_ids,
            pad_token_id=recognizer.eos_ids[0],
            do_sample=False,
        )[0, inputs["input_ids"].shape[1] :].tolist()
    return ids[:-1] if ids[-1] in recognizer.eos_ids else ids


class Filled:
    """For a model that has its weights already."""

    def fill(self, modules: object) -> None: ...
    def lend(self, modules: object) -> None: ...
    def close(self) -> None: ...


@pytest.fixture(scope="module")
def random_model(recognizer: QwenRecognizer) -> tuple[QwenRecognizer, Any]:
    """Ours, and the package's with the same weights."""
    torch.manual_seed(5)
    model = type(recognizer.model)(recognizer.model.config).eval()
    for parameter in model.thinker.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.eos_token_id = recognizer.eos_ids
    return QwenRecognizer(Loaded(copy.deepcopy(model), recognizer.processor, Filled())), model


def test_alone_it_says_what_the_package_says(recognizer, package, decoding, clips) -> None:
    for clip in clips:
        session = tokens_of(recognizer, decoding)
        session.add([clip])
        assert run(session)[id(clip)] == (generated(recognizer, package, clip), True, False)


def test_a_mixed_batch_says_what_its_members_say_alone(recognizer, package, decoding, clips) -> None:
    session = tokens_of(recognizer, decoding)
    session.add(clips)
    found = run(session)
    assert [found[id(clip)][0] for clip in clips] == [generated(recognizer, package, clip) for clip in clips]


def test_rows_that_join_between_steps_and_leave_midway_change_no_words(recognizer, package, decoding, clips) -> None:
    session = tokens_of(recognizer, decoding)
    found: dict[int, Any] = {}
    left = replace(clips[0])  # an object of its own, dropped while it runs
    for number, clip in enumerate(clips):
        session.add([clip, left] if number == 2 else [clip])
        for _ in range(3):
            found |= {id(utterance): result for utterance, result in session.step()}
        if number == 4:
            session.drop(left)
    found |= run(session)
    assert id(left) not in found
    assert [found[id(clip)][0] for clip in clips] == [generated(recognizer, package, clip) for clip in clips]


def test_a_random_model_says_what_the_package_says_until_it_loops(random_model, clips) -> None:
    session = tokens_of(random_model[0])
    session.add(clips)
    found = run(session)
    for clip in clips:
        said, finished, looped = found[id(clip)]
        assert said == generated(*random_model, clip)[: len(said)]
        assert finished or looped or len(said) == clip.max_new_tokens
        assert len(said) >= LEAST_TOKENS or finished


def test_rows_that_move_to_a_larger_block_go_on_as_they_were(monkeypatch, recognizer, package, clips) -> None:
    monkeypatch.setattr("backend.engine.model.kv_cache._STEP", 4)
    monkeypatch.setattr("backend.engine.model.kv_cache._AHEAD_ROWS", 1)
    monkeypatch.setattr("backend.engine.model.kv_cache._AHEAD_SLOTS", 0)
    session = tokens_of(recognizer)
    session.add(clips[:3])
    found: dict[int, Any] = {}
    blocks = [session._cache._block]
    while len(session):
        found |= {id(utterance): result for utterance, result in session.step()}
        if len(session) and session._cache._block is not blocks[-1]:
            blocks.append(session._cache._block)
    assert len(blocks) > 3
    assert [found[id(clip)][0] for clip in clips[:3]] == [generated(recognizer, package, clip) for clip in clips[:3]]


def test_of_prompts_the_last_layer_computes_only_what_is_asked_for(monkeypatch, recognizer, clips) -> None:
    def counted(x: torch.Tensor) -> torch.Tensor:
        rows.append(x.numel() // x.shape[-1])
        return down(x)

    last, rows = recognizer.decoder.layers[-1], list[int]()
    down = last.down
    monkeypatch.setattr(last, "down", counted)
    session = recognizer.session()
    session.add(clips[:3])
    session.step()
    assert rows == [3, 3]


def test_results_are_given_when_their_row_ends(recognizer, clips) -> None:
    short, long = clips[3], clips[0]
    session = tokens_of(recognizer)
    session.add([long, short])
    ended: list[Utterance] = []
    while not ended:
        ended = [utterance for utterance, _ in session.step()]
    assert ended == [short]
    assert len(session) == 1


def test_a_failing_prompt_changes_nothing(recognizer, package, clips) -> None:
    session = tokens_of(recognizer)
    session.add([clips[1]])
    session.step()
    with pytest.raises(Exception):  # noqa: B017 - whatever the processor makes of it
        session.add([replace(clips[1], samples=np.zeros((2, 2, 2), np.float32))])
    assert run(session)[id(clips[1])][0] == generated(recognizer, package, clips[1])


def test_without_onednn_the_packages_model_and_ours_share_their_weights(monkeypatch, demo_options) -> None:
    """The stacked projections are the model's own: it computes with views of them, and no byte is held twice."""
    monkeypatch.setattr(linear, "onednn_supports", lambda weight: False)
    recognizer: Any = CheckpointLoader().load_recognizer(demo_options)
    layer = recognizer.model.thinker.model.layers[0].self_attn
    stack = recognizer.decoder.layers[0].qkv.weight
    held = stack.untyped_storage().data_ptr()
    assert all(p.weight.untyped_storage().data_ptr() == held for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    assert stack.shape[0] == layer.q_proj.out_features + 2 * layer.k_proj.out_features


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_swept_packed_or_neither_it_hears_the_same_words_in_the_same_memory(
    monkeypatch, demo_options, clips, dtype
) -> None:
    def heard() -> tuple[list[str], int]:
        recognizer: Any = CheckpointLoader().load_recognizer(replace(demo_options, dtype=dtype))
        return [r.text for r in recognizer.recognize(clips[:5])], recognizer.weight_bytes

    streamed = heard()
    monkeypatch.setattr(linear, "can_gemv", lambda weight: False)
    packed = heard()
    monkeypatch.setattr(linear, "onednn_supports", lambda weight: False)
    assert streamed == packed == heard()


def test_a_penalty_makes_what_was_said_less_likely(recognizer, clips) -> None:
    session = tokens_of(recognizer)
    session.add([clips[1], replace(clips[1], repetition_penalty=2.0), replace(clips[1], repetition_penalty=1.0)])
    for row in session._rows:
        row.said = [3, 5]
    session._logits = torch.tensor([[0.0, 0, 0, 4, 0, -4, 3]]).repeat(3, 1)
    assert session._chosen() == [3, 6, 3]
    assert session._logits[1].tolist() == [0, 0, 0, 2, 0, -8, 3]


def test_in_eight_bits_it_hears_the_same_words_in_less_memory(demo_options, recognizer, clips) -> None:
    quantized = CheckpointLoader().load_recognizer(replace(demo_options, quantization="int8"))
    assert [r.text for r in quantized.recognize(clips[:5])] == [r.text for r in recognizer.recognize(clips[:5])]
    assert quantized.weight_bytes < 0.75 * recognizer.weight_bytes


@pytest.mark.parametrize("nothing", [float("nan"), float("inf")])
def test_a_row_whose_scores_are_no_numbers_says_nothing(monkeypatch, recognizer, clips, nothing: float) -> None:
    session = tokens_of(recognizer)
    session.add(clips[:2])
    session.step()
    step = recognizer.decoder.step

    def spoilt(tokens: torch.Tensor, rows: Any) -> torch.Tensor:
        logits = step(tokens, rows)
        logits[1, 7] = nothing
        return logits

    monkeypatch.setattr(recognizer.decoder, "decode_step", spoilt)
    session.step()
    with pytest.raises(NonFiniteLogits):
        session.step()
