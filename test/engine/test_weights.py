"""Weights are read from their files once, in the dtype that was asked for; tied weights stay one tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.checkpoint.find import Checkpoint
from backend.engine.model.model_builder import build_model
from backend.engine.model.recognizer import QwenRecognizer
from backend.engine.ops import linear
from backend.engine.ops.device import Placement
from backend.engine.ops.linear import drop_weights, stack_weights
from backend.errors import CheckpointRefused

CPU = torch.device("cpu")


def placed(dtype: torch.dtype) -> Placement:
    return Placement(CPU, dtype, "sdpa", "")


def sharded(folder: Path, into: Path) -> Path:
    """The checkpoint with its tensors in three files and an index."""
    shutil.copytree(folder, into)
    tensors = load_file(into / "model.safetensors")
    (into / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"part-{number % 3}.safetensors" for number, name in enumerate(names)}
    for part in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == part}, into / part)
    (into / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return into


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [False, True])
def test_every_parameter_is_the_files_tensor_in_the_dtype_asked_for(
    monkeypatch, asr_folder, tmp_path, dtype, shards
) -> None:
    monkeypatch.setattr(linear, "onednn_supports", lambda weight: False)
    folder = sharded(asr_folder, tmp_path / "sharded") if shards else asr_folder
    recognizer = QwenRecognizer(build_model(Checkpoint(str(folder), local=True), placed(dtype)))
    stored = load_file(asr_folder / "model.safetensors")
    state = recognizer.model.state_dict()
    for name, tensor in stored.items():
        assert torch.equal(state[name], tensor.to(dtype)), name
    assert not any(parameter.is_meta for parameter in recognizer.model.parameters())
    tied = recognizer.model.config.decoder.tied
    embedding, head = recognizer.model.thinker.model.embed_tokens.weight, recognizer.model.thinker.lm_head.weight
    assert (embedding.data_ptr() == head.data_ptr()) is tied


@pytest.mark.parametrize("damage", ["a shard is missing", "no weight map", "a path out of the folder"])
def test_files_that_the_index_names_must_exist(asr_folder, tmp_path, damage) -> None:
    folder = sharded(asr_folder, tmp_path / "sharded")
    index = folder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    if damage == "a shard is missing":
        (folder / "part-1.safetensors").unlink()
    elif damage == "no weight map":
        index.write_text("[]")
    else:
        index.write_text(json.dumps({"weight_map": {name: f"../{file}x" for name, file in listed.items()}}))
    with pytest.raises(CheckpointRefused):
        build_model(Checkpoint(str(folder), local=True), placed(torch.float32))


def test_scratch_memory_is_reused_once_no_module_has_its_weight_there(asr_folder) -> None:
    built = build_model(Checkpoint(str(asr_folder), local=True), placed(torch.float32))
    stored = load_file(asr_folder / "model.safetensors")
    names = {module: f"{name}.weight" for name, module in built.model.named_modules()}
    attention = [layer.self_attn for layer in built.model.thinker.model.layers]
    first, second, third = ([part.q_proj, part.k_proj, part.v_proj] for part in attention[:3])

    def is_right(modules: list[torch.nn.Linear]) -> bool:
        return torch.equal(stack_weights(modules)[0], torch.cat([stored[names[module]] for module in modules]))

    built.weights.fill_in_scratch(first)
    stack, _ = stack_weights(first)
    assert is_right(first)
    assert stack.data_ptr() == first[0].weight.data_ptr()  # without a copy
    drop_weights(first)
    built.weights.fill_in_scratch(second)
    assert is_right(second)
    assert second[0].weight.data_ptr() == stack.data_ptr()
    built.weights.fill_in_scratch(third)
    assert is_right(third)
    assert is_right(second)  # still in the memory of before
