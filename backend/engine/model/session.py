"""Continuous batching with greedy decoding: the utterances that are recognised together.

Utterances join between two steps and leave when their answers end. Rules:

- A step generates one token for every row.
- A row ends at an end-of-sequence token, at its own token budget, or when it repeats itself
  (sequences/loop_detection.py), and is removed before the next decode step.
- The tokens of a row do not depend on the other rows of the batch.
- Nor do they depend on its draft (greedy speculative decoding, arXiv 2211.17192, with a draft that costs nothing): the
  prefill has the logits of every place in the draft, and the row goes on at the first that has another token.
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

    A session knows nothing of their caches but `select_rows`, by which it keeps the rows that go on, and `shorten`, by
    which it drops what a draft had wrong.
    """

    def prefill(
        self, embedded: torch.Tensor, lengths: Sequence[int], cache: Any, outputs: Sequence[int] | None, /
    ) -> tuple[torch.Tensor, Any]: ...

    def decode_step(self, tokens: torch.Tensor, cache: Any, /) -> torch.Tensor: ...


@dataclass(eq=False)
class _Row:
    utterance: Utterance
    generated: list[int] = field(default_factory=list)


class QwenSession:
    """See serving/protocols.Session.

    `encode`: utterances -> embedded prompts with their drafts (rows, longest, hidden), and the length of each, drafts
    included. `parse_answer`:
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
        drafts = [len(utterance.draft) for utterance in utterances]
        outputs = [draft + 1 for draft in drafts] if any(drafts) else None
        logits, self._cache = self._decoder.prefill(embedded, lengths, self._cache, outputs)
        rows = [_Row(utterance) for utterance in utterances]
        if outputs is not None:
            of_rows = torch.split(logits, outputs)
            confirmed = [self._confirmed(row.utterance, places) for row, places in zip(rows, of_rows, strict=True)]
            for row, count in zip(rows, confirmed, strict=True):
                row.generated += row.utterance.draft[:count]
            ends = zip(lengths, drafts, confirmed, strict=True)
            self._cache.shorten([length - draft + count for length, draft, count in ends])
            logits = torch.stack([places[count] for places, count in zip(of_rows, confirmed, strict=True)])
        self._logits = torch.cat([self._logits, logits]) if self._rows else logits
        self._rows += rows

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
        """The most likely next token of each row, after its repetition penalty: (rows,), see `_most_likely`."""
        for number, row in enumerate(self._rows):
            if row.utterance.repetition_penalty != 1.0:
                _penalise_repetitions(self._logits[number], row.generated, row.utterance.repetition_penalty)
        return _most_likely(self._logits)

    def _confirmed(self, utterance: Utterance, logits: torch.Tensor) -> int:
        """How many tokens of the draft the answer begins with. `logits`: (tokens of the draft + 1, vocabulary).

        A token that ends the answer is none of them: the next step generates it, and ends the row by its rules.
        """
        draft, penalty = utterance.draft, utterance.repetition_penalty
        if penalty != 1.0:
            logits = logits.clone()  # the step penalises those that it takes
            for place, of_place in enumerate(logits):
                _penalise_repetitions(of_place, draft[:place], penalty)
        most = min(len(draft), utterance.max_new_tokens - 1)
        for place, token in enumerate(_most_likely(logits).tolist()[:most]):
            is_law = place < utterance.fixed
            is_last = token in self._eos_ids or loops(draft[: place + 1][-WINDOW_TOKENS:]) > 0
            if not is_law and (is_last or token != draft[place]):
                return place
        return most

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


def _most_likely(logits: torch.Tensor) -> torch.Tensor:
    """The most likely token of each place: (places, vocabulary) -> (places,).

    _NON_FINITE in place of a token: argmax over NaN would return token 0 at every step.
    """
    best = logits.argmax(dim=-1, keepdim=True)  # argmax takes NaN for the greatest
    return torch.where(logits.gather(-1, best).isfinite(), best, _NON_FINITE).flatten()


def _penalise_repetitions(logits: torch.Tensor, generated: Sequence[int], penalty: float) -> None:
    """CTRL's repetition penalty (arXiv 1909.05858), over the answer only: the prompt is not a repetition.

    logits: (vocabulary,), changed in place.
    """
    if generated:
        repeated = torch.tensor(sorted(set(generated)), device=logits.device)
        values = logits[repeated]
        logits[repeated] = torch.where(values < 0, values * penalty, values / penalty)


def _compacted(is_kept: Sequence[bool]) -> list[int]:
    """The rows that are kept, in a new order: the last ones fill the gaps, so that as few as possible move."""
    kept = [number for number, one in enumerate(is_kept) if one]
    movable = [number for number in kept if number >= len(kept)]
    return [number if is_kept[number] else movable.pop() for number in range(len(kept))]
