"""The aligner against the package's own model of the same checkpoint."""

from __future__ import annotations

from math import nan

import pytest
import torch

from backend.errors import NonFiniteLogits
from backend.serving.protocols import Passage


def test_each_passage_of_a_batch_is_scored_as_by_the_package_alone(
    monkeypatch, aligner, package_of, package_processor, aligner_folder, demo
) -> None:
    samples, truth = demo
    words = tuple(word for word, _, _ in truth["words"])
    passages = [
        Passage(samples, "", "en", words),
        Passage(samples[: len(samples) // 3], "", "en", words[: len(words) // 3]),
        Passage(samples[8000:], "", "en", words[1:]),
    ]
    scores: list[torch.Tensor] = []
    decode_times, model = aligner._decode_times, package_of(aligner_folder)

    def recording_decode_times(units, slots, s):
        scores.append(slots)
        return decode_times(units, slots, s)

    monkeypatch.setattr(aligner, "_decode_times", recording_decode_times)
    aligner.align(passages)
    for found, passage in zip(scores, passages, strict=True):
        text = "<|audio_start|><|audio_pad|><|audio_end|>" + "".join(
            f"{u}<timestamp><timestamp>" for u in passage.units
        )
        inputs = package_processor(text=[text], audio=[passage.samples], return_tensors="pt", padding=True)
        with torch.inference_mode():
            wanted = model.thinker(**inputs, use_cache=False).logits[0]
        torch.testing.assert_close(found, wanted[inputs["input_ids"][0] == aligner.slot_id], atol=2e-3, rtol=1e-3)


def test_nan_scores_raise_instead_of_giving_times(monkeypatch, aligner, demo) -> None:
    samples, _ = demo
    score_positions, class_3 = aligner.decoder.score_positions, torch.tensor([3])
    monkeypatch.setattr(
        aligner.decoder, "score_positions", lambda *given: score_positions(*given).index_fill_(1, class_3, nan)
    )
    with pytest.raises(NonFiniteLogits):
        aligner.align([Passage(samples, "", "en", ("the", "quick", "fox"))])


@pytest.mark.parametrize(
    ("best_class", "is_outside"),
    [(13, False), (14, False), (15, True)],
    ids=["the first after the end, 1.04 s", "one class of slack, 1.12 s", "beyond the slack, 1.2 s"],
)
def test_a_unit_is_outside_from_two_classes_after_the_passages_end(aligner, best_class: int, is_outside: bool) -> None:
    """The passage has 1 s, and 14 classes of 80 ms for its times: 0 to 13."""
    assert aligner.class_s == 0.08
    logits = torch.zeros(2, 50)
    logits[0, 5], logits[1, best_class] = 10, 10
    (unit,) = aligner._decode_times(["fox"], logits, 1.0)
    assert unit.outside is is_outside
    assert unit.start_s == pytest.approx(0.4, abs=0.01)
    assert 0.4 < unit.end_s < 13.5 * 0.08
