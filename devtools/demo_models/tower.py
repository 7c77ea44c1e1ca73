"""The audio tower: how a batch of recordings goes through it, and what it learns frame by frame."""

from __future__ import annotations

import numpy as np
import torch
from qwen_asr.core.transformers_backend import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from devtools.demo_models.speech import SAMPLE_RATE, Recording
from devtools.demo_models.vocabulary import LABELS, WORDS


def token_times(tokens: int) -> torch.Tensor:
    """Seconds from the start that each audio token stands for: 13 in every second, 80 ms apart, from its beginning."""
    j = torch.arange(tokens)
    return j // 13 + j % 13 * 0.08


def tokens_of(frames: int) -> int:
    """Audio tokens of a clip: 13 for each full second of mel frames, the rest through three stride-2 convolutions."""
    rest = frames % 100
    for _ in range(3):
        rest = (rest - 1) // 2 + 1
    return frames // 100 * 13 + rest


def encode(
    model: Qwen3ASRForConditionalGeneration, processor: Qwen3ASRProcessor, recordings: list[Recording]
) -> list[torch.Tensor]:
    """All clips through the audio tower in one packed call; one (tokens, hidden) tensor each."""
    features = processor.feature_extractor(
        [r.samples for r in recordings],
        sampling_rate=SAMPLE_RATE,
        padding=True,
        truncation=False,
        return_attention_mask=True,
        return_tensors="pt",
    )
    lengths = features["attention_mask"].sum(-1)
    packed = torch.cat([mel[:, :n] for mel, n in zip(features["input_features"], lengths, strict=True)], dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # half the time of fp32 on a CPU with AVX512-BF16
        hidden = model.thinker.audio_tower(packed, feature_lens=lengths).last_hidden_state.float()
    return list(hidden.split([tokens_of(n) for n in lengths.tolist()]))


def frame_targets(recording: Recording, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Per audio token: the word spoken there (0 = none), and whether a word starts or ends within 40 ms of it."""
    at = token_times(tokens).numpy()
    label = np.zeros(tokens, np.int64)
    edge = np.zeros((tokens, 2), np.float32)
    for sentence in recording.sentences:
        for word, start, end in sentence:
            label[(at >= start) & (at < end)] = LABELS[word]
            edge[np.abs(at - start) <= 0.04, 0] = 1
            edge[np.abs(at - end) <= 0.04, 1] = 1
    return torch.from_numpy(label), torch.from_numpy(edge)


def frame_head() -> nn.Linear:
    """Words (0 = none), then start and end, from one frame of the tower's output."""
    return nn.Linear(192, 1 + sum(map(len, WORDS.values())) + 2)


def frame_loss(head: nn.Linear, clips: list[torch.Tensor], batch: list[Recording]) -> tuple[torch.Tensor, float]:
    """How well the tower alone tells words and their edges, and the share of frames that it gets right."""
    output = head(torch.cat(clips)).float()
    targets = (frame_targets(r, clip.shape[0]) for r, clip in zip(batch, clips, strict=True))
    labels, edges = (torch.cat(parts) for parts in zip(*targets, strict=True))
    loss = F.cross_entropy(output[:, :-2], labels) + F.binary_cross_entropy_with_logits(output[:, -2:], edges)
    return loss, (output[:, :-2].argmax(-1) == labels).float().mean().item()
