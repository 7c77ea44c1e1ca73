"""Forced alignment: Qwen3-ForcedAligner behind the Aligner protocol.

One forward pass without decode steps. The prompt is the audio, then every word with two `<timestamp>` tokens behind it,
the timestamp slots of its start and its end. At each slot the model scores time classes of 80 ms; monotonic_path finds
the best times that never run backwards. There is no chat template: it would shift every time by 92 ms (vllm-omni
PR 7240).
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from backend.chat_format.spelling import Spelling
from backend.engine.model.aligner_units import UnitSplitter
from backend.engine.model.model_builder import BuiltModel, load_weights, weight_bytes
from backend.engine.model.prompts import PreparedPrompt, PromptPreparer, embed
from backend.engine.ops.device import batching, use_threads
from backend.engine.ops.linear import packed_linear
from backend.errors import CheckpointRefused, NonFiniteCheckpoint, NonFiniteLogits
from backend.sequences.monotonic_path import best_times, certainty, refined
from backend.serving.protocols import SAMPLE_RATE, AlignedUnit, Passage, Token

_log = logging.getLogger(__name__)

_AUDIO = "<|audio_start|><|audio_pad|><|audio_end|>"
_SLOT = "<timestamp>"
_SLOTS = _SLOT * 2  # of a unit's start and end

# Class c stands for the time c × 80 ms. A time may be any class up to the first at or after the passage's end. A slot
# whose best class is the next one, 80 to 160 ms beyond the end, still counts as inside: in noise one time in twenty is
# more than a class off (docs/benchmarks.md), which is no sign that the unit belongs elsewhere. Later ones are outside.
_SLACK_CLASSES = 1


@dataclass(frozen=True)
class PreparedPassage(Passage):
    """A passage with its units and its prompt, ready for the device; without a prompt where there are no units."""

    prepared: PreparedPrompt | None = field(kw_only=True)


class QwenAligner:
    """A loaded Qwen3-ForcedAligner. See serving/protocols.Aligner."""

    def __init__(self, built: BuiltModel, threads: int | None = None) -> None:
        """Reads the weights. Raises CheckpointRefused. `threads`: of the model thread; None: as they are."""
        self._threads = threads
        self.model = model = built.model
        self.processor = built.processor
        self.decoder = load_weights(built, packed_linear)  # prefill only: packed weights are the fastest for that
        self._preparer = PromptPreparer(self.processor, model.thinker.audio_tower, model.config.audio_token)
        self.batching = batching(model.device)
        self.slot_id = _slot_id(built)
        self.class_s = model.config.class_s
        self.weight_bytes = weight_bytes(model) + self.decoder.extra_bytes
        self._spelling = Spelling(self.processor.tokenizer)
        self._splitter = UnitSplitter()
        self._splitter_lock = threading.Lock()  # nagisa, for Japanese, has one computation graph in a process

    def prepare(self, passage: Passage) -> PreparedPassage:
        use_threads(1)  # as in QwenRecognizer.prepare
        return self._prepared(passage)

    def _prepared(self, passage: Passage) -> PreparedPassage:
        if isinstance(passage, PreparedPassage):
            return passage
        units = passage.units or self.units_of(passage.text, passage.language)
        text = _AUDIO + "".join(unit + _SLOTS for unit in units)
        prepared = self._preparer.prepare(text, passage.samples) if units else None  # punctuation alone has no units
        return PreparedPassage(passage.samples, passage.text, passage.language, units, prepared=prepared)

    def units_of(self, text: str, language: str) -> tuple[str, ...]:
        with self._splitter_lock:
            return tuple(self._splitter.split(text, language))

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return self._spelling.tokens_of(text)

    def warm_up(self) -> None:
        """Align a word with noise and discard its times: what a load of an aligner alone ends with.

        As QwenRecognizer.warm_up. Raises CheckpointRefused.
        """
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
        try:
            self.align([Passage(noise, "one", "en")])
        except NonFiniteLogits as error:
            raise NonFiniteCheckpoint(
                "the aligner produced NaN or inf logits at once; fetch the checkpoint again, or set torch_dtype:fp32"
            ) from error
        except Exception as error:  # foreign code: torch and tokenizers, run with files that may not fit each other
            _log.exception("the warm-up failed")
            raise CheckpointRefused(
                f"the checkpoint is loaded, but its first alignment failed ({type(error).__name__}); "
                "its files do not fit each other, or the device has too little memory"
            ) from error

    @torch.inference_mode()
    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        if self._threads is not None:  # where no recogniser of ours has set them
            use_threads(self._threads)
        ready = [self._prepared(passage) for passage in passages]
        prompts = [passage.prepared for passage in ready if passage.prepared]
        if not prompts:
            return [[] for _ in passages]
        is_slot = [prompt.ids == self.slot_id for prompt in prompts]
        embedded = embed(self.model, self.decoder, prompts)
        scores = self.decoder.score_positions(embedded, pad_sequence(is_slot, batch_first=True))
        slots = iter(torch.split(scores, [int(row.sum()) for row in is_slot]))
        return [
            self._decode_times(passage.units, next(slots), passage.samples.size / SAMPLE_RATE)
            if passage.prepared
            else []
            for passage in ready
        ]

    def _decode_times(self, units: Sequence[str], slots: torch.Tensor, duration_s: float) -> list[AlignedUnit]:
        """The units with the best monotonic times inside the passage.

        slots: (2 × units, classes) logits; duration_s: of the passage. Raises NonFiniteLogits.
        """
        classes = min(slots.shape[-1], math.ceil(duration_s / self.class_s) + 1)  # 0 s and the passage's end included
        if not bool(slots.isfinite().all()):
            raise NonFiniteLogits
        logits = slots.float()
        scores: NDArray[np.float32] = torch.log_softmax(logits[:, :classes], dim=-1).cpu().numpy()
        path = best_times(scores)
        times = refined(scores, path) * self.class_s
        inside = torch.logsumexp(logits[:, :classes], dim=-1) - torch.logsumexp(logits, dim=-1)
        sure = certainty(scores + inside.cpu().numpy()[:, None], path).tolist()
        starts, ends = times[0::2].tolist(), times[1::2].tolist()
        is_outside = slots.argmax(dim=-1) >= classes + _SLACK_CLASSES
        outside = is_outside.cpu().reshape(-1, 2).any(dim=1).tolist()
        return [AlignedUnit(*timed) for timed in zip(units, starts, ends, outside, sure, strict=True)]


def _slot_id(built: BuiltModel) -> int:
    """The token of a timestamp slot, by the tokenizer: it decides what the prompt's slots become.

    config.json may name another one, or none (`timestamp_token_id`): transformers writes its default if it is not told.
    Raises CheckpointRefused.
    """
    ids: list[int] = built.processor.tokenizer.encode(_SLOT, add_special_tokens=False).ids
    if len(ids) != 1:
        raise CheckpointRefused(f"the aligner's tokenizer has no token {_SLOT}; its files do not belong to an aligner")
    return ids[0]
