"""What is refused before torch is imported."""

from __future__ import annotations

from typing import Any

import pytest

from backend import server
from backend.audio.decoding.pool import DecoderPool
from backend.errors import LoadRefused
from backend.options.load_options import LoadOptions


class ImportedTorch(Exception):
    """The engine was asked for."""


@pytest.fixture
def lazy(monkeypatch, decoder_pool: DecoderPool) -> server.LazyLoader:
    def real(_loader: server.LazyLoader) -> Any:
        raise ImportedTorch

    monkeypatch.setattr(server.LazyLoader, "_real", real)
    return server.LazyLoader(decoder_pool)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"model": "no-model", "model_file": ""}, "neither a folder with a checkpoint nor a hub id"),
        ({"model": ""}, "no model is named"),
        ({"forced_aligner": "not-there"}, "^option 'forced_aligner'"),
        ({"forced_aligner": "asr"}, "^option 'forced_aligner': .* is a Qwen3-ASR model"),
        ({"model_file": "foreign"}, "'whisper'"),
        ({"model_file": "aligner", "task": "transcribe"}, "is a Qwen3-ForcedAligner model"),
    ],
)
def test_what_the_disk_refuses_is_refused_before_torch_is_imported(
    lazy, asr_folder, aligner_folder, tmp_path, changes: dict[str, Any], cause: str
) -> None:
    fields: dict[str, Any] = {
        "model": "demo",
        "model_file": str(asr_folder),
        "model_path": str(asr_folder.parent),
        **changes,
    }
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    folders = {"aligner": str(aligner_folder), "foreign": str(tmp_path)}
    fields["model_file"] = folders.get(fields["model_file"], fields["model_file"])
    with pytest.raises(LoadRefused, match=cause):
        lazy.inspect(LoadOptions(**fields))


def test_what_can_be_loaded_is(lazy, asr_folder, aligner_folder) -> None:
    with pytest.raises(ImportedTorch):
        lazy.inspect(LoadOptions("demo", model_file=str(asr_folder), forced_aligner=str(aligner_folder)))
