"""Prompts with audio: texts and samples to the embeddings that the decoder prefills.

Two steps, which recogniser and aligner share. `prepare` tokenizes the text and computes the mel features, on the host
and for one prompt alone, so any thread can do it before the prompt's turn. `embed` gives a batch of prepared prompts to
the device: the encoder's output takes the places of the audio tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from backend.chat_format.prompt_format import pad_samples
from backend.engine.model.decoder import Decoder
from backend.engine.model.encoder import Encoder
from backend.engine.ops.transfer import send
from backend.engine.processor import Processor
from backend.errors import EngineFailure


@dataclass(frozen=True, eq=False)
class PreparedPrompt:
    """`ids`: (tokens,), of which `audio_tokens` in a row, from `audio_start` on, stand for the audio.

    `mel`: (mels, frames) float32, the mel features. Both in the host's memory.
    """

    ids: torch.Tensor
    audio_start: int
    audio_tokens: int
    mel: torch.Tensor

    def followed_by(self, tokens: Sequence[int]) -> PreparedPrompt:
        """The prompt with the beginning of an answer."""
        return replace(self, ids=torch.cat([self.ids, torch.tensor(tokens, dtype=self.ids.dtype)])) if tokens else self


class PromptPreparer:
    """Prepares the prompts of one model, from any thread."""

    def __init__(self, processor: Processor, encoder: Encoder, audio_token: int) -> None:
        self._features = processor.features
        self._tokenizer = processor.tokenizer
        self._audio_tokens = encoder.token_count
        self._audio_token = audio_token

    def prepare(self, text: str, samples: NDArray[np.float32]) -> PreparedPrompt:
        """text: with one audio token, which is repeated for the audio; samples: (n,) float32 at 16 kHz.

        Raises EngineFailure where the tokenizer makes another number of audio tokens of it.
        """
        mel = self._features(pad_samples(samples))
        count = self._audio_tokens(mel.shape[1])
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if ids.count(self._audio_token) != 1:
            raise EngineFailure(
                f"qwen-asr: the prompt holds {ids.count(self._audio_token)} audio tokens instead of one; the "
                "checkpoint's tokenizer and model do not fit each other, fetch it again"
            )
        start = ids.index(self._audio_token)
        ids[start : start + 1] = [self._audio_token] * count
        return PreparedPrompt(torch.tensor(ids), start, count, mel)


def embed(model: Any, decoder: Decoder, prompts: Sequence[PreparedPrompt]) -> torch.Tensor:
    """The embedded prompts, padded on the right: (rows, longest, hidden). `model`: after `load_weights`.

    Nothing here asks the device for a value.
    """
    ids = pad_sequence([prompt.ids for prompt in prompts], batch_first=True)
    starts = [row * ids.shape[1] + prompt.audio_start for row, prompt in enumerate(prompts)]
    counts = [prompt.audio_tokens for prompt in prompts]
    places = torch.cat([torch.arange(s, s + count) for s, count in zip(starts, counts, strict=True)])
    packed = torch.cat([prompt.mel for prompt in prompts], dim=1)  # one call for all clips, without padding
    audio = model.thinker.audio_tower(packed, [prompt.mel.shape[1] for prompt in prompts])
    embedded = decoder.embed(send(ids, model.device))
    embedded.view(-1, embedded.shape[-1]).index_copy_(0, send(places, model.device), audio.to(embedded.dtype))
    return embedded
