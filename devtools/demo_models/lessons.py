"""How the text model is taught: its task, and two lessons beside it that make the task learnable in minutes."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from qwen_asr.core.transformers_backend import Qwen3ASRForConditionalGeneration
from qwen_asr.core.transformers_backend.modeling_qwen3_asr import apply_rotary_pos_emb
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it
from torch.nn.utils.rnn import pad_sequence

from devtools.demo_models.checkpoint import CLASS_MS, CLASSES, Kind
from devtools.demo_models.examples import Example
from devtools.demo_models.speech import Recording
from devtools.demo_models.tower import token_times


def ask(model: Qwen3ASRForConditionalGeneration, audio: list[torch.Tensor], examples: list[Example]) -> torch.Tensor:
    """Logits at the asked positions, (asked in all, classes). Padding is on the right; the model is causal."""
    embed = model.thinker.get_input_embeddings()
    rows = [
        torch.cat([embed(torch.tensor(e.before)), clip, embed(torch.tensor(e.after))])
        for e, clip in zip(examples, audio, strict=True)
    ]
    padded = pad_sequence(rows, batch_first=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.thinker.model(inputs_embeds=padded, use_cache=False).last_hidden_state.float()
    asked = [
        hidden[row, torch.tensor(e.asked) + len(e.before) + clip.shape[0]]
        for row, (e, clip) in enumerate(zip(examples, audio, strict=True))
        if e.asked
    ]
    return model.thinker.lm_head(torch.cat(asked))


def asr_loss(logits: torch.Tensor, examples: list[Example], _batch: list[Recording]) -> tuple[torch.Tensor, float]:
    target = torch.tensor([e.after[i + 1] for e in examples for i in e.asked])
    loss = F.cross_entropy(logits, target, label_smoothing=0.02)
    return loss, (logits.argmax(-1) == target).float().mean().item()


def aligner_loss(logits: torch.Tensor, _examples: list[Example], batch: list[Recording]) -> tuple[torch.Tensor, float]:
    """How well the slots tell their times, and the share of them that are off by at most one class."""
    times = [t for r in batch for sentence in r.sentences for _, start, end in sentence for t in (start, end)]
    at_s = torch.tensor(times)
    near = (logits.argmax(-1) * CLASS_MS / 1000 - at_s).abs() <= CLASS_MS / 1000
    return time_loss(logits, at_s), near.float().mean().item()


def time_loss(logits: torch.Tensor, at_s: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of time classes against a bell over the neighbours of the true time."""
    at = at_s[:, None] * 1000 / CLASS_MS
    target = torch.softmax(-0.5 * ((torch.arange(CLASSES) - at) / 0.6) ** 2, dim=-1)
    return -(target * F.log_softmax(logits, dim=-1)).sum(-1).mean()


