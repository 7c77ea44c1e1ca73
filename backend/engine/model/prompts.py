"""Prompts with audio: texts and samples to the embeddings that the decoder prefills.

The package's processor computes the mel features and tokenizes the text, with one placeholder token for each audio
token; the encoder's output then takes the placeholders' places. Recogniser and aligner share this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.engine.model.decoder import Decoder
from backend.engine.ops.device import mel_device
from backend.engine.ops.transfer import send
from backend.errors import EngineFailure
from backend.serving.protocols import SAMPLE_RATE

MIN_SAMPLES = SAMPLE_RATE // 2  # half a second, as in the package: the encoder was trained on no less


def prompt_inputs(model: Any, processor: Any, texts: Sequence[str], clips: Sequence[NDArray[np.float32]]) -> Any:
    """The processor's inputs for a batch, padded on the right. They stay on the host, which decides by their values.

    texts: with one audio placeholder each; clips: (n,) float32 at 16 kHz. Call it with `default_dtype_lock` held: the
    mel filter bank is computed in the default dtype.
    """
    return processor(
        text=list(texts),
        audio=[pad_samples(samples) for samples in clips],
        return_tensors="pt",
        padding=True,
        padding_side="right",
        audio_kwargs={"device": mel_device(model.device)},
    )


def embed_prompts(thinker: Any, decoder: Decoder, inputs: Any) -> torch.Tensor:
    """The embeddings of `inputs`, the audio in its place: (rows, longest, hidden). `thinker`: after `load_weights`.

    `inputs`: of `prompt_inputs`, on the host. It does not wait for the device. Raises EngineFailure where the prompts
    have not as many placeholders as there are audio tokens.
    """
    tokens = inputs["input_ids"]
    frames = inputs["feature_attention_mask"].sum(dim=1).tolist()
    # one call for all clips, without padding between them
    packed = torch.cat([mel[:, :length] for mel, length in zip(inputs["input_features"], frames, strict=True)], 1)
    audio = thinker.audio_tower(packed, frames)
    places = torch.nonzero(tokens.flatten() == thinker.config.audio_token_id)[:, 0]
    if len(places) != len(audio):
        raise EngineFailure(
            f"qwen-asr: the prompts hold {len(places)} audio placeholders for {len(audio)} audio tokens; the "
            "checkpoint's tokenizer and model do not fit each other, fetch it again"
        )
    embedded = decoder.embed(send(tokens, audio.device))
    embedded.view(-1, embedded.shape[-1]).index_copy_(0, send(places, audio.device), audio.to(embedded.dtype))
    return embedded


def pad_samples(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At least MIN_SAMPLES: silence is appended to what is shorter."""
    return samples if samples.size >= MIN_SAMPLES else np.pad(samples, (0, MIN_SAMPLES - samples.size))
