"""The demo checkpoints, loaded by the code that loads the real ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from grpc_service import Service, serving
from torch.fx.experimental.proxy_tensor import make_fx

from backend.engine.loader import CheckpointLoader
from backend.engine.model.cuda_graphs import GraphPlan, Step
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import captured
from backend.engine.model.session import SessionDecoder
from backend.options.load_options import LoadOptions
from backend.options.option_values import DType
from backend.serving.protocols import Utterance
from backend.wire import backend_pb2 as pb


@pytest.fixture(scope="session")
def demo_options(asr_folder: Path, aligner_folder: Path) -> LoadOptions:
    return LoadOptions(model=str(asr_folder), forced_aligner=str(aligner_folder), dtype="float32")


@pytest.fixture(scope="session")
def recognizer(demo_options: LoadOptions):
    return CheckpointLoader().load_recognizer(demo_options)


@pytest.fixture
async def demo_service(decoder_pool, asr_folder: Path, aligner_folder: Path) -> AsyncIterator[Service]:
    """The demo models in float32 behind gRPC."""
    async with serving(CheckpointLoader(), decoder_pool) as service:
        options = ["torch_dtype:fp32", f"forced_aligner:{aligner_folder}"]
        load = pb.ModelOptions(Model="demo", ModelFile=str(asr_folder), Options=options)
        assert (await service.stub.LoadModel(load, timeout=120)).success
        yield service


@pytest.fixture(scope="session")
def package_of() -> Callable[..., Any]:
    """`package_of(folder, dtype)`: the package's model of a checkpoint; its encoder attends within its windows."""
    from qwen_asr.core.transformers_backend import Qwen3ASRForConditionalGeneration

    from devtools.demo_models.windows import use_windows

    def read(folder: Path, dtype: DType = "float32") -> Any:
        model = Qwen3ASRForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
        use_windows(model)
        return model.eval()

    return read


@pytest.fixture(scope="session")
def package(package_of: Callable[..., Any], asr_folder: Path) -> Any:
    """The package's model of the recogniser."""
    return package_of(asr_folder)


@pytest.fixture(scope="session")
def package_processor(asr_folder: Path) -> Any:
    """The package's processor of the recogniser, which the aligner's is equal to."""
    from qwen_asr.core.transformers_backend import Qwen3ASRProcessor

    return Qwen3ASRProcessor.from_pretrained(asr_folder, fix_mistral_regex=False)


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


@pytest.fixture(scope="module", params=["eager", "captured"])
def session_decoder(request, recognizer, traced) -> SessionDecoder:
    """What a session decodes with: the decoder, and the same behind captured steps."""
    if request.param == "eager":
        return recognizer.decoder
    graphed = captured(recognizer.decoder, GraphPlan(8, (256, 512)), traced)
    assert graphed is not None
    return graphed
