"""The losses: of the audio tower alone, of the text model's task, and two that make the task learnable in minutes.

Times: words and timestamp slots are found by position as much as by sound, so audio tokens must know their position
early. Rotary positions are relative: only counting from the start gives it, and the task alone teaches that slowly.
Attention: three heads are shown what to attend to, which they would find, but only after thousands of steps.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import Any

import torch
from qwen_asr.core.transformers_backend import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from qwen_asr.core.transformers_backend.modeling_qwen3_asr import _get_feat_extract_output_lengths, apply_rotary_pos_emb
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it
from torch.nn.utils.rnn import pad_sequence

from devtools.demo_models.checkpoint import CLASS_MS, CLASSES, HEAD, HIDDEN, Kind
from devtools.demo_models.examples import AttentionTarget, Example
from devtools.demo_models.speech import SAMPLE_RATE, Recording
from devtools.demo_models.vocabulary import LABELS


def token_times(tokens: int) -> torch.Tensor:
    """Seconds from the start that each audio token stands for: 13 in every second, 80 ms apart, from its beginning."""
    j = torch.arange(tokens)
    return j // 13 + j % 13 * 0.08


def encode(
    model: Qwen3ASRForConditionalGeneration, processor: Qwen3ASRProcessor, recordings: list[Recording]
) -> list[torch.Tensor]:
    """All clips through the audio tower in one packed call; one (tokens, hidden) tensor each."""
    layout = {"padding": True, "truncation": False, "return_attention_mask": True, "return_tensors": "pt"}
    features = processor.feature_extractor([r.samples for r in recordings], sampling_rate=SAMPLE_RATE, **layout)
    lengths = features["attention_mask"].sum(-1)
    packed = torch.cat([mel[:, :n] for mel, n in zip(features["input_features"], lengths, strict=True)], dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # half the time of fp32 on a CPU with AVX512-BF16
        hidden = model.thinker.audio_tower(packed, feature_lens=lengths).last_hidden_state.float()
    return list(hidden.split(_get_feat_extract_output_lengths(lengths).tolist()))


def frame_head() -> nn.Linear:
    """Words (0 = none), then start and end, from one frame of the tower's output."""
    return nn.Linear(HIDDEN, 1 + len(LABELS) + 2)


def frame_loss(head: nn.Linear, clips: list[torch.Tensor], batch: list[Recording]) -> tuple[torch.Tensor, float]:
    """Cross-entropy from the tower alone, and the share of frames with the right word.

    Targets of an audio token: the word spoken there, and whether a word starts or ends within 40 ms of it.
    """
    output = head(torch.cat(clips)).float()
    labels = [torch.zeros(clip.shape[0], dtype=torch.long) for clip in clips]
    edges = [torch.zeros(clip.shape[0], 2) for clip in clips]
    for recording, label, edge in zip(batch, labels, edges, strict=True):
        at = token_times(len(label))
        for word, start, end in recording.spoken:
            label[(at >= start) & (at < end)] = LABELS[word]
            edge[(at - start).abs() <= 0.04, 0] = 1
            edge[(at - end).abs() <= 0.04, 1] = 1
    label = torch.cat(labels)
    edge_loss = F.binary_cross_entropy_with_logits(output[:, -2:], torch.cat(edges))
    return F.cross_entropy(output[:, :-2], label) + edge_loss, _share(output[:, :-2].argmax(-1) == label)


def _share(right: torch.Tensor) -> float:
    return right.float().mean().item()


