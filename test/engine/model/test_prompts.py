"""Prompts with audio: prepared alone on the host, embedded together without waiting for the device."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backend.chat_format.prompt_format import MIN_SAMPLES, pad_samples
from backend.engine.model.prompts import PreparedPrompt, embed
from backend.errors import EngineFailure
from backend.serving.protocols import Passage

AUDIO = 9
PROMPTS = [
    PreparedPrompt(torch.tensor([1, AUDIO, AUDIO, AUDIO, 2, 3]), 1, 3, torch.arange(20.0).view(5, 4)),
    PreparedPrompt(torch.tensor([1, 2, AUDIO, AUDIO]), 2, 2, torch.arange(20.0, 35).view(5, 3)),
]


class CountingDecoder:
    """Embeds a token as its own number."""

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., None].expand(-1, -1, 2).float().contiguous()


def model_on(device: str) -> Any:
    """Its encoder keeps what it was `given`, and numbers its tokens from 100 on."""

    def encode(mels: torch.Tensor, frames: list[int]) -> torch.Tensor:
        model.given = mels, frames
        return torch.arange(100.0, 105, device=device)[:, None].expand(-1, 2)

    model = SimpleNamespace(thinker=SimpleNamespace(audio_tower=encode), device=torch.device(device), given=None)
    return model


def test_the_audio_takes_the_place_of_its_tokens_in_order() -> None:
    model = model_on("cpu")
    embedded = embed(model, CountingDecoder(), PROMPTS)  # type: ignore[arg-type]
    assert embedded[..., 0].tolist() == [[1, 100, 101, 102, 2, 3], [1, 2, 103, 104, 0, 0]]
    assert torch.equal(embedded[..., 0], embedded[..., 1])
    mels, frames = model.given
    assert frames == [4, 3]
    assert torch.equal(mels, torch.cat([prompt.mel for prompt in PROMPTS], dim=1))


def test_it_never_waits_for_the_device() -> None:
    """Meta stands for a GPU: what needs a value from there is an error."""
    embedded = embed(model_on("meta"), CountingDecoder(), PROMPTS)  # type: ignore[arg-type]
    assert embedded.is_meta
    assert embedded.shape == (2, 6, 2)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 7_999, 8_000, 16_000, 80_161, 240_000])
def test_a_prepared_prompt_is_what_the_packages_processor_makes_of_the_clip_alone(
    recognizer, package_processor, clips, samples
) -> None:
    utterance = replace(clips[0], samples=clips[0].samples[:samples], prompt="fox and dog")
    prompt = recognizer.prepare(utterance).prepared
    wanted = package_processor(
        text=[recognizer._prompt(utterance)], audio=[pad_samples(utterance.samples)], return_tensors="pt", padding=True
    )
    assert torch.equal(prompt.ids, wanted["input_ids"][0])
    assert torch.equal(prompt.mel, wanted["input_features"][0][:, : int(wanted["feature_attention_mask"].sum())])
    is_audio = prompt.ids == recognizer.model.config.audio_token
    assert is_audio.nonzero().flatten().tolist() == [
        *range(prompt.audio_start, prompt.audio_start + prompt.audio_tokens)
    ]


@pytest.mark.slow
def test_what_was_prepared_is_not_prepared_again_and_changes_no_answer(monkeypatch, recognizer, aligner, clips) -> None:
    passage = Passage(clips[0].samples, "The quick brown fox.", "en")
    plain = recognizer.recognize(clips[:3]), aligner.align([passage])
    prepared = [recognizer.prepare(clip) for clip in clips[:3]], [aligner.prepare(passage)]
    for model in (recognizer, aligner):
        monkeypatch.setattr(model._preparer, "prepare", None)
    assert (recognizer.recognize(prepared[0]), aligner.align(prepared[1])) == plain


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "<|audio_pad|><|audio_pad|>"])
def test_other_than_one_audio_token_is_an_error_that_says_so(recognizer, clips, text: str) -> None:
    with pytest.raises(EngineFailure, match=r"holds [02] audio tokens instead of one"):
        recognizer._preparer.prepare(text, clips[0].samples)


def test_silence_is_appended_to_what_is_shorter_than_half_a_second() -> None:
    samples = np.ones(5, np.float32)
    assert pad_samples(samples).tolist() == [1] * 5 + [0] * (MIN_SAMPLES - 5)
