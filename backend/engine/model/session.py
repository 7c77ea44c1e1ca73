"""Utterances that are being recognised together: they come when there is room and leave when they end.

Rules: one token for every row at a step; a row ends at its end token, at its own budget, or where it repeats itself
(loop_detection.py); a row that ended is gone from the next step on. What a row says does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from backend.errors import NonFiniteLogits
from backend.sequences.loop_detection import LOOKED_AT, loops
from backend.serving.protocols import Recognition, Utterance

Encode = Callable[[Sequence[Utterance]], tuple[torch.Tensor, torch.Tensor]]
Read = Callable[[Utterance, list[int], bool, bool], Recognition]

_NONE = -1  # no token


class Decoding(Protocol):
    """What a session computes with: a Decoder, or a GraphedDecoder around one.

    How rows are kept is its own affair; it is only told which of them stay, by their `keep`.
    """

    def prefill(self, embedded: torch.Tensor, lengths: torch.Tensor, rows: Any) -> tuple[torch.Tensor, Any]: ...

    def decode_step(self, tokens: torch.Tensor, rows: Any) -> torch.Tensor: ...


@dataclass(eq=False)
class _Row:
    utterance: Utterance
    said: list[int] = field(default_factory=list)


class QwenSession:
    """See serving/protocols.Session. `encode`: utterances -> embedded prompts, lengths; `read`: tokens -> text."""

    def __init__(self, decoder: Decoding, encode: Encode, read: Read, eos_ids: Sequence[int]) -> None:
        self._decoder = decoder
        self._encode = encode
        self._read = read
        self._eos_ids = frozenset(eos_ids)
        self._rows: list[_Row] = []
        self._cache: Any = None
        self._logits = torch.empty(0)  # (rows, vocabulary): of what each row says next

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def add(self, utterances: Sequence[Utterance]) -> None:
        """More rows. Nothing is changed if this fails; where that is impossible, the next step fails, too."""
        embedded, lengths = self._encode(utterances)
        logits, self._cache = self._decoder.prefill(embedded, lengths, self._cache)
        self._logits = torch.cat([self._logits, logits]) if self._rows else logits
        self._rows += [_Row(utterance) for utterance in utterances]

    @torch.inference_mode()
    def step(self) -> list[tuple[Utterance, Recognition]]:
        """One token more for every row; those that ended, with what they say. Raises NonFiniteLogits."""
        ended = []
        for row, token in zip(self._rows, self._chosen(), strict=True):
            finished = token in self._eos_ids
            if not finished:
                row.said.append(token)
            looped = not finished and loops(row.said[-LOOKED_AT:]) > 0
            if finished or looped or len(row.said) >= row.utterance.max_new_tokens:
                ended.append((row, self._read(row.utterance, row.said, finished, looped)))
        self._leave({row for row, _ in ended})
        if self._rows:
            tokens = torch.tensor([row.said[-1] for row in self._rows], device=self._logits.device)
            self._logits = self._decoder.decode_step(tokens, self._cache)
        return [(row.utterance, recognition) for row, recognition in ended]

    @torch.inference_mode()
    def drop(self, utterance: Utterance) -> None:
        """Nobody waits for this one any more."""
        self._leave({row for row in self._rows if row.utterance is utterance})

    def _chosen(self) -> list[int]:
        """The best token of each row, with what it has said made less likely where that was asked for.

        Raises NonFiniteLogits: the greatest of logits that are none is token 0, said over and over.
        """
        for number, row in enumerate(self._rows):
            penalty = row.utterance.repetition_penalty
            if penalty != 1.0 and row.said:  # arXiv 1909.05858, over the answer alone: the prompt is no repetition
                said = torch.tensor(sorted(set(row.said)), device=self._logits.device)
                logits = self._logits[number, said]
                self._logits[number, said] = torch.where(logits < 0, logits * penalty, logits / penalty)
        best = self._logits.argmax(dim=-1, keepdim=True)  # NaN counts as the greatest
        is_number = self._logits.gather(-1, best).isfinite()
        chosen: list[int] = torch.where(is_number, best, _NONE).flatten().tolist()  # the device is asked once
        if _NONE in chosen:
            raise NonFiniteLogits
        return chosen

    def _leave(self, gone: set[_Row]) -> None:
        if not gone:
            return
        kept = _closed_up([row not in gone for row in self._rows])
        self._rows = [self._rows[number] for number in kept]
        if not kept:
            self._cache, self._logits = None, torch.empty(0)
            return
        self._logits = self._logits[torch.tensor(kept, device=self._logits.device)]
        self._cache.keep(kept)


def _closed_up(stays: Sequence[bool]) -> list[int]:
    """The numbers of those who stay, the last ones in the places of those who go: as few as possible move."""
    kept = [number for number, one in enumerate(stays) if one]
    moving = [number for number in kept if number >= len(kept)]
    return [number if stays[number] else moving.pop() for number in range(len(kept))]
