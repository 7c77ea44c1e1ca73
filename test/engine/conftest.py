"""The demo checkpoints, loaded by the code that loads the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from torch.fx.experimental.proxy_tensor import make_fx

from backend.checkpoint.find import Checkpoint
from backend.engine.loader import CheckpointLoader
from backend.engine.model.cuda_graphs import Step
from backend.engine.model.decoder import Decoder
from backend.engine.model.model_builder import build_model
from backend.engine.ops.device import choose
from backend.option_values import DType
from backend.options import LoadOptions
from backend.serving.protocols import Utterance


@pytest.fixture(scope="session")
def demo_options(asr_folder: Path, aligner_folder: Path) -> LoadOptions:
    return LoadOptions(model=str(asr_folder), forced_aligner=str(aligner_folder), dtype="float32")


@pytest.fixture(scope="session")
def recognizer(demo_options: LoadOptions):
    return CheckpointLoader().load_recognizer(demo_options)


@pytest.fixture(scope="session")
def package_of() -> Callable[..., Any]:
    """`package_of(folder, dtype)`: the package's model of a checkpoint, with its own layers."""

    def read(folder: Path, dtype: DType = "float32") -> Any:
        built = build_model(Checkpoint(str(folder), local=True), choose(LoadOptions(model=str(folder), dtype=dtype)))
        built.weights.fill([built.model])
        built.weights.close()
        return built.model

    return read


@pytest.fixture(scope="session")
def package(package_of: Callable[..., Any], asr_folder: Path) -> Any:
    """The package's model of the recogniser."""
    return package_of(asr_folder)


@pytest.fixture(scope="session")
def decoder(recognizer) -> Decoder:
    return recognizer.decoder


@pytest.fixture(scope="session")
def aligner(demo_options: LoadOptions):
    return CheckpointLoader().load_aligner(demo_options)


@pytest.fixture(scope="session")
def demo(recordings: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """A recording and its truth: text, language, words with their times."""
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    return samples, json.loads((recordings / "demo.json").read_text())


@pytest.fixture(scope="session")
def clips(recordings: Path) -> list[Utterance]:
    """English twice, Chinese, half a second, silence; English again with a prompt and with its language."""
    samples, rate = soundfile.read(recordings / "demo.wav", dtype="float32")
    chinese, _ = soundfile.read(recordings / "chinese.wav", dtype="float32")
    pieces = [samples, samples[: 7 * rate], chinese, samples[: rate // 2], np.zeros(3 * rate, np.float32)]
    clips = [Utterance(piece, None, "", 120) for piece in pieces]
    return [*clips, replace(clips[1], prompt="fox and dog"), replace(clips[1], language="en")]


@pytest.fixture(scope="session")
def traced() -> Callable[[Step], Step]:
    """Stands for CUDA graph capture on any device: replays the operations of one step, on the memory of that step."""

    def capture(step: Step) -> Step:
        step()
        replay: Any = make_fx(step)()
        return replay

    return capture
