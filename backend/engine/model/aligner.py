"""Qwen3-ForcedAligner behind the Aligner protocol.

One forward pass: the audio, then every word with two `<timestamp>` slots behind it; each slot scores the classes of
80 ms that its time may lie in, and monotonic_path reads the times from the scores. No chat template: it would shift
every time by 92 ms (vllm-omni PR 7240).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from backend.engine.model.aligner_units import UnitSplitter
from backend.engine.model.recognizer import Loaded, default_dtype, padded, take_over, weight_bytes, with_sound
from backend.engine.ops.device import max_prefill_s, mel_device
from backend.engine.ops.linear import packed_linear
from backend.errors import NonFiniteLogits
from backend.sequences.monotonic_path import best_times, refined
from backend.serving.protocols import AlignedUnit, Passage

_SAMPLE_RATE = 16_000
_AUDIO = "<|audio_start|><|audio_pad|><|audio_end|>"
_SLOTS = "<timestamp><timestamp>"  # a unit's start and end


class QwenAligner:
    """A loaded Qwen3-ForcedAligner. See serving/protocols.Aligner."""

    def __init__(self, loaded: Loaded) -> None:
        self.model = model = loaded.model
        self.processor = loaded.processor
        self.decoder = take_over(loaded, packed_linear)  # it has no steps
        self.max_prefill_s = max_prefill_s(model.device)
        self.slot_id = int(model.config.timestamp_token_id)
        self.class_s = float(model.config.timestamp_segment_time) / 1000
        self.weight_bytes = weight_bytes(model) + self.decoder.extra_bytes
        self._splitter = UnitSplitter()

    @torch.inference_mode()
    def align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        with default_dtype:
            return self._align(passages)

    def _align(self, passages: Sequence[Passage]) -> list[list[AlignedUnit]]:
        split = [p.units or self._splitter.split(p.text, p.language) for p in passages]
        spoken = [i for i, units in enumerate(split) if units]  # text of punctuation alone has no units
        aligned: list[list[AlignedUnit]] = [[] for _ in passages]
        if not spoken:
            return aligned
        inputs = self.processor(
            text=[_AUDIO + "".join(unit + _SLOTS for unit in split[i]) for i in spoken],
            audio=[padded(passages[i].samples) for i in spoken],
            return_tensors="pt",
            padding=True,
            padding_side="right",
            audio_kwargs={"device": mel_device(self.model.device)},
        )
        inputs = inputs.to(self.model.device).to(self.model.dtype)
        slots = inputs["input_ids"] == self.slot_id
        scores = self.decoder.score(with_sound(self.model.thinker, self.decoder, inputs), slots)
        for i, scored in zip(spoken, torch.split(scores, slots.sum(dim=1).tolist()), strict=True):
            aligned[i] = self._timed(split[i], scored, passages[i].samples.size / _SAMPLE_RATE)
        return aligned

    def _timed(self, units: Sequence[str], slots: torch.Tensor, duration_s: float) -> list[AlignedUnit]:
        """Units with the best monotone times inside the passage. slots: (2 × units, classes) logits.

        Raises NonFiniteLogits.
        """
        classes = min(slots.shape[-1], math.ceil(duration_s / self.class_s) + 1)
        if not bool(slots.isfinite().all()):
            raise NonFiniteLogits
        scores: NDArray[np.float32] = torch.log_softmax(slots[:, :classes].float(), dim=-1).cpu().numpy()
        times = refined(scores, best_times(scores)) * self.class_s
        starts, ends = times[0::2].tolist(), times[1::2].tolist()
        outside = (slots.argmax(dim=-1) > classes).cpu().reshape(-1, 2).any(dim=1).tolist()
        return [AlignedUnit(*timed) for timed in zip(units, starts, ends, outside, strict=True)]
