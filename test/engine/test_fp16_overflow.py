"""A model that overflows in float16 is loaded in float32, if float16 was the backend's choice, as it is on Turing.

The checkpoint is the demo's with everything that is added to the decoder's hidden state multiplied by a number. Each
layer normalises the state first, so in float32 the model says the same; in float16 its sums overflow.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.checkpoint.fit import Room
from backend.engine import loader
from backend.engine.loader import CheckpointLoader
from backend.engine.model import model_builder
from backend.engine.model.qwen_model import QwenModel
from backend.engine.ops import device
from backend.errors import NonFiniteCheckpoint, TooLittleMemory
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Passage, Utterance

pytestmark = pytest.mark.slow

ADDED = ("o_proj.weight", "down_proj.weight", "embed_tokens.weight", "proj2.weight", "proj2.bias")


@pytest.fixture
def multiplied(tmp_path: Path) -> Callable[[Path, float], LoadOptions]:
    """`multiplied(folder, to)`: options for a copy whose largest added weight is `to`."""

    def make(folder: Path, to: float) -> LoadOptions:
        copy = Path(shutil.copytree(folder, tmp_path / folder.name))
        tensors = load_file(copy / "model.safetensors")
        names = [name for name in tensors if name.endswith(ADDED) and "audio_tower.layers" not in name]
        factor = to / max(float(tensors[name].abs().max()) for name in names)
        tensors |= {name: tensors[name].float() * factor for name in names}
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        return LoadOptions(model=str(copy), forced_aligner=str(copy))

    return make


@pytest.fixture
def turing(monkeypatch) -> list[str]:
    """This CPU computes float16 where no dtype is asked for. Returns the dtypes in which models are built."""
    choose, build = device._dtype, model_builder.build_model
    built: list[str] = []

    def dtype(where: torch.device, options: LoadOptions) -> tuple[torch.dtype, str]:
        return (torch.float16, "as on Turing") if options.dtype == "auto" else choose(where, options)

    def count_models(checkpoint: Any, placement: device.Placement) -> Any:
        assert not any(type(o) is QwenModel for o in gc.get_objects() if id(o) not in before)
        built.append(str(placement.dtype))
        return build(checkpoint, placement)

    before = {id(o) for o in gc.get_objects() if type(o) is QwenModel}
    monkeypatch.setattr(device, "_dtype", dtype)
    monkeypatch.setattr(loader, "build_model", count_models)
    return built


@pytest.mark.parametrize("quantization", ["", "int8"])
def test_a_model_that_overflows_goes_on_in_float32(turing, multiplied, asr_folder, demo, caplog, quantization) -> None:
    samples, truth = demo
    options = replace(multiplied(asr_folder, 3e4), quantization=quantization)
    recognizer = CheckpointLoader().load_recognizer(options)
    assert turing == ["torch.float16", "torch.float32"]
    assert recognizer.model.dtype is torch.float32
    (found,) = recognizer.recognize([Utterance(samples, None, "", 120)])
    assert found.text == truth["text"]
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "NaN or inf logits" in warning
    assert "in float32" in warning


def test_float16_that_was_asked_for_is_refused_and_not_replaced(turing, multiplied, asr_folder) -> None:
    options = replace(multiplied(asr_folder, 3e4), dtype="float16")
    with pytest.raises(NonFiniteCheckpoint, match=r"NaN or inf logits .* torch_dtype:fp32"):
        CheckpointLoader().load_recognizer(options)
    assert turing == ["torch.float16"]


def test_a_model_that_does_not_overflow_stays_in_float16(turing, asr_folder) -> None:
    assert CheckpointLoader().load_recognizer(LoadOptions(model=str(asr_folder))).model.dtype is torch.float16
    assert turing == ["torch.float16"]


def test_weights_that_float16_cannot_hold_are_read_in_float32(turing, multiplied, asr_folder, demo) -> None:
    recognizer = CheckpointLoader().load_recognizer(multiplied(asr_folder, 1e6))
    assert turing == ["torch.float16", "torch.float32"]
    assert recognizer.recognize([Utterance(demo[0], None, "", 120)])[0].text == demo[1]["text"]


def test_so_are_the_aligners(turing, multiplied, aligner_folder, demo) -> None:
    aligner = CheckpointLoader().load_aligner(multiplied(aligner_folder, 1e6))
    assert turing == ["torch.float16", "torch.float32"]
    samples, truth = demo
    (units,) = aligner.align([Passage(samples, truth["text"], "en")])
    assert len(units) == len(truth["text"].split())


def test_a_model_that_computes_nan_in_float32_too_is_refused(turing, asr_folder, tmp_path) -> None:
    copy = Path(shutil.copytree(asr_folder, tmp_path / "asr"))
    tensors = load_file(copy / "model.safetensors")
    tensors["thinker.model.norm.weight"][0] = torch.nan
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteCheckpoint, match=r"norm\.weight"):
        CheckpointLoader().load_recognizer(LoadOptions(model=str(copy)))
    assert turing == ["torch.float16", "torch.float32"]


def test_float32_that_does_not_fit_is_refused(turing, multiplied, asr_folder, monkeypatch) -> None:
    """In float16 the weights take 4.6 MB, in float32 twice that."""
    monkeypatch.setattr(device, "room", lambda where: Room(8e6, 8e6))
    options = replace(multiplied(asr_folder, 3e4), batch_max_size=1)
    with pytest.raises(TooLittleMemory, match="it needs"):
        CheckpointLoader().load_recognizer(options)
    assert turing == ["torch.float16", "torch.float32"]
