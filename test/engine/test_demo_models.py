"""The real code path on the demo checkpoints: their text, their times, and the memory they take."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from instances import lean_of
from safetensors.torch import load_file

from backend.engine.loader import CheckpointLoader
from backend.engine.model.aligner import QwenAligner
from backend.engine.model.recognizer import QwenRecognizer
from backend.serving.model_instance import Equipped
from backend.serving.protocols import Passage, Utterance
from backend.serving.resident import Resident

pytestmark = pytest.mark.slow


def utterance(samples: np.ndarray, *, language: str | None = None, prompt: str = "", budget: int = 200) -> Utterance:
    return Utterance(samples, language, prompt, budget)


def test_a_sentence_is_recognized_with_its_language_and_its_punctuation(recognizer, demo) -> None:
    samples, truth = demo
    (found,) = recognizer.recognize([utterance(samples)])
    assert (found.text, found.language, found.finished) == (truth["text"], truth["language"], True)


def test_a_cpu_prefills_no_more_audio_at_once_than_its_heap_holds(recognizer, aligner) -> None:
    assert recognizer.model.device.type == "cpu"
    assert recognizer.batching == aligner.batching
    assert recognizer.batching.prefill_s < 60


def test_the_reported_tokens_are_those_of_the_text_and_cover_it(recognizer, demo) -> None:
    (found,) = recognizer.recognize([utterance(demo[0])])
    decode = recognizer.processor.tokenizer.decode
    assert decode([token.id for token in found.tokens]) == found.text
    assert (found.tokens[0].begin, found.tokens[-1].end) == (0, len(found.text))


def test_a_row_of_a_batch_of_mixed_lengths_has_its_text_alone(recognizer, demo) -> None:
    samples, _ = demo
    clips = [samples, samples[: samples.size // 2], np.zeros(4000, np.float32), samples[: samples.size // 3]]
    alone = [recognizer.recognize([utterance(clip)])[0] for clip in clips]
    assert recognizer.recognize([utterance(clip) for clip in clips]) == alone


def test_a_forced_language_is_reported_and_its_tag_is_not_in_the_text(recognizer, demo) -> None:
    samples, truth = demo
    (found,) = recognizer.recognize([utterance(samples, language=truth["language"])])
    assert (found.text, found.language) == (truth["text"], truth["language"])


def test_a_prompt_does_not_spoil_the_text(recognizer, demo) -> None:
    samples, truth = demo
    (found,) = recognizer.recognize([utterance(samples, prompt="fox music seven")])
    assert found.text == truth["text"]


@pytest.mark.parametrize("text", ["", "fox music seven", "Zoë 你好 🫨 " * 50, "\U0010fffd" * 8192])
def test_a_prompts_tokens_are_counted_as_the_tokenizer_makes_them(recognizer, text: str) -> None:
    encoded = recognizer.processor.tokenizer.encode(text, add_special_tokens=False)
    assert recognizer.count_tokens(text) == len(encoded.ids)


def test_prompts_are_counted_while_others_are_tokenized(recognizer, demo) -> None:
    """The tokenizer's padding cannot be changed while it counts."""
    clip = utterance(demo[0][:8000])
    expected = recognizer.recognize([clip])
    with ThreadPoolExecutor(1) as pool:
        counts = [pool.submit(recognizer.count_tokens, "\U0010fffd" * 8192) for _ in range(20)]
        while not counts[-1].done():
            assert recognizer.recognize([clip]) == expected
    assert {count.result() for count in counts} == {4 * 8192}


def test_a_budget_that_is_too_small_is_reported(recognizer, demo) -> None:
    (found,) = recognizer.recognize([utterance(demo[0], budget=8)])
    assert not found.finished
    assert demo[1]["text"].startswith(found.text)


@pytest.mark.parametrize(
    "samples", [np.zeros(1, np.float32), np.zeros(48_000, np.float32)], ids=["one", "three seconds"]
)
def test_silence_has_no_text(recognizer, samples: np.ndarray) -> None:
    (found,) = recognizer.recognize([utterance(samples)])
    assert (found.text, found.language, found.finished) == ("", None, True)


def test_units_have_their_times(aligner, demo) -> None:
    samples, truth = demo
    (units,) = aligner.align([Passage(samples, truth["text"], truth["language"])])
    assert len(units) == len(truth["words"])
    errors = [abs(u.start_s - s) + abs(u.end_s - e) for u, (_, s, e) in zip(units, truth["words"], strict=True)]
    assert np.mean(errors) / 2 < 0.08
    assert all(unit.end_s > unit.start_s for unit in units)
    assert all(b.start_s >= a.end_s for a, b in pairwise(units))


def test_a_passage_of_a_batch_is_aligned_as_alone_and_punctuation_has_no_units(aligner, demo) -> None:
    samples, truth = demo
    passages = [
        Passage(samples, truth["text"], "en"),
        Passage(samples[:8000], "...", "en"),
        Passage(samples, "Stop.", "en"),
    ]
    together = aligner.align(passages)
    for batched, passage in zip(together, passages, strict=True):
        (alone,) = aligner.align([passage])
        assert [unit.text for unit in batched] == [unit.text for unit in alone]
        assert [unit[1:] for unit in batched] == [pytest.approx(unit[1:], abs=0.02) for unit in alone]
    assert together[1] == []


async def test_the_swap_keeps_the_very_same_weights(demo_options, aligner_folder) -> None:
    resident = Resident(CheckpointLoader())
    await resident.load(demo_options)
    lean = lean_of(resident)
    assert isinstance(lean.recognizer, QwenRecognizer)
    before = {name: p.data_ptr() for name, p in lean.recognizer.model.named_parameters()}
    lean_bytes = resident.weight_bytes
    await resident.equipped(lean)
    equipped = resident.current()
    assert isinstance(equipped, Equipped)
    assert equipped.recognizer is lean.recognizer
    assert isinstance(equipped.recognizer, QwenRecognizer)
    assert isinstance(equipped.aligner, QwenAligner)
    assert {name: p.data_ptr() for name, p in equipped.recognizer.model.named_parameters()} == before
    assert resident.weight_bytes["recognizer"] == lean_bytes["recognizer"] > 0 == lean_bytes["aligner"]
    stored = load_file(aligner_folder / "model.safetensors").values()
    buffers = sum(tensor.nbytes for tensor in equipped.aligner.model.buffers())
    assert resident.weight_bytes["aligner"] == 4 * sum(tensor.numel() for tensor in stored) + buffers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_text_is_the_same(demo_options, demo) -> None:
    recognizer = CheckpointLoader().load_recognizer(demo_options)
    assert recognizer.model.device.type == "cuda"
    assert recognizer.recognize([utterance(demo[0])])[0].text == demo[1]["text"]
