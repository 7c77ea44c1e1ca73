"""Every YAML that README, docs/ and deploy/ show: it parses, and holds only what LocalAI and this backend know."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options

ROOT = Path(__file__).parent.parent.parent
# Keys that LocalAI reads: of a model's configuration, and of an entry of a gallery of backends or of models.
MODEL_KEYS = {
    "name", "backend", "description", "known_usecases", "parameters", "options", "artifacts", "download_files", "cuda",
    "main_gpu", "dtype", "flash_attention", "threads", "low_vram", "enforce_eager", "quantization", "engine_args",
    "pinned", "concurrency_groups",
}  # fmt: skip
PIPELINE_KEYS = {
    "vad", "transcription", "llm", "tts", "streaming", "turn_detection", "disable_warmup", "disable_thinking",
    "max_history_items", "compaction", "voice_recognition", "sound_detection", "reasoning_effort", "classifier",
}  # fmt: skip
STREAMING_KEYS = {"llm", "tts", "transcription", "clause_chunking"}
TURN_DETECTION: dict[str, set[Any]] = {
    "type": {"server_vad", "semantic_vad"},
    "eagerness": {"low", "medium", "high", "auto"},
    "retranscribe": {True, False},
}
SHOWN_KEYS = {"name", "description", "license", "icon", "urls", "tags"}
BACKEND_ENTRY_KEYS = SHOWN_KEYS | {"uri", "alias", "capabilities", "mirrors", "sha256", "version"}
MODEL_ENTRY_KEYS = SHOWN_KEYS | {"config_file", "files"}
ADDRESS = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {
    f"{page.name}-{number}": block
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
}
BLOCKS = [pytest.param(block, id=name) for name, block in TEXTS.items()]
GALLERY = yaml.safe_load((ROOT / "deploy/gallery.yaml").read_text())


def check_model(config: dict[str, Any]) -> None:
    """A model's configuration is one that LocalAI lists and that LoadModel takes."""
    assert set(config) <= MODEL_KEYS
    assert config["backend"] == "qwen-asr"
    assert config["known_usecases"] == ["transcript"]
    model = config["parameters"]["model"]
    assert not model.startswith("/")  # LocalAI refuses it
    with_options(LoadOptions(model), config.get("options", []), "")
    artifacts = config.get("artifacts", [])
    for artifact in artifacts:
        assert set(artifact) == {"name", "target", "source"}
        assert set(artifact["source"]) == {"type", "repo"}
        assert artifact["source"]["type"] == "huggingface"
        assert ADDRESS.fullmatch(artifact["source"]["repo"])
    if artifacts:
        roles = {(artifact["name"], artifact["target"]) for artifact in artifacts}
        assert roles == {("model", "model"), ("forced_aligner", "companion")}
        assert artifacts[0]["source"]["repo"] == model


def check_pipeline(config: dict[str, Any]) -> None:
    """A model of models for the realtime API, whose transcription is a model that a page shows."""
    assert set(config) == {"name", "pipeline"}
    pipeline = config["pipeline"]
    assert {"vad", "transcription"} <= set(pipeline) <= PIPELINE_KEYS
    assert set(pipeline.get("streaming", {})) <= STREAMING_KEYS
    for key, value in pipeline.get("turn_detection", {}).items():
        assert value in TURN_DETECTION[key]
    models = [yaml.safe_load(block) for block in TEXTS.values()]
    assert pipeline["transcription"] in {model["name"] for model in models}


def test_there_are_blocks_to_check() -> None:
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_on_a_page_is_a_models_configuration(block: str) -> None:
    config = yaml.safe_load(block)
    assert config["name"]
    (check_pipeline if "pipeline" in config else check_model)(config)


def test_the_gallery_has_the_backend_and_all_models_inline() -> None:
    backend, *models = GALLERY
    assert set(backend) <= BACKEND_ENTRY_KEYS
    assert backend["name"] == "qwen-asr"
    assert backend["uri"].startswith("ocifile:///")
    assert backend["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert [entry["name"] for entry in models] == ["qwen3-asr-0.6b", "qwen3-asr-1.7b", "qwen3-asr-0.6b-known-text"]
    assert [entry["config_file"].get("options") for entry in models] == [None, None, ["task:align"]]
    for entry in models:
        assert set(entry) <= MODEL_ENTRY_KEYS  # no `url`: LocalAI refuses one on an internal address
        check_model(entry["config_file"])
        assert entry["config_file"]["artifacts"]