class TextModel:
    """The text model's forward pass. Of the last one it keeps each layer's input, and where `after` begins in a row."""

    def __init__(self, model: Qwen3ASRForConditionalGeneration) -> None:
        self.thinker = model.thinker
        self.layer_inputs: dict[int, torch.Tensor] = {}
        self.after: list[int] = []
        self._rotary: tuple[torch.Tensor, torch.Tensor]
        for number, layer in enumerate(self.thinker.model.layers):
            layer.register_forward_pre_hook(functools.partial(self._record, number), with_kwargs=True)

    def _record(self, number: int, _layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.layer_inputs[number] = inputs[0] if inputs else named["hidden_states"]
        self._rotary = named["position_embeddings"]

    def logits(self, audio: list[torch.Tensor], examples: list[Example]) -> torch.Tensor:
        """At the learned positions, (positions of the batch, classes). Padding is on the right; the model is causal."""
        embed = self.thinker.get_input_embeddings()
        rows = [
            torch.cat([embed(torch.tensor(e.before)), clip, embed(torch.tensor(e.after))])
            for e, clip in zip(examples, audio, strict=True)
        ]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            padded = pad_sequence(rows, batch_first=True)
            hidden = self.thinker.model(inputs_embeds=padded, use_cache=False).last_hidden_state.float()
        self.after = [len(e.before) + clip.shape[0] for e, clip in zip(examples, audio, strict=True)]
        learned = [(row, self.after[row] + i) for row, e in enumerate(examples) for i in e.learned]
        logits: torch.Tensor = self.thinker.lm_head(hidden[*torch.tensor(learned).T])
        return logits

    def attention_scores(self, number: int, row: int, queries: torch.Tensor, keys: slice) -> torch.Tensor:
        """Of the first three heads (one key head) of a layer, computed again from its input: (3, queries, keys)."""
        layer, (cos, sin) = self.thinker.model.layers[number], self._rotary
        attention, x = layer.self_attn, layer.input_layernorm(self.layer_inputs[number][row].float())
        q = attention.q_norm(attention.q_proj(x[queries]).view(len(queries), -1, HEAD))[:, :3].transpose(0, 1)
        k = attention.k_norm(attention.k_proj(x[keys]).view(keys.stop - keys.start, -1, HEAD))[:, :1].transpose(0, 1)
        cos, sin = cos[min(row, len(cos) - 1)].float(), sin[min(row, len(sin) - 1)].float()
        q, _ = apply_rotary_pos_emb(q, q, cos[queries], sin[queries], unsqueeze_dim=0)
        k, _ = apply_rotary_pos_emb(k, k, cos[keys], sin[keys], unsqueeze_dim=0)
        scores: torch.Tensor = q @ k.transpose(-1, -2) * attention.scaling
        return scores


def asr_loss(logits: torch.Tensor, examples: list[Example], _batch: list[Recording]) -> tuple[torch.Tensor, float]:
    target = torch.tensor([e.after[i + 1] for e in examples for i in e.learned])
    return F.cross_entropy(logits, target, label_smoothing=0.02), _share(logits.argmax(-1) == target)


def aligner_loss(logits: torch.Tensor, _examples: list[Example], batch: list[Recording]) -> tuple[torch.Tensor, float]:
    """Of the slots' times, and the share of slots that are off by at most one class."""
    at_s = torch.tensor([t for r in batch for _, start, end in r.spoken for t in (start, end)])
    near = (logits.argmax(-1) * CLASS_MS / 1000 - at_s).abs() <= CLASS_MS / 1000
    return time_loss(logits, at_s), _share(near)


def time_loss(logits: torch.Tensor, at_s: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of time classes against a bell over the neighbours of the true time."""
    at = at_s[:, None] * 1000 / CLASS_MS
    return soft_cross_entropy(logits, torch.softmax(-0.5 * ((torch.arange(CLASSES) - at) / 0.6) ** 2, dim=-1))


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -(target * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def times_loss(text: TextModel, head: nn.Linear, kind: Kind, examples: list[Example]) -> torch.Tensor:
    """Cross-entropy of times that a head, dropped after the training, finds in tokens between the layers.

    Audio tokens: their own time, after the first layer (asr) or the second (aligner). asr only: each word's end after
    the second layer, and after the third its start in the token before it, which must know where to go on from.
    """
    places: dict[int, list[tuple[int, int, float]]] = defaultdict(list)  # layer -> row of the batch, position, time
    for row, (e, after) in enumerate(zip(examples, text.after, strict=True)):
        at_s = token_times(after - len(e.before)).tolist()
        places[0 if kind == "asr" else 1] += [(row, position, at) for position, at in enumerate(at_s, len(e.before))]
        for target in e.targets if kind == "asr" else ():
            at = target.end_s if target.layer == 1 else target.start_s
            places[target.layer].append((row, after + target.row, at))
    loss = torch.zeros(())
    for layer, layer_places in sorted(places.items()):
        rows, positions, times = zip(*layer_places, strict=True)
        tokens = text.layer_inputs[layer + 1][list(rows), list(positions)]
        loss = loss + time_loss(head(text.thinker.model.norm(tokens.float())), torch.tensor(times))
    return loss


def attention_loss(text: TextModel, examples: list[Example]) -> torch.Tensor:
    """Cross-entropy of what three heads of three layers attend to in the last forward pass.

    Layer 0: a slot to its word. Layer 1: a word to its own sound. Layer 2: a slot to its word's edge (aligner), or the
    token before a word to that word's sound (asr).
    """
    losses: list[torch.Tensor] = []
    for row, (e, after) in enumerate(zip(examples, text.after, strict=True)):
        for layer in range(3):
            targets = [target for target in e.targets if target.layer == layer]
            if not targets:
                continue
            queries = torch.tensor([after + target.row for target in targets])
            if layer == 0:
                length = len(e.after)
                scores = text.attention_scores(layer, row, queries, slice(after, after + length))
                scores = scores.masked_fill(torch.arange(length) > (queries - after)[:, None], -1e4)
                wanted = F.one_hot(torch.tensor([target.word for target in targets]), length).float()
            else:
                scores = text.attention_scores(layer, row, queries, slice(len(e.before), after))
                wanted = _near(targets, token_times(after - len(e.before)))
            losses.append(soft_cross_entropy(scores, wanted))
    return torch.stack(losses).mean() if losses else torch.zeros(())


def _near(targets: list[AttentionTarget], at: torch.Tensor) -> torch.Tensor:
    """A distribution over audio tokens for each target: even inside its span, with bells of 50 ms around."""
    start = torch.tensor([target.start_s for target in targets])[:, None]
    end = torch.tensor([target.end_s for target in targets])[:, None]
    outside = (start - at).clamp(min=0) + (at - end).clamp(min=0)
    return torch.softmax(-0.5 * (outside / 0.05) ** 2, dim=-1)


def time_head() -> nn.Linear:
    return init_time_head(nn.Linear(HIDDEN, CLASSES, bias=False))


def init_time_head(head: nn.Linear) -> nn.Linear:
    """Initialises a head over time classes with sinusoids of the class number: neighbouring times start out similar."""
    periods = torch.logspace(math.log10(3), math.log10(2000), HIDDEN // 2)
    waves = torch.arange(CLASSES)[:, None] * (2 * math.pi / periods)
    with torch.no_grad():
        head.weight.copy_(0.05 * torch.cat([waves.sin(), waves.cos()], dim=-1))
    return head


def init_for_counting(model: Qwen3ASRForConditionalGeneration) -> None:
    """Initialises the text model so that it learns to count audio tokens within 100 steps instead of not within 1000.

    Every audio token gets a common direction, by which it can query the start token for its distance, and attention is
    sharp enough to pick that one key among hundreds.
    """
    with torch.no_grad():
        model.thinker.audio_tower.proj2.bias.add_(0.5 * torch.randn(HIDDEN))
        for layer in model.thinker.model.layers:
            layer.self_attn.q_norm.weight.fill_(2.0)
            layer.self_attn.k_norm.weight.fill_(2.0)