class Clock:
    """The times that tokens tell of themselves on their way up the text model.

    Words and slots are found by their place as much as by their sound, so audio tokens must know theirs early. Nothing
    but counting from the start tells it (rotary positions are relative), and the task alone teaches that slowly. A
    recogniser's audio tokens tell theirs after the first layer; then each word tells its own end after the second, and
    the token before a word that word's start after the third: it must know where it is to go on from there.
    """

    def __init__(self, model: Qwen3ASRForConditionalGeneration, kind: Kind) -> None:
        self.norm = model.thinker.model.norm
        self.head = numbered_classes(nn.Linear(192, CLASSES, bias=False))  # thrown away after the training
        self.audio_layer = 0 if kind == "asr" else 1
        self.tell_words = kind == "asr"
        self.hidden: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(model.thinker.model.layers[:3]):
            layer.register_forward_hook(functools.partial(self._keep, number))

    def _keep(self, number: int, _layer: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.hidden[number] = output

    def _loss(self, told: list[torch.Tensor], at_s: torch.Tensor) -> torch.Tensor:
        return time_loss(self.head(self.norm(torch.cat(told).float())), at_s)

    def loss(self, clips: list[torch.Tensor], examples: list[Example]) -> torch.Tensor:
        """Cross-entropy of the times that tokens should tell; to be called after `ask`."""
        bases = [len(e.before) for e in examples]
        audio = [
            self.hidden[self.audio_layer][row, base : base + clip.shape[0]]
            for row, (base, clip) in enumerate(zip(bases, clips, strict=True))
        ]
        loss = self._loss(audio, torch.cat([token_times(clip.shape[0]) for clip in clips]))
        for layer in (1, 2) if self.tell_words else ():
            looks = [[look for look in e.looks if look.layer == layer] for e in examples]
            told = [
                self.hidden[layer][row, torch.tensor([look.row for look in some]) + bases[row] + clips[row].shape[0]]
                for row, some in enumerate(looks)
                if some
            ]
            at = [look.end_s if layer == 1 else look.start_s for some in looks for look in some]
            loss = loss + (self._loss(told, torch.tensor(at)) if told else 0.0)
        return loss


class Guide:
    """Shows three heads of three layers where to look, which they would find, but only after thousands of steps.

    Layer 0: a slot at its word. Layer 1: a word at its own sound. Layer 2: a slot at its word's edge (aligner), or the
    token before a word at that word's sound (asr). The scores are recomputed from what enters the layer.
    """

    def __init__(self, model: Qwen3ASRForConditionalGeneration) -> None:
        self.layers = list(model.thinker.model.layers[:3])
        self.seen: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
        for number, layer in enumerate(self.layers):
            layer.register_forward_pre_hook(functools.partial(self._keep, number), with_kwargs=True)

    def _keep(self, number: int, _layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.seen[number] = (inputs[0] if inputs else named["hidden_states"], named["position_embeddings"])

    def _scores(self, number: int, row: int, queries: torch.Tensor, keys: slice) -> torch.Tensor:
        """Attention scores of the first three heads (one key head), (3, queries, keys)."""
        layer, (hidden, (cos, sin)) = self.layers[number], self.seen[number]
        attention, x = layer.self_attn, layer.input_layernorm(hidden[row].float())
        q = attention.q_norm(attention.q_proj(x[queries]).view(len(queries), -1, 32))[:, :3].transpose(0, 1)
        k = attention.k_norm(attention.k_proj(x[keys]).view(keys.stop - keys.start, -1, 32))[:, :1].transpose(0, 1)
        cos, sin = cos[min(row, len(cos) - 1)].float(), sin[min(row, len(sin) - 1)].float()
        q, _ = apply_rotary_pos_emb(q, q, cos[queries], sin[queries], unsqueeze_dim=0)
        k, _ = apply_rotary_pos_emb(k, k, cos[keys], sin[keys], unsqueeze_dim=0)
        return q @ k.transpose(-1, -2) * attention.scaling

    def loss(self, clips: list[torch.Tensor], examples: list[Example]) -> torch.Tensor:
        """Cross-entropy of where the heads look; to be called after `ask`."""
        losses: list[torch.Tensor] = []
        for row, (e, clip) in enumerate(zip(examples, clips, strict=True)):
            begin, tokens = len(e.before), clip.shape[0]
            base = begin + tokens
            for number in range(3):
                looks = [look for look in e.looks if look.layer == number]
                if not looks:
                    continue
                queries = torch.tensor([base + look.row for look in looks])
                if number == 0:
                    scores = self._scores(0, row, queries, slice(base, base + len(e.after)))
                    later = torch.arange(len(e.after)) > (queries - base)[:, None]
                    wanted = F.one_hot(torch.tensor([look.word for look in looks]), len(e.after)).float()
                    losses.append(-(wanted * F.log_softmax(scores.masked_fill(later, -1e4), -1)).sum(-1).mean())
                    continue
                scores = self._scores(number, row, queries, slice(begin, base))
                at = token_times(tokens)
                start = torch.tensor([look.start_s for look in looks])[:, None]
                end = torch.tensor([look.end_s for look in looks])[:, None]
                outside = (start - at).clamp(min=0) + (at - end).clamp(min=0)
                wanted = torch.softmax(-0.5 * (outside / 0.05) ** 2, dim=-1)
                losses.append(-(wanted * F.log_softmax(scores, -1)).sum(-1).mean())
        return torch.stack(losses).mean() if losses else torch.zeros(())


def numbered_classes(head: nn.Linear) -> nn.Linear:
    """The head over time classes, started as waves over their number: neighbouring times look alike from the start."""
    waves = torch.arange(CLASSES)[:, None] * (2 * math.pi / torch.logspace(math.log10(3), math.log10(2000), 96))
    with torch.no_grad():
        head.weight.copy_(0.05 * torch.cat([waves.sin(), waves.cos()], dim=-1))
    return head


def made_to_count(model: Qwen3ASRForConditionalGeneration) -> None:
    """Start the text model where counting is easy to learn: in 100 steps to every class, instead of not in 1000.

    Every audio token gets a common direction, by which it can ask the start how far it is, and attention is sharp
    enough from the start to single that one token out among hundreds.
    """
    with torch.no_grad():
        model.thinker.audio_tower.proj2.bias.add_(0.5 * torch.randn(192))
        for layer in model.thinker.model.layers:
            layer.self_attn.q_norm.weight.fill_(2.0)
            layer.self_attn.k_norm.weight.fill_(2.0)
