"""The demo checkpoints in the layout of transformers 5.13: the same tensors, text and times, to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_layout import write_native
from safetensors.torch import load_file, save_file

from backend.checkpoint.find import Checkpoint
from backend.engine.loader import CheckpointLoader
from backend.engine.model.model_builder import build_model
from backend.engine.ops.device import Placement
from backend.errors import CheckpointRefused
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Passage, Utterance

pytestmark = pytest.mark.slow

Demo = tuple[np.ndarray, dict[str, Any]]


@pytest.fixture(params=[1, 3], ids=["one file", "shards"])
def native(request: pytest.FixtureRequest, asr_folder: Path, aligner_folder: Path, tmp_path: Path) -> LoadOptions:
    return options(
        write_native(asr_folder, tmp_path / "asr", request.param),
        write_native(aligner_folder, tmp_path / "aligner", request.param),
    )


@pytest.fixture
def native_asr(asr_folder: Path, tmp_path: Path) -> Path:
    return write_native(asr_folder, tmp_path / "asr")


@pytest.fixture
def native_aligner(aligner_folder: Path, tmp_path: Path) -> Path:
    return write_native(aligner_folder, tmp_path / "aligner")


def options(model: Path, aligner: Path | None = None) -> LoadOptions:
    return LoadOptions(model=str(model), forced_aligner=str(aligner or ""), dtype="float32", threads=1)


def recognized(load: LoadOptions, utterances: list[Utterance]) -> Any:
    loader = CheckpointLoader()
    loader.inspect(load)
    return loader.load_recognizer(load).recognize(utterances)


def aligned(load: LoadOptions, demo: Demo) -> Any:
    samples, truth = demo
    return CheckpointLoader().load_aligner(load).align([Passage(samples, truth["text"], truth["language"])])


def filled(folder: Path) -> dict[str, torch.Tensor]:
    built = build_model(Checkpoint(str(folder), local=True), Placement(torch.device("cpu"), torch.float32, "sdpa", ""))
    built.weights.fill([built.model])
    built.weights.close()
    state: dict[str, torch.Tensor] = built.model.state_dict()
    return state


def test_tensors_text_and_times_are_those_of_the_packages_layout(
    native: LoadOptions, recognizer, aligner, clips: list[Utterance], demo: Demo, asr_folder: Path, aligner_folder: Path
) -> None:
    for folder, other in ((native.model, asr_folder), (native.forced_aligner, aligner_folder)):
        state, expected = filled(Path(folder)), filled(other)
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    loader = CheckpointLoader()
    loader.inspect(native)
    found = loader.load_recognizer(native)
    assert found.eos_ids == recognizer.eos_ids
    assert [found._prompt(clip) for clip in clips] == [recognizer._prompt(clip) for clip in clips]
    assert found.recognize(clips) == recognizer.recognize(clips)
    samples, truth = demo
    passages = [Passage(samples, truth["text"], truth["language"])]
    assert loader.load_aligner(native).align(passages) == aligner.align(passages)


def test_an_aligner_given_as_the_model_is_refused_at_a_glance(native_aligner: Path) -> None:
    with pytest.raises(CheckpointRefused, match="forced_aligner"):
        CheckpointLoader().inspect(replace(options(native_aligner), task="transcribe"))


def edited(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return edit


def with_preprocessor(folder: Path) -> None:
    """transformers 4 wrote the feature extractor to a file of its own."""
    mel = json.loads((folder / "processor_config.json").read_text())["feature_extractor"]
    (folder / "preprocessor_config.json").write_text(json.dumps(mel))
    (folder / "processor_config.json").unlink()


def without_end_in_generation(folder: Path) -> None:
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    edited("config.json", lambda content: content.update(eos_token_id=ends))(folder)
    (folder / "generation_config.json").unlink()


def listed_tokens(content: dict[str, Any]) -> None:
    content["extra_special_tokens"] = ["<|im_start|>", {"content": "<|im_end|>", "__type": "AddedToken"}]
    del content["model_specific_special_tokens"]


DERIVATIVES: dict[str, Callable[[Path], object]] = {
    "no chat template": lambda folder: (folder / "chat_template.jinja").unlink(),
    "a template that fails": lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('x') }}"),
    "a preprocessor_config.json": with_preprocessor,
    "the ends in config.json": without_end_in_generation,
    "special tokens as a list": edited("tokenizer_config.json", listed_tokens),
    "a backend as tokenizer": edited(
        "tokenizer_config.json", lambda content: content.update(tokenizer_class="TokenizersBackend")
    ),
    "no tokenizer_config.json": lambda folder: (folder / "tokenizer_config.json").unlink(),
}


@pytest.mark.parametrize("edit", DERIVATIVES.values(), ids=DERIVATIVES)
def test_a_derivative_recognizes_the_same(
    native_asr: Path, recognizer, clips: list[Utterance], edit: Callable[[Path], object]
) -> None:
    edit(native_asr)
    assert recognized(options(native_asr), clips[:2]) == recognizer.recognize(clips[:2])


def test_an_untied_head_is_read(native_asr: Path, recognizer, clips: list[Utterance]) -> None:
    tensors = load_file(native_asr / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    save_file(tensors, native_asr / "model.safetensors", metadata={"format": "pt"})
    edited("config.json", lambda content: content.update(tie_word_embeddings=False))(native_asr)
    assert recognized(options(native_asr), clips[:2]) == recognizer.recognize(clips[:2])


def test_an_aligner_may_lack_its_segment_time_and_name_another_slot(native_aligner, aligner, demo: Demo) -> None:
    def strip(content: dict[str, Any]) -> None:
        del content["timestamp_segment_time"]
        content["timestamp_token_id"] = 151705  # transformers' default, in a tokenizer of 547 words

    edited("config.json", strip)(native_aligner)
    edited("processor_config.json", lambda content: content.pop("timestamp_segment_time"))(native_aligner)
    samples, truth = demo
    expected = aligner.align([Passage(samples, truth["text"], truth["language"])])
    assert aligned(options(native_aligner, native_aligner), demo) == expected


def test_an_aligner_whose_tokenizer_has_no_slots_is_refused(aligner_folder: Path, tmp_path: Path, demo: Demo) -> None:
    folder = Path(shutil.copytree(aligner_folder, tmp_path / "copy"))
    text = (folder / "tokenizer.json").read_text().replace("<timestamp>", "<other>")
    (folder / "tokenizer.json").write_text(text)
    edited("tokenizer_config.json", lambda content: content.pop("added_tokens_decoder"))(folder)
    (folder / "added_tokens.json").unlink()
    with pytest.raises(CheckpointRefused, match="no token <timestamp>"):
        aligned(options(folder, folder), demo)


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda t: t.pop("model.multi_modal_projector.linear_2.bias"), "lacks weights"),
     (lambda t: t["model.language_model.norm.weight"].fill_(torch.nan), r"'model\.language_model\.norm\.weight'")],
    ids=["missing", "NaN"],
)  # fmt: skip
def test_a_damaged_tensor_is_refused_by_its_name_in_the_files(
    native_asr: Path, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    tensors = load_file(native_asr / "model.safetensors")
    change(tensors)
    save_file(tensors, native_asr / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointRefused, match=said):
        CheckpointLoader().load_recognizer(options(native_asr))


def test_a_folder_without_features_or_ends_is_refused_with_what_it_lacks(native_asr: Path) -> None:
    edited("config.json", lambda content: content.pop("eos_token_id"))(native_asr)
    for file, said in (
        ("processor_config.json", "preprocessor_config.json is missing"),
        ("generation_config.json", "could not be loaded: it has n.*generation_config.json"),
    ):
        kept = (native_asr / file).read_bytes()
        (native_asr / file).unlink()
        with pytest.raises(CheckpointRefused, match=said):
            CheckpointLoader().load_recognizer(options(native_asr))
        (native_asr / file).write_bytes(kept)
