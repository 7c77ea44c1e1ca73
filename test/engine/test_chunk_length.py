"""The longest passage that a checkpoint is made for, by its feature extractor, which computes the same with any."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.checkpoint.feature_extractor import chunk_s
from backend.engine.loader import CheckpointLoader
from backend.engine.model.decoder import Decoder
from backend.engine.model.recognizer import QwenRecognizer
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Utterance
from devtools.demo_models.checkpoint import make_processor

FILE = "preprocessor_config.json"


@pytest.fixture
def with_chunk_length(asr_folder: Path, tmp_path: Path):
    """`with_chunk_length(30)`: the demo's recogniser with another `chunk_length`; None: without one."""

    def load(length: int | None, **options: Any) -> QwenRecognizer:
        copy = shutil.copytree(asr_folder, tmp_path / str(length))
        keys = json.loads((copy / FILE).read_text())
        for derived in ("chunk_length", "n_samples", "nb_max_frames"):
            del keys[derived]
        (copy / FILE).write_text(json.dumps(keys if length is None else keys | {"chunk_length": length}))
        return CheckpointLoader().load_recognizer(LoadOptions(model=str(copy), dtype="float32", **options))

    return load


def test_the_demo_models_have_their_15_seconds(recognizer, asr_folder: Path, aligner_folder: Path) -> None:
    assert recognizer.chunk_s == 15
    for folder in (asr_folder, aligner_folder):
        keys = json.loads((folder / FILE).read_text())
        assert (keys["chunk_length"], keys["n_samples"], keys["nb_max_frames"]) == (15, 240_000, 1500)
    assert make_processor().feature_extractor.chunk_length == 15


@pytest.mark.slow
@pytest.mark.parametrize(("length", "chunk_s"), [(30, 30), (None, 30), (1, 2), (3600, 180)])
def test_a_checkpoint_has_its_own_length_within_the_range_of_the_option(
    with_chunk_length, recognizer, demo, length: int | None, chunk_s: float
) -> None:
    """The text is the same: the clip, of more than 15 s, is neither cut nor padded to that length."""
    loaded, utterance = with_chunk_length(length), Utterance(demo[0], None, "", 200)
    assert loaded.chunk_s == chunk_s
    assert loaded.recognize([utterance]) == recognizer.recognize([utterance])


@pytest.mark.parametrize("length", [None, 0, -30, float("nan"), "30", True])
def test_an_implausible_length_is_that_of_the_published_checkpoints(length: Any) -> None:
    assert chunk_s(length) == 30


@pytest.mark.slow
def test_cuda_graphs_have_room_for_the_longest_passage(with_chunk_length, monkeypatch) -> None:
    positions: list[int] = []

    def recorded(decoder: Decoder, _device: torch.device, _rows: int, count: int) -> Decoder:
        positions.append(count)
        return decoder

    monkeypatch.setattr("backend.engine.model.recognizer.with_cuda_graphs", recorded)
    for length, options in ((15, {}), (30, {}), (20, {"max_chunk_s": 30.0})):
        with_chunk_length(length, **options)
    assert positions[0] < positions[1] == positions[2]
