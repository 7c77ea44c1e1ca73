"""The demo checkpoints, loaded by the code that loads the real ones."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from backend.engine import compiled
from backend.engine.checkpoint import Checkpoint
from backend.engine.decoder import Decoder
from backend.engine.device import choose
from backend.engine.loading import CheckpointLoader
from backend.engine.qwen import load
from backend.options import LoadOptions


@pytest.fixture(scope="session")
def demo_options(asr_folder: Path, aligner_folder: Path) -> LoadOptions:
    return LoadOptions(model=str(asr_folder), forced_aligner=str(aligner_folder), dtype="float32")


@pytest.fixture(scope="session")
def recognizer(demo_options: LoadOptions):
    return CheckpointLoader().load_recognizer(demo_options)


@pytest.fixture(scope="session")
def package(asr_folder: Path) -> Any:
    """The package's model of the same checkpoint, whose layers nobody has taken over."""
    options = LoadOptions(model=str(asr_folder), dtype="float32")
    loaded = load(Checkpoint(str(asr_folder), local=True), choose(options))
    loaded.weights.fill([loaded.model])
    return loaded.model


@pytest.fixture(scope="session")
def decoder(recognizer) -> Decoder:
    return recognizer.decoder


@pytest.fixture(scope="session")
def aligner(demo_options: LoadOptions):
    return CheckpointLoader().load_aligner(demo_options)


@pytest.fixture(scope="session")
def demo(recordings: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """A recording, and what is said in it: text, language, words with their times."""
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    return samples, json.loads((recordings / "demo.json").read_text())


@pytest.fixture(params=["any", "avx2"])
def version(request: pytest.FixtureRequest) -> Iterator[None]:
    """The library as other processors would run it, as far as this one can."""
    chosen = ctypes.c_int.in_dll(compiled.library, "version")
    most = chosen.value
    if request.param_index > most:
        pytest.skip("not this processor's")
    chosen.value = request.param_index
    yield
    chosen.value = most
