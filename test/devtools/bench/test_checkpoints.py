"""Whatever a bench checkpoint hears, it says its text and ends, through the package and through the backend alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qwen_asr import Qwen3ASRModel
from safetensors import safe_open

from backend.engine.loader import CheckpointLoader
from backend.engine.model.recognizer import QwenRecognizer
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcriber import Transcriber
from backend.serving.protocols import Passage, Utterance
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from devtools.bench import checkpoints, clips
from devtools.bench.shapes import SHAPES, ensure, most_words, text_of

pytestmark = pytest.mark.slow

SAMPLES = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
BUDGET = 200


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def ours(request: pytest.FixtureRequest, saying_12: Path) -> QwenRecognizer:
    return CheckpointLoader().load_recognizer(LoadOptions(model=str(saying_12), dtype=request.param))


@pytest.fixture(scope="module")
def package(saying_12: Path) -> Qwen3ASRModel:
    return Qwen3ASRModel.from_pretrained(str(saying_12), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_package_says_the_text_and_ends(package: Qwen3ASRModel, dtype: torch.dtype) -> None:
    package.model.to(dtype)
    for name in (None, "English"):
        (heard,) = package.transcribe(audio=(SAMPLES, 16_000), language=name)
        assert (heard.text, heard.language) == (text_of(12), "English")


def test_the_backend_says_the_text_and_ends_alone_and_in_a_batch(ours: QwenRecognizer) -> None:
    asked = [Utterance(SAMPLES[: size * 4000], code, "", BUDGET) for size, code in ((2, "en"), (4, None), (3, None))]
    for heard in (*ours.recognize(asked), *ours.recognize(asked[1:2])):
        assert (heard.text, heard.language, heard.finished) == (text_of(12), "en", True)


def test_passages_are_as_long_as_in_the_published_checkpoints(ours: QwenRecognizer) -> None:
    assert ours.chunk_s == 30


async def test_the_backend_takes_the_text_as_it_is(ours: QwenRecognizer, loader: Any, decoder_pool: Any) -> None:
    loader.recognizer = ours
    scheduler, resident = Scheduler(), Resident(loader)
    await resident.load(LoadOptions(model="m"))
    try:
        told = await Transcriber(resident, scheduler, decoder_pool).transcribe(str(clips.clip(0)), TranscribeOptions())
    finally:
        scheduler.stop()
    assert (told.text, told.language, told.warnings) == (text_of(12), "en", ())


def test_texts_of_different_lengths_share_all_but_the_map(saying_12: Path, saying_90: Path) -> None:
    for shard in saying_12.glob("*.safetensors"):
        is_shared = shard.stat().st_ino == (saying_90 / shard.name).stat().st_ino
        assert is_shared == (shard.name != "model-map.safetensors")


def test_a_checkpoint_is_made_once(saying_12: Path, made: Path) -> None:
    before = (saying_12 / "model-map.safetensors").stat().st_mtime_ns
    assert ensure("tiny", 12, made) == saying_12
    assert (saying_12 / "model-map.safetensors").stat().st_mtime_ns == before


def test_an_aligner_gives_every_word_a_time(made: Path) -> None:
    folder = checkpoints.make(SHAPES["tiny-aligner"], 0, made)
    aligner = CheckpointLoader().load_aligner(LoadOptions(model="", forced_aligner=str(folder), dtype="float32"))
    (units,) = aligner.align([Passage(SAMPLES, text_of(7), "en")])
    assert [unit.text for unit in units] == text_of(7).split()


def test_the_special_tokens_have_the_real_ids(saying_12: Path) -> None:
    config = json.loads((saying_12 / "config.json").read_text())["thinker_config"]
    ends = json.loads((saying_12 / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [151_645, 151_643]
    assert config["audio_token_id"] == 151_676
    with safe_open(saying_12 / "model-embedding.safetensors", "pt") as shard:
        assert shard.get_slice("thinker.model.embed_tokens.weight").get_shape() == [151_936, 128]


def test_a_chain_is_as_long_as_the_map_can_hold() -> None:
    core = checkpoints.make_core()
    ids = checkpoints.chain(core, 3000)
    assert len(set(ids)) == len(ids) == 3000 + 5
    assert core.encode(" baba babe").ids == ids[4:6]
    with pytest.raises(ValueError, match="1 to 4096"):
        checkpoints.chain(core, 5000)
    assert most_words("tiny") < SHAPES["tiny"].ffn


def test_the_decoder_of_the_0_6b_reads_what_the_real_one_does() -> None:
    assert SHAPES["0.6b"].decoded_parameters * 2 / 1e9 == pytest.approx(1.19, abs=0.01)
