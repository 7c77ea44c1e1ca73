"""The aligner against the package's own model of the same checkpoint."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest
import torch

from backend.errors import NonFiniteLogits
from backend.serving.protocols import Passage


def test_a_batch_is_scored_as_by_the_package(monkeypatch, aligner, package_of, aligner_folder, demo) -> None:
    samples, truth = demo
    words = tuple(word for word, _, _ in truth["words"])
    passages = [
        Passage(samples, "", "en", words),
        Passage(samples[: len(samples) // 3], "", "en", words[: len(words) // 3]),
        Passage(samples[8000:], "", "en", words[1:]),
    ]
    inputs: list[Any] = []
    scores: list[torch.Tensor] = []
    processor, timed = aligner.processor, aligner._timed
    monkeypatch.setattr(aligner, "processor", lambda **asked: inputs.append(processor(**asked)) or inputs[0])
    monkeypatch.setattr(aligner, "_timed", lambda units, found, s: scores.append(found) or timed(units, found, s))
    aligner.align(passages)
    with torch.inference_mode():
        wanted = package_of(aligner_folder).thinker(**inputs[0], use_cache=False).logits
    for found, row, ids in zip(scores, wanted, inputs[0]["input_ids"], strict=True):
        torch.testing.assert_close(found, row[ids == aligner.slot_id], atol=2e-3, rtol=1e-3)


def test_scores_that_are_no_numbers_are_no_times(monkeypatch, aligner, demo) -> None:
    samples, _ = demo
    score = aligner.decoder.score
    monkeypatch.setattr(aligner.decoder, "score", lambda *asked: score(*asked).index_fill_(1, torch.tensor([3]), nan))
    with pytest.raises(NonFiniteLogits):
        aligner.align([Passage(samples, "", "en", ("the", "quick", "fox"))])
