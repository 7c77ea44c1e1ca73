"""Prompts with audio: the encoder's output in its place, without waiting for the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.engine.model.prompts import embed_prompts
from backend.errors import EngineFailure

AUDIO = 9


class CountingDecoder:
    """Embeds a token as its own number."""

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., None].expand(-1, -1, 2).float().contiguous()


def thinker_on(device: str, audio_tokens: int) -> Any:
    """Its encoder keeps what it was `given`, and numbers its tokens from 100 on."""

    def encode(mels: torch.Tensor, frames: list[int]) -> torch.Tensor:
        thinker.given = mels, frames
        return torch.arange(100.0, 100 + audio_tokens, device=device)[:, None].expand(-1, 2)

    thinker = SimpleNamespace(audio_tower=encode, config=SimpleNamespace(audio_token_id=AUDIO), given=None)
    return thinker


def inputs() -> dict[str, torch.Tensor]:
    """Two prompts of six tokens, the second padded; with three and two audio tokens, of 4 and 3 frames."""
    return {
        "input_ids": torch.tensor([[1, AUDIO, AUDIO, AUDIO, 2, 3], [1, 2, AUDIO, AUDIO, 0, 0]]),
        "input_features": torch.arange(2 * 5 * 4.0).view(2, 5, 4),
        "feature_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }


def test_the_audio_takes_the_place_of_its_placeholders_in_order() -> None:
    thinker, given = thinker_on("cpu", 5), inputs()
    embedded = embed_prompts(thinker, CountingDecoder(), given)  # type: ignore[arg-type]
    assert embedded[..., 0].tolist() == [[1, 100, 101, 102, 2, 3], [1, 2, 103, 104, 0, 0]]
    assert torch.equal(embedded[..., 0], embedded[..., 1])
    mels, frames = thinker.given
    assert frames == [4, 3]
    assert torch.equal(mels, torch.cat([given["input_features"][0], given["input_features"][1, :, :3]], dim=1))


def test_it_never_waits_for_the_device() -> None:
    """Meta stands for a GPU: what needs a value from there is an error."""
    embedded = embed_prompts(thinker_on("meta", 5), CountingDecoder(), inputs())  # type: ignore[arg-type]
    assert embedded.is_meta
    assert embedded.shape == (2, 6, 2)


@pytest.mark.parametrize("audio_tokens", [1, 4, 6])
def test_other_audio_than_the_prompts_have_places_for_is_an_error(audio_tokens: int) -> None:
    with pytest.raises(EngineFailure, match=f"5 audio placeholders for {audio_tokens} audio tokens"):
        embed_prompts(thinker_on("cpu", audio_tokens), CountingDecoder(), inputs())  # type: ignore[arg-type]
