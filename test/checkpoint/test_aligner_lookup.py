"""Where the option forced_aligner is looked for, and what is refused at LoadModel."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.checkpoint import hub
from backend.checkpoint.aligner_lookup import find_aligner, inspect_aligner, models_folders
from backend.checkpoint.find import Checkpoint
from backend.engine.loader import CheckpointLoader
from backend.errors import AlignerRefused
from backend.options.load_options import LoadOptions

SNAPSHOT = ".artifacts/huggingface/{}/snapshot"


@pytest.fixture
def models(tmp_path: Path, aligner_folder: Path, asr_folder: Path) -> Path:
    """A models folder: an aligner in two places, each with another name, and recognisers."""
    folder = tmp_path / "models"
    for place in ("aligners/fine", SNAPSHOT.format("bbb"), "fine-aligner"):
        shutil.copytree(aligner_folder, folder / place)
    for place in ("asr", "team/asr", SNAPSHOT.format("aaa")):
        shutil.copytree(asr_folder, folder / place)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another working directory than the models folder, and no network."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(hub, "downloaded", lambda repository, revision: None)


def found(name: str, **options: Any) -> Checkpoint:
    load = LoadOptions(**{"model": "asr", **options}, forced_aligner=name)
    inspect_aligner(load)
    return find_aligner(load)


def local(folder: Path) -> Checkpoint:
    return Checkpoint(str(folder), local=True)


def test_an_absolute_folder_is_taken_as_it_is(models: Path) -> None:
    assert found(str(models / "fine-aligner")) == local(models / "fine-aligner")


@pytest.mark.parametrize("name", ["fine-aligner", "aligners/fine", "./fine-aligner", SNAPSHOT.format("bbb")])
@pytest.mark.parametrize("sent", ["ModelPath", "both", "ModelFile"])
def test_a_relative_name_lies_below_the_models_folder_whatever_of_it_is_sent(
    models: Path, name: str, sent: str
) -> None:
    path = {} if sent == "ModelFile" else {"model_path": str(models)}
    file = {} if sent == "ModelPath" else {"model_file": str(models / "asr")}
    assert found(name, **path, **file) == local(models / name)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-ASR-0.6B", "anything"])
def test_a_companion_artifact_is_found_beside_the_models_own(models: Path, model: str) -> None:
    """As the gateway names it, and without ModelPath, as it loads where machines share the models folder."""
    file = str(models / SNAPSHOT.format("aaa"))
    name = SNAPSHOT.format("bbb")
    assert found(name, model=model, model_file=file) == local(models / name)


def test_the_models_name_may_have_several_parts(models: Path) -> None:
    found_there = found("fine-aligner", model="team/asr", model_file=str(models / "team/asr"))
    assert found_there == local(models / "fine-aligner")


def test_the_model_itself_need_not_be_there(models: Path) -> None:
    """The gateway sends ModelFile for a hub id, too: a path that does not exist."""
    file = str(models / "Qwen/Qwen3-ASR-0.6B")
    assert found("fine-aligner", model="Qwen/Qwen3-ASR-0.6B", model_file=file) == local(models / "fine-aligner")


def test_a_models_folder_that_is_not_on_this_machine_is_passed_over(models: Path) -> None:
    options = {"model_path": "/front/end/models", "model_file": str(models / "asr")}
    assert found("fine-aligner", **options) == local(models / "fine-aligner")


@pytest.mark.parametrize("name", ["/front/end/models/aligners/fine", "/fine-aligner", "/x/.artifacts/../fine-aligner"])
@pytest.mark.parametrize("sent", ["model_path", "model_file"])
def test_an_absolute_path_of_another_machine_is_looked_for_by_its_last_parts(
    models: Path, name: str, sent: str
) -> None:
    options = {"model_path": str(models)} if sent == "model_path" else {"model_file": str(models / "asr")}
    folder = "aligners/fine" if "aligners" in name else "fine-aligner"
    assert Path(found(name, **options).name).resolve() == (models / folder).resolve()


def test_of_several_folders_the_one_that_shares_most_parts_is_taken(models: Path, aligner_folder: Path) -> None:
    shutil.copytree(aligner_folder, models / "fine")
    assert found("/front/aligners/fine", model_path=str(models)) == local(models / "aligners/fine")


def test_an_absolute_path_that_is_there_is_not_looked_for_elsewhere(models: Path, tmp_path: Path) -> None:
    (tmp_path / "fine-aligner").mkdir()
    with pytest.raises(AlignerRefused, match=r"has no config\.json"):
        found(str(tmp_path / "fine-aligner"), model_path=str(models))


def test_the_models_folder_comes_before_the_working_directory(models: Path, aligner_folder: Path) -> None:
    shutil.copytree(aligner_folder, "fine-aligner")
    assert found("fine-aligner", model_path=str(models)) == local(models / "fine-aligner")
    assert found("fine-aligner") == local(Path.cwd() / "fine-aligner")


def test_the_weights_stand_for_their_folder(models: Path) -> None:
    for name in ("fine-aligner/model.safetensors", "/front/fine-aligner/model.safetensors"):
        assert found(name, model_path=str(models)) == local(models / "fine-aligner")


@pytest.mark.parametrize("sent", ["model_path", "model_file", "nothing"])
def test_a_name_that_no_folder_has_may_be_a_hub_id(models: Path, sent: str) -> None:
    options = {"model_path": str(models), "model_file": str(models / "asr")}
    (models / "Qwen/Qwen3-ForcedAligner-0.6B").mkdir(parents=True)  # an empty folder is no checkpoint
    name = "Qwen/Qwen3-ForcedAligner-0.6B"
    path = {sent: options[sent]} if sent in options else {}
    assert found(name, **path) == Checkpoint(name, local=False)


@pytest.mark.parametrize(
    "name", ["no-owner", "a/b/c", "/not/there", "../fine", "https://evil/x", "x\0y", "y" * 5000, ".artifacts/x", "a:b"]
)
def test_what_is_neither_a_folder_nor_the_form_of_a_hub_id_is_refused_by_the_option(models: Path, name: str) -> None:
    with pytest.raises(AlignerRefused, match=r"^option 'forced_aligner': .* neither a folder .* nor a hub id such as"):
        found(name, model_path=str(models), model_file=str(models / "asr"))


@pytest.mark.parametrize("name", ["asr", "/elsewhere/asr"])
def test_a_recogniser_is_refused_as_an_aligner(models: Path, name: str) -> None:
    with pytest.raises(AlignerRefused, match=r"^option 'forced_aligner': .* is a Qwen3-ASR model"):
        found(name, model_path=str(models))


def test_a_recogniser_of_an_earlier_download_is_refused(
    asr_folder: Path, aligner_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "downloaded", lambda repository, revision: asr_folder)
    with pytest.raises(AlignerRefused, match="is a Qwen3-ASR model"):
        found("Qwen/Qwen3-ASR-0.6B")
    monkeypatch.setattr(hub, "downloaded", lambda repository, revision: aligner_folder)
    assert found("Qwen/Qwen3-ForcedAligner-0.6B").local is False


def test_a_download_that_lacks_files_is_completed_by_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "downloaded", lambda repository, revision: tmp_path)
    assert found("Qwen/Qwen3-ForcedAligner-0.6B").local is False


def adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (adapter, "holds an adapter"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no \.safetensors weights"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "whisper"}'), "'whisper'"),
        (shutil.rmtree, "neither a folder"),
    ],
)
def test_a_folder_that_is_no_aligner_is_refused_with_what_it_lacks(models: Path, damage, cause: str) -> None:
    damage(models / "fine-aligner")
    with pytest.raises(AlignerRefused, match=f"^option 'forced_aligner': .*{cause}"):
        found("fine-aligner", model_path=str(models))


def test_a_folder_that_may_not_be_read_is_named_so(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models / "fine-aligner/config.json").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(AlignerRefused, match="check its permissions"):
        found("fine-aligner", model_path=str(models))


def test_no_aligner_is_no_fault() -> None:
    inspect_aligner(LoadOptions(model="asr"))


@pytest.mark.parametrize(
    ("model", "file", "folders"),
    [
        ("asr", "/m/asr", ["/m"]),
        ("team/asr", "/m/team/asr", ["/m"]),
        ("asr", "/m/other", []),
        ("any", "/m/.artifacts/huggingface/k/snapshot", ["/m"]),
        ("asr", "", []),
        ("", "/m/asr", []),
        ("/m/asr", "/m/asr", []),
    ],
)
def test_the_models_folder_follows_from_the_models_file(model: str, file: str, folders: list[str]) -> None:
    assert [os.fspath(folder) for folder in models_folders(LoadOptions(model, model_file=file))] == folders


def test_the_loader_refuses_and_finds_by_the_same_rules(models: Path) -> None:
    file = str(models / SNAPSHOT.format("aaa"))
    load = LoadOptions("asr", model_file=file, forced_aligner=SNAPSHOT.format("bbb"), threads=1)
    CheckpointLoader().inspect(load)
    assert CheckpointLoader().load_aligner(load).weight_bytes > 1_000_000
    with pytest.raises(AlignerRefused):
        CheckpointLoader().inspect(replace(load, forced_aligner="/not/there"))
