"""A load that cannot fit is refused before a weight is read. README's table of what fits comes from the same code."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.checkpoint.fit import Need, Room, row_bytes, verdict, weight_bytes
from backend.checkpoint.layout import layout_of
from backend.checkpoint.model_config import model_config
from backend.engine.loader import CheckpointLoader
from backend.engine.model.qwen_model import QwenModel
from backend.engine.ops import device
from backend.engine.weights import Weights
from backend.errors import AlignerUnavailable, TooLittleMemory
from backend.options.load_options import LoadOptions
from backend.options.option_values import Quantization
from backend.serving.resident import Resident
from devtools.bench.shapes import SHAPES, config

ROOT = Path(__file__).parent.parent.parent
MB = 1e6


@pytest.fixture
def room(monkeypatch) -> Callable[[float], None]:
    """`room(bytes)`: so much is free, as on a GPU."""
    return lambda free: monkeypatch.setattr(device, "room", lambda where: Room(free, free))


@pytest.fixture
def no_weight_is_read(monkeypatch) -> None:
    monkeypatch.setattr(Weights, "_read_tensor", lambda *arguments: pytest.fail("a weight was read"))


@pytest.mark.parametrize(
    ("dtype", "quantization", "free"),
    [("float32", "", 9.0), ("bfloat16", "", 4.5), ("bfloat16", "int8", 3.0)],
)
@pytest.mark.usefixtures("no_weight_is_read")
def test_a_recogniser_that_is_too_large_is_refused(room, asr_folder, dtype, quantization, free: float) -> None:
    room(free * MB)
    with pytest.raises(TooLittleMemory, match=r"it needs 0\.0 GB"):
        CheckpointLoader().load_recognizer(LoadOptions(str(asr_folder), dtype=dtype, quantization=quantization))


@pytest.mark.parametrize("quantization", ["", "int8"])
def test_the_size_that_the_headers_say_is_what_the_loaded_model_takes(asr_folder, quantization: Quantization) -> None:
    options = LoadOptions(str(asr_folder), dtype="float32", quantization=quantization)
    loaded = CheckpointLoader().load_recognizer(options)
    computed = sum(buffer.nbytes for buffer in loaded.model.buffers())  # not in the files
    assert weight_bytes(asr_folder, 4, int8=bool(quantization)) == pytest.approx(
        loaded.weight_bytes - computed, rel=0.01
    )


@pytest.mark.usefixtures("no_weight_is_read")
def test_an_aligner_that_is_too_large_is_refused(room, aligner_folder) -> None:
    room(9 * MB)
    with pytest.raises(TooLittleMemory):
        CheckpointLoader().load_aligner(LoadOptions("m", forced_aligner=str(aligner_folder), dtype="float32"))


async def test_a_recogniser_without_room_for_its_aligner_is_loaded_with_a_warning(room, demo_options, caplog) -> None:
    room(15 * MB)
    resident = Resident(CheckpointLoader())
    await resident.load(demo_options)
    assert "forced aligner will hardly fit" in caplog.text
    room(2 * MB)
    with pytest.raises(AlignerUnavailable, match="too little memory for the aligner"):
        await resident.equipped(resident.current())


async def test_the_check_comes_after_the_old_model_is_freed_and_a_refusal_brings_it_back(
    monkeypatch, demo_options, caplog
) -> None:
    resident = Resident(CheckpointLoader())
    await resident.load(demo_options)
    rooms = iter([Room(MB, MB), Room(1e9, 1e9)])

    def room(where: object) -> Room:
        assert not resident.identity
        return next(rooms)

    monkeypatch.setattr(device, "room", room)
    with pytest.raises(TooLittleMemory):
        await resident.load(LoadOptions(demo_options.model, dtype="bfloat16"))
    assert resident.identity == demo_options.model


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str], Path]:
    """`published("1.7b")`: config.json and the header of a checkpoint of that published size, without data."""

    def write(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        keys = config(SHAPES[name], defaultdict(int))
        (folder / "config.json").write_text(json.dumps(keys))
        kind = layout_of(name, keys).kind
        model = QwenModel(model_config(keys, kind), device.Placement(torch.device("cpu"), torch.bfloat16, "sdpa", ""))
        tensors = {key: {"dtype": "BF16", "shape": list(tensor.shape)} for key, tensor in model.named_parameters()}
        header = json.dumps(tensors).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        return folder

    return write


CONTEXT_GB = 0.5  # what CUDA takes of a card for itself
CARDS = {6: 8, 8: 8, 12: 32, 24: 64}  # GB of the card: rows of a batch there
LONGEST_S = 30


def test_readmes_table_of_what_fits_is_what_the_check_says(published) -> None:
    folders = {name: published(name) for name in ("0.6b", "1.7b", "aligner")}
    row = row_bytes(json.loads((folders["0.6b"] / "config.json").read_text()), 2, LONGEST_S)
    sizes = [weight_bytes(folders[name], 2) / 1e9 for name in folders]
    assert sizes == pytest.approx([1.57, 4.08, 1.84], abs=0.01)  # of the published files

    def need(name: str, dtype: str, rows: int) -> Need:
        itemsize, folder = 4 if dtype == "fp32" else 2, folders[name[:4]]
        aligner = weight_bytes(folders["aligner"], itemsize) if "aligner" in name else 0
        return Need(weight_bytes(folder, itemsize, int8=dtype == "int8"), aligner, row * itemsize / 2, rows)

    def best(name: str, card: int, rows: int) -> str:
        """The first format of which all fits, else the first that fits closely."""
        free = (card - CONTEXT_GB) * 1e9
        found = {dtype: verdict(need(name, dtype, rows), Room(free, free)) for dtype in ("bf16", "int8")}
        close = [f"{dtype}, close" for dtype, said in found.items() if said == "close"]
        return next(iter([dtype for dtype, said in found.items() if said == "fits"] + close), "no")

    lines = [
        "| GB, with 8 rows | bf16, fp16 | int8 | fp32 | " + " | ".join(f"on {card} GB" for card in CARDS) + " |",
        "|---" * (4 + len(CARDS)) + "|",
    ]
    for name in ("0.6b", "0.6b, aligner", "1.7b", "1.7b, aligner"):
        numbers = [f"{need(name, dtype, 8).whole / 1e9 + CONTEXT_GB:.1f}" for dtype in ("bf16", "int8", "fp32")]
        cells = [name.upper().replace("ALIGNER", "aligner"), *numbers, *(best(name, *card) for card in CARDS.items())]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines)
    assert table in (ROOT / "README.md").read_text(), f"README's table should be:\n{table}"
