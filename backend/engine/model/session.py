"""Continuous batching with greedy decoding: the utterances that are recognised together.

Utterances join between two steps and leave when their answers end. Rules:

- A step generates one token for every row.
- A row ends at an end-of-sequence token, at its own token budget, or when it repeats itself
  (sequences/loop_detection.py), and is removed before the next decode step.
- The tokens of a row do not depend on the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from backend.errors import NonFiniteLogits
from backend.sequences.loop_detection import WINDOW_TOKENS, loops
from backend.serving.protocols import Recognition, Utterance

Encode = Callable[[Sequence[Utterance]], tuple[torch.Tensor, list[int]]]
ParseAnswer = Callable[[Utterance, list[int], bool, bool], Recognition]

_NON_FINITE = -1  # in place of a token


class SessionDecoder(Protocol):
    """What a session decodes with: a Decoder, or a GraphedDecoder around one.

    A session knows nothing of their caches but `select_rows`, by which it keeps the rows that go on.
    """

    def prefill(self, embedded: torch.Tensor, lengths: Sequence[int], cache: Any, /) -> tuple[torch.Tensor, Any]: ...

    def decode_step(self, tokens: torch.Tensor, cache: Any, /) -> torch.Tensor: ...


@dataclass(eq=False)
class _Row:
    utterance: Utterance
    generated: list[int] = field(default_factory=list)


class QwenSession:
    """See serving/protocols.Session.

    `encode`: utterances -> embedded prompts (rows, longest, hidden) and the length of each. `parse_answer`:
    (utterance, generated tokens, ended by an end token, stopped in a loop) -> its Recognition.
    """

    def __init__(
        self, decoder: SessionDecoder, encode: Encode, parse_answer: ParseAnswer, eos_ids: Sequence[int]
    ) -> None:
        self._decoder = decoder
        self._encode = encode
        self._parse_answer = parse_answer
        self._eos_ids = frozenset(eos_ids)
        self._rows: list[_Row] = []
        self._cache: Any = None
        self._logits = torch.empty(0)  # of each row's next token, (rows, vocabulary)

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def add(self, utterances: Sequence[Utterance]) -> None:
        """Prefill the prompts of more utterances.

        If that fails, the rows from before go on as if nothing had happened, or, where that is impossible, the next
        step fails as well.
        """
        embedded, lengths = self._encode(utterances)
        logits, self._cache = self._decoder.prefill(embedded, lengths, self._cache)
        self._logits = torch.cat([self._logits, logits]) if self._rows else logits
        self._rows += [_Row(utterance) for utterance in utterances]

    @torch.inference_mode()
    def step(self) -> list[tuple[Utterance, Recognition]]:
        """Generate one token for every row. Returns the utterances whose answers ended. Raises NonFiniteLogits."""
        best = self._next_tokens()
        tokens: list[int] = best.tolist()  # the one wait for the device
        if _NON_FINITE in tokens:
            raise NonFiniteLogits
        ended = []
        for row, token in zip(self._rows, tokens, strict=True):
            finished = token in self._eos_ids
            if not finished:
                row.generated.append(token)
            looped = not finished and loops(row.generated[-WINDOW_TOKENS:]) > 0
            if finished or looped or len(row.generated) >= row.utterance.max_new_tokens:
                ended.append((row, self._parse_answer(row.utterance, row.generated, finished, looped)))
        kept = self._remove({row for row, _ in ended})
        if self._rows:  # the tokens are on the device already
            self._logits = self._decoder.decode_step(best if kept is None else best[kept], self._cache)
        for row in self._rows:  # on a GPU, while it computes
            if row.utterance.listener is not None:
                row.utterance.listener(tuple(row.generated))
        return [(row.utterance, recognition) for row, recognition in ended]

    @torch.inference_mode()
    def drop(self, utterance: Utterance) -> None:
        """Remove an utterance whose result is no longer wanted."""
        kept = self._remove({row for row in self._rows if row.utterance is utterance})
        if kept is not None:
            self._logits = self._logits[kept]

    def _next_tokens(self) -> torch.Tensor:
        """The most likely next token of each row, after its repetition penalty: (rows,).

        _NON_FINITE in place of a token: argmax over NaN would return token 0 at every step.
        """
        self._penalise_repetitions()
        best = self._logits.argmax(dim=-1, keepdim=True)  # argmax takes NaN for the greatest
        is_finite = self._logits.gather(-1, best).isfinite()
        return torch.where(is_finite, best, _NON_FINITE).flatten()

    def _penalise_repetitions(self) -> None:
        """CTRL's repetition penalty (arXiv 1909.05858), over the answer only: the prompt is not a repetition."""
        for number, row in enumerate(self._rows):
            penalty = row.utterance.repetition_penalty
            if penalty != 1.0 and row.generated:
                repeated = torch.tensor(sorted(set(row.generated)), device=self._logits.device)
                logits = self._logits[number, repeated]
                self._logits[number, repeated] = torch.where(logits < 0, logits * penalty, logits / penalty)

    def _remove(self, removed: set[_Row]) -> torch.Tensor | None:
        """Remove rows from the batch and the cache. Returns the numbers of those that are kept, None without a change.

        The caller selects them from what else has a row for each: where a step follows, that is not the logits.
        """
        if not removed:
            return None
        kept = _compacted([row not in removed for row in self._rows])
        self._rows = [self._rows[number] for number in kept]
        if kept:
            self._cache.select_rows(kept)
        else:
            self._cache, self._logits = None, torch.empty(0)
        return torch.tensor(kept, dtype=torch.long, device=self._logits.device)


def _compacted(is_kept: Sequence[bool]) -> list[int]:
    """The rows that are kept, in a new order: the last ones fill the gaps, so that as few as possible move."""
    kept = [number for number, one in enumerate(is_kept) if one]
    movable = [number for number in kept if number >= len(kept)]
    return [number if is_kept[number] else movable.pop() for number in range(len(kept))]
