"""Continuous batching against the package's `generate`, token by token: alone, in batches, joining, leaving midway."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.engine.loader import CheckpointLoader
from backend.engine.model.recognizer import QwenRecognizer
from backend.engine.model.session import QwenSession, SessionDecoder
from backend.engine.ops import linear
from backend.errors import NonFiniteLogits
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Utterance
from backend.thresholds import MIN_LOOP_TOKENS

pytestmark = pytest.mark.slow


def tokens_of(recognizer: QwenRecognizer, session_decoder: SessionDecoder | None = None) -> QwenSession:
    """A session whose results are bare tokens, and how the answer ended."""
    parse: Any = lambda utterance, generated, finished, looped: (generated, finished, looped)  # noqa: E731
    return QwenSession(session_decoder or recognizer.decoder, recognizer._encode, parse, recognizer.eos_ids)


def run(session: QwenSession) -> dict[int, Any]:
    found: dict[int, Any] = {}
    while len(session):
        found |= {id(utterance): result for utterance, result in session.step()}
    return found


@pytest.fixture(scope="module")
def generated(package_processor) -> Callable[..., list[int]]:
    """`generated(recognizer, package, utterance)`: the tokens of the package's model for this utterance alone, up to
    its end or the budget.
    """
    return partial(_generated, package_processor)


def _generated(processor: Any, recognizer: QwenRecognizer, package: Any, utterance: Utterance) -> list[int]:
    inputs = processor(
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


@pytest.fixture(scope="module")
def random_model(asr_folder: Path, package_of, tmp_path_factory) -> tuple[QwenRecognizer, Any]:
    """Our recogniser, and the package's model with the same weights."""
    torch.manual_seed(6)  # no near tie, which two orders of summing would break differently
    folder = Path(shutil.copytree(asr_folder, tmp_path_factory.mktemp("random") / "asr"))
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.startswith("thinker.model."):
            tensors[name] = torch.randn(tensor.shape) * 0.1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return CheckpointLoader().load_recognizer(LoadOptions(str(folder), dtype="float32")), package_of(folder)


def test_alone_a_row_generates_the_packages_tokens(recognizer, package, session_decoder, clips, generated) -> None:
    for clip in clips:
        session = tokens_of(recognizer, session_decoder)
        session.add([clip])
        assert run(session)[id(clip)] == (generated(recognizer, package, clip), True, False)


def test_a_row_of_a_mixed_batch_generates_its_tokens_alone(
    recognizer, package, session_decoder, clips, generated
) -> None:
    session = tokens_of(recognizer, session_decoder)
    session.add(clips)
    found = run(session)
    assert [found[id(clip)][0] for clip in clips] == [generated(recognizer, package, clip) for clip in clips]


def test_rows_that_join_between_steps_and_leave_midway_change_no_tokens(
    recognizer, package, session_decoder, clips, generated
) -> None:
    session = tokens_of(recognizer, session_decoder)
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


def test_a_random_model_generates_the_packages_tokens_until_it_loops(random_model, clips, generated) -> None:
    recognizer, package = random_model
    session = tokens_of(recognizer)
    session.add(clips)
    found = run(session)
    for clip in clips:
        tokens, finished, looped = found[id(clip)]
        assert tokens == generated(recognizer, package, clip)[: len(tokens)]
        assert finished or looped or len(tokens) == clip.max_new_tokens
        assert len(tokens) >= MIN_LOOP_TOKENS or finished


def test_rows_that_move_to_a_larger_block_go_on_as_they_were(
    monkeypatch, recognizer, package, clips, generated
) -> None:
    monkeypatch.setattr("backend.engine.model.kv_cache._CAPACITY_STEP", 4)
    monkeypatch.setattr("backend.engine.model.kv_cache._SPARE_ROWS", 1)
    monkeypatch.setattr("backend.engine.model.kv_cache._SPARE_POSITIONS", 0)
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


def test_prefill_computes_one_position_of_each_prompt_in_the_last_layer(monkeypatch, recognizer, clips) -> None:
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


