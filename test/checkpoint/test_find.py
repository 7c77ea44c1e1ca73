from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend.checkpoint import find
from backend.checkpoint.find import Checkpoint
from backend.engine.loader import CheckpointLoader
from backend.errors import CheckpointRefused
from backend.options.load_options import LoadOptions


@pytest.fixture
def copy(asr_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(asr_folder, tmp_path / "copy"))


def test_an_existing_path_comes_before_the_name(asr_folder: Path) -> None:
    assert find.find("some/name", file=str(asr_folder)) == Checkpoint(str(asr_folder), local=True)
    weights = asr_folder / "model.safetensors"
    assert find.find("some/name", file=str(weights)) == Checkpoint(str(asr_folder), local=True)


def test_a_relative_name_is_looked_up_in_the_models_folder(asr_folder: Path) -> None:
    found = find.find("asr", folder=str(asr_folder.parent))
    assert found == Checkpoint(str(asr_folder), local=True)


def test_a_name_that_no_path_on_disk_has_is_a_hub_id() -> None:
    found = find.find("Qwen/Qwen3-ASR-1.7B", file="/not/there", folder="/nor/there")
    assert found == Checkpoint("Qwen/Qwen3-ASR-1.7B", local=False)


@pytest.mark.parametrize("name", ["", "no-owner", "../up/and/away", "/not/there", "a/b/c", "https://evil/x"])
def test_a_name_that_is_neither_path_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointRefused):
        find.find(name)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"config\.json"):
        find.find("m", file=str(tmp_path))


def changed(folder: Path, **keys: object) -> Checkpoint:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return Checkpoint(str(folder), local=True)


def test_a_foreign_model_is_refused_by_name_before_its_weights_are_read(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CheckpointRefused, match="'whisper'"):
        find.inspect(changed(copy, model_type="whisper"), "recognizer")


def test_an_aligner_and_a_recogniser_are_distinguished(asr_folder: Path, aligner_folder: Path) -> None:
    find.inspect(Checkpoint(str(asr_folder), local=True), "recognizer")
    find.inspect(Checkpoint(str(aligner_folder), local=True), "aligner")
    with pytest.raises(CheckpointRefused, match="forced_aligner"):
        find.inspect(Checkpoint(str(aligner_folder), local=True), "recognizer")
    with pytest.raises(CheckpointRefused, match="Qwen3-ASR model"):
        find.inspect(Checkpoint(str(asr_folder), local=True), "aligner")


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "auto_map"])
def test_a_config_that_could_run_foreign_code_is_refused(copy: Path, key: str) -> None:
    with pytest.raises(CheckpointRefused, match=key):
        find.inspect(changed(copy, **{key: "evil/kernel"}), "recognizer")


def test_a_checkpoint_without_safetensors_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointRefused, match="safetensors"):
        find.inspect(Checkpoint(str(copy), local=True), "recognizer")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_config_that_is_no_json_object_is_refused(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(CheckpointRefused):
        find.inspect(Checkpoint(str(copy), local=True), "recognizer")


def test_truncated_weights_are_refused_with_a_cause(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointRefused, match=r"model\.safetensors is cut short: it has 100000 bytes of"):
        CheckpointLoader().load_recognizer(LoadOptions(model=str(copy)))


def test_weights_that_lack_a_tensor_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["thinker.model.layers.2.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointRefused, match="lacks weights"):
        CheckpointLoader().load_recognizer(LoadOptions(model=str(copy)))


def test_extra_files_in_the_folder_do_not_matter(copy: Path) -> None:
    (copy / "model.safetensors.sha256").write_text("0" * 64)
    loaded = CheckpointLoader().load_recognizer(LoadOptions(model=str(copy), threads=2))
    assert loaded.weight_bytes > 4_000_000
