"""Both layouts are told apart and read as one, by config.json; what is neither is refused with what to use instead."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from native_layout import AUDIO_KEYS, TEXT_KEYS, native_config, native_name

from backend.checkpoint import find, hub
from backend.checkpoint.find import Checkpoint
from backend.checkpoint.layout import Kind, Layout, layout_of, package_config
from backend.errors import CheckpointRefused

Config = dict[str, Any]
FOLDERS: dict[Kind, str] = {"recognizer": "asr", "aligner": "aligner"}
EXAMPLE = "Qwen/Qwen3-ASR-0.6B"


@pytest.fixture(params=FOLDERS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Literal["recognizer", "aligner"] = request.param
    return found


@pytest.fixture
def package(kind: Kind, asr_folder: Path) -> Config:
    """The demo checkpoint's config, in the package's layout."""
    content: Config = json.loads((asr_folder.parent / FOLDERS[kind] / "config.json").read_text())
    return content


def read(config: Config, processor: Config | None = None) -> Config:
    return package_config(config, layout_of("m", config), processor or {})


def test_the_layouts_and_kinds_are_told_apart(package: Config, kind: Kind) -> None:
    assert layout_of("m", package) == Layout(kind, native=False)
    assert layout_of("m", native_config(package)) == Layout(kind, native=True)


def test_the_package_reads_the_same_sizes_from_both(package: Config, kind: Kind) -> None:
    original, translated = read(package), read(native_config(package))
    for part, keys in (("audio_config", AUDIO_KEYS), ("text_config", (*TEXT_KEYS, "rope_theta"))):
        expected, found = (read["thinker_config"][part] for read in (original, translated))
        assert {key: found[key] for key in keys if key in found} == {key: expected[key] for key in keys if key in found}
        assert {"d_model", "n_window", "n_window_infer"} <= found.keys() or part == "text_config"
    for key in ("audio_token_id", *(("classify_num",) if kind == "aligner" else ())):
        assert original["thinker_config"][key] == translated["thinker_config"][key]
    assert original.get("timestamp_segment_time") == translated.get("timestamp_segment_time")


def test_every_tensor_has_its_name_in_the_files(kind: Kind, asr_folder: Path) -> None:
    with (asr_folder.parent / FOLDERS[kind] / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
    for name in header.keys() - {"__metadata__"}:
        assert Layout(kind, native=False).stored_name(name) == name
        assert Layout(kind, native=True).stored_name(name) == native_name(name, kind == "aligner")
        assert not Layout(kind, native=True).stored_name(name).startswith("thinker.")


def set_text(**keys: object) -> Callable[[Config], None]:
    return lambda config: config["text_config"].update(keys)


def set_audio(**keys: object) -> Callable[[Config], None]:
    return lambda config: config["audio_config"].update(keys)


def removed(*path: str) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        config.pop(path[-1], None)

    return edit


def all_of(*edits: Callable[[Config], object]) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for each in edits:
            each(config)

    return edit


def renamed_audio(**names: str) -> Callable[[Config], None]:
    return lambda config: config["audio_config"].update({n: config["audio_config"].pop(o) for o, n in names.items()})


ROPE = {"rope_theta": 1e6, "rope_type": "default"}
DERIVATIVES: dict[str, Callable[[Config], object]] = {
    "rope as before transformers 5": all_of(
        removed("text_config", "rope_parameters"), set_text(rope_scaling={"type": "default"}, rope_theta=1e6)
    ),
    "rope with sections": set_text(rope_parameters={**ROPE, "mrope_section": [8, 4, 4], "mrope_interleaved": True}),
    "rope by the type of the layers": set_text(rope_parameters={"full_attention": ROPE}),
    "rope without theta": set_text(rope_parameters={"rope_type": "default"}),
    "no rope": removed("text_config", "rope_parameters"),
    "torch_dtype": all_of(removed("dtype"), lambda config: config.update(torch_dtype="float16")),
    "the encoder's general names": renamed_audio(
        encoder_layers="num_hidden_layers", encoder_attention_heads="num_attention_heads",
        encoder_ffn_dim="intermediate_size", d_model="hidden_size",
    ),
    "defaults left out": all_of(*(removed("audio_config", k) for k in ("n_window", "n_window_infer", "num_mel_bins"))),
    "the encoder's other type": set_audio(model_type="qwen3_asr_audio_encoder"),
    "no types of the parts": all_of(removed("audio_config", "model_type"), removed("text_config", "model_type")),
    "no architectures": removed("architectures"),
    "no flag of tied weights": removed("tie_word_embeddings"),
    "no segment time": removed("timestamp_segment_time"),
    "no timestamp token": removed("timestamp_token_id"),
}  # fmt: skip


@pytest.mark.parametrize("edit", DERIVATIVES.values(), ids=DERIVATIVES)
def test_a_derivatives_config_is_read_as_the_official_one(
    package: Config, kind: Kind, edit: Callable[[Config], object]
) -> None:
    official = native_config(package)
    derivative = copy.deepcopy(official)
    edit(derivative)
    expected, found = read(official), read(derivative)
    for config in (expected, found):
        text = config["thinker_config"]["text_config"]
        text.pop("model_type", None)
        assert text["rope_scaling"].pop("rope_type") == "default"
        text["rope_scaling"] = None
    assert found == expected


def test_the_number_of_classes_may_be_under_any_of_its_names(asr_folder: Path) -> None:
    config = native_config(json.loads((asr_folder.parent / "aligner/config.json").read_text()))
    del config["id2label"]
    for key in ("num_labels", "classify_num"):
        assert read({**config, key: 1000})["thinker_config"]["classify_num"] == 1000
        assert layout_of("m", {**config, key: 1000, "architectures": None}).kind == "aligner"


def test_the_audio_token_may_lie_beside_the_parts_or_nowhere(asr_folder: Path) -> None:
    config = json.loads((asr_folder / "config.json").read_text())
    native = native_config(config)
    token = config["thinker_config"].pop("audio_token_id")
    assert read({**config, "audio_token_id": token})["thinker_config"]["audio_token_id"] == token
    assert native.pop("audio_token_id") == token
    assert (
        read(config)["thinker_config"]["audio_token_id"] == read(native)["thinker_config"]["audio_token_id"] == 151676
    )


def test_an_aligner_of_the_packages_layout_needs_no_segment_time(asr_folder: Path) -> None:
    config = json.loads((asr_folder.parent / "aligner/config.json").read_text())
    del config["timestamp_segment_time"]
    assert read(config)["timestamp_segment_time"] == 80
    assert read(config, {"timestamp_segment_time": 40.0})["timestamp_segment_time"] == 40
    for absurd in (0, -80, "80", True, [80]):
        with pytest.raises(CheckpointRefused, match="timestamp_segment_time"):
            read({**config, "timestamp_segment_time": absurd})


def quantised(where: str | None = None, **how: object) -> Callable[[Config], object]:
    def edit(config: Config) -> None:
        part = config if where is None else config[where]
        part.update(how)

    return edit


REFUSED: dict[str, tuple[Callable[[Config], object], str]] = {
    "Whisper": (lambda c: c.update(model_type="whisper"), "of the type 'whisper'"),
    "Qwen3-Omni": (lambda c: c.update(model_type="qwen3_omni_moe"), "of the type 'qwen3_omni_moe'"),
    "no type": (removed("model_type"), "of the type 'None'"),
    "GPTQ": (quantised(quantization_config={"quant_method": "gptq", "bits": 4}), r"quantised \(gptq\)"),
    "FP8 of a part": (quantised("text_config", quantization_config={"quant_method": "fp8"}), r"quantised \(fp8\)"),
    "compressed-tensors": (quantised(compression_config={"format": "int-quantized"}), r"quantised \(compression"),
    "MLX": (quantised(quantization={"group_size": 64, "bits": 4}), r"quantised \(quantization\)"),
    "no decoder": (removed("text_config"), "neither thinker_config nor"),
    "no encoder": (lambda c: c.update(audio_config=None), "neither thinker_config nor"),
    "a bias": (lambda c: c.update(token_classification_bias=True), "bias"),
    "a sliding window": (set_text(use_sliding_window=True, sliding_window=4096), "sliding window"),
}


@pytest.mark.parametrize(("edit", "said"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_by_config_json_alone(
    asr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Config], object], said: str
) -> None:
    config = native_config(json.loads((asr_folder / "config.json").read_text()))
    edit(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(hub, "fetch_config", lambda *_: hub.Snapshot(tmp_path, "c0ffee"))
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("nothing else may be fetched"))
    for checkpoint in (Checkpoint("some/model", local=False), Checkpoint(str(tmp_path), local=True)):
        with pytest.raises(CheckpointRefused, match=f"{said}.*; use {EXAMPLE} or {EXAMPLE}-hf"):
            find.inspect(checkpoint, "recognizer")
        with pytest.raises(CheckpointRefused, match=r"; use Qwen/Qwen3-ForcedAligner-0\.6B or"):
            find.inspect(checkpoint, "aligner")


def test_a_native_checkpoint_on_the_hub_is_taken_by_config_json_alone(
    package: Config, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(native_config(package)))
    monkeypatch.setattr(hub, "fetch_config", lambda *_: hub.Snapshot(tmp_path, "c0ffee"))
    checkpoint = Checkpoint("Qwen/some-hf", local=False)
    find.inspect(checkpoint, kind)
    other: Kind = "aligner" if kind == "recognizer" else "recognizer"
    with pytest.raises(CheckpointRefused, match=r"forced_aligner, .*Qwen/Qwen3-"):
        find.inspect(checkpoint, other)


@pytest.mark.parametrize(
    ("file", "said"),
    [("model-Q4_K_M.gguf", r"GGUF .* llama\.cpp"), ("encoder.onnx", "ONNX"), ("adapter_config.json", "merge"),
     ("model.safetensors", r"has no config\.json")],
)  # fmt: skip
def test_a_folder_of_another_form_is_refused_with_what_it_is(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / file).write_bytes(b"")
    for path in (tmp_path, tmp_path / file):
        with pytest.raises(CheckpointRefused, match=f"{said}.*{EXAMPLE}"):
            find.find("m", file=str(path))