def test_a_result_is_returned_when_its_row_ends(recognizer, clips) -> None:
    short, long = clips[3], clips[0]
    session = tokens_of(recognizer)
    session.add([long, short])
    ended: list[Utterance] = []
    while not ended:
        ended = [utterance for utterance, _ in session.step()]
    assert ended == [short]
    assert len(session) == 1


def test_a_listener_is_told_every_token_but_the_last_of_its_own_row(recognizer, clips) -> None:
    told: list[Any] = []
    listening = replace(clips[0], listener=told.append)
    session = tokens_of(recognizer)
    session.add([clips[2], listening, clips[1]])
    tokens, finished, _ = run(session)[id(listening)]
    assert finished
    assert told == [tuple(tokens[:count]) for count in range(1, len(tokens) + 1)]


def test_a_failing_prompt_does_not_change_the_other_rows(recognizer, package, clips, generated) -> None:
    session = tokens_of(recognizer)
    session.add([clips[1]])
    session.step()
    with pytest.raises(Exception):  # noqa: B017 - whatever the processor makes of it
        session.add([replace(clips[1], samples=np.zeros((2, 2, 2), np.float32))])
    assert run(session)[id(clips[1])][0] == generated(recognizer, package, clips[1])


def test_without_onednn_the_packages_model_and_ours_share_their_weights(monkeypatch, demo_options) -> None:
    """The package's projections are views of the stacked ones, so no byte is in memory twice."""
    monkeypatch.setattr(linear, "onednn_supports", lambda weight: False)
    recognizer: Any = CheckpointLoader().load_recognizer(demo_options)
    layer = recognizer.model.thinker.model.layers[0].self_attn
    stack = recognizer.decoder.layers[0].qkv.weight
    held = stack.untyped_storage().data_ptr()
    assert all(p.weight.untyped_storage().data_ptr() == held for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    assert stack.shape[0] == layer.q_proj.out_features + 2 * layer.k_proj.out_features


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_streamed_packed_or_neither_the_text_and_the_memory_are_the_same(
    monkeypatch, demo_options, clips, dtype
) -> None:
    def recognized() -> tuple[list[str], int]:
        recognizer: Any = CheckpointLoader().load_recognizer(replace(demo_options, dtype=dtype))
        return [r.text for r in recognizer.recognize(clips[:5])], recognizer.weight_bytes

    streamed = recognized()
    monkeypatch.setattr(linear, "can_gemv", lambda weight: False)
    packed = recognized()
    monkeypatch.setattr(linear, "onednn_supports", lambda weight: False)
    assert streamed == packed == recognized()


def test_a_repetition_penalty_lowers_the_logits_of_generated_tokens(recognizer, clips) -> None:
    session = tokens_of(recognizer)
    session.add([clips[1], replace(clips[1], repetition_penalty=2.0), replace(clips[1], repetition_penalty=1.0)])
    for row in session._rows:
        row.generated = [3, 5]
    session._logits = torch.tensor([[0.0, 0, 0, 4, 0, -4, 3]]).repeat(3, 1)
    assert session._next_tokens().tolist() == [3, 6, 3]
    assert session._logits[1].tolist() == [0, 0, 0, 2, 0, -8, 3]


def test_in_int8_the_text_is_the_same_in_less_memory(demo_options, recognizer, clips) -> None:
    quantized = CheckpointLoader().load_recognizer(replace(demo_options, quantization="int8"))
    assert [r.text for r in quantized.recognize(clips[:5])] == [r.text for r in recognizer.recognize(clips[:5])]
    assert quantized.weight_bytes < 0.75 * recognizer.weight_bytes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_inf_logits_raise_instead_of_giving_a_token(monkeypatch, recognizer, clips, value: float) -> None:
    session = tokens_of(recognizer)
    session.add(clips[:2])
    session.step()
    decode_step = recognizer.decoder.decode_step

    def spoilt(tokens: torch.Tensor, rows: Any) -> torch.Tensor:
        logits = decode_step(tokens, rows)
        logits[1, 7] = value
        return logits

    monkeypatch.setattr(recognizer.decoder, "decode_step", spoilt)
    session.step()
    with pytest.raises(NonFiniteLogits):
        session.step()
