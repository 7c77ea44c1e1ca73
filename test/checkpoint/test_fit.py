from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.checkpoint.fit import Need, Room, check, row_bytes, verdict, weight_bytes
from backend.errors import TooLittleMemory

GB = 10**9
TENSORS = {
    "thinker.model.embed_tokens.weight": [1000, 64],
    "thinker.model.layers.0.self_attn.q_proj.weight": [128, 64],
    "thinker.model.layers.0.mlp.down_proj.weight": [64, 256],
    "thinker.model.layers.0.input_layernorm.weight": [64],
    "thinker.audio_tower.layers.0.self_attn.q_proj.weight": [32, 32],
}
NUMBERS = 1000 * 64 + 128 * 64 + 64 * 256 + 64 + 32 * 32
QUANTIZED = 128 * 64 + 64 * 256  # of the decoder's layers


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """`checkpoint({"a": [2, 3]})`: a folder with a file whose header names these tensors, and no data."""

    def write(tensors: dict[str, Any], file: str = "model.safetensors") -> Path:
        text = json.dumps(
            {"__metadata__": {"format": "pt"}} | {n: {"dtype": "BF16", "shape": s} for n, s in tensors.items()}
        )
        (tmp_path / file).write_bytes(struct.pack("<Q", len(text)) + text.encode())
        return tmp_path

    return write  # fmt: skip


def test_weights_have_the_size_that_the_headers_say_in_the_dtype_of_the_load(checkpoint) -> None:
    folder = checkpoint(TENSORS)
    assert weight_bytes(folder, 2) == 2 * NUMBERS
    assert weight_bytes(folder, 4) == 4 * NUMBERS


@pytest.mark.parametrize("layout", ["thinker.", "model.language_"])
def test_int8_halves_the_decoders_layers_and_adds_a_head_beside_the_embedding(checkpoint, layout: str) -> None:
    folder = checkpoint({name.replace("thinker.", layout): shape for name, shape in TENSORS.items()})
    scales = 8 * (128 + 64 + 1000)
    assert weight_bytes(folder, 2, int8=True) == 2 * (NUMBERS - QUANTIZED) + QUANTIZED + 1000 * 64 + scales


def test_a_head_that_is_the_embedding_is_counted_once_and_an_aligners_is_its_own(checkpoint) -> None:
    assert weight_bytes(checkpoint(TENSORS | {"thinker.lm_head.weight": [1000, 64]}), 2) == 2 * NUMBERS
    assert weight_bytes(checkpoint(TENSORS | {"thinker.lm_head.weight": [50, 64]}), 2) == 2 * (NUMBERS + 50 * 64)


def test_the_files_of_the_index_are_counted_and_no_others(checkpoint) -> None:
    names = list(TENSORS)
    checkpoint({"other.model.weight": [10**6, 10**6]}, "consolidated.safetensors")
    checkpoint({name: TENSORS[name] for name in names[:2]}, "a.safetensors")
    folder = checkpoint({name: TENSORS[name] for name in names[2:]}, "b.safetensors")
    weight_map = {name: "a.safetensors" if name in names[:2] else "b.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert weight_bytes(folder, 2) == 2 * NUMBERS


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"{}", struct.pack("<Q", 8) + b'{"a": 1}'],
)
def test_a_damaged_header_is_left_to_the_load(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weight_bytes(tmp_path, 2) == 0


def test_a_row_of_the_published_models_takes_114688_bytes_a_position() -> None:
    text = {"num_hidden_layers": 28, "num_key_value_heads": 8, "head_dim": 128}
    for config in ({"thinker_config": {"text_config": text}}, {"text_config": text}):  # the two layouts
        assert row_bytes(config, 2, longest_s=15) == 114_688 * 512
        assert row_bytes(config, 4, longest_s=30) == 2 * 114_688 * 768
    assert row_bytes({}, 2, 15) == row_bytes({"text_config": {"head_dim": 128}}, 2, 15) == 0


NEED = Need(weights=4 * GB, aligner=2 * GB, row=GB / 10, rows=8)  # 4.7 with one row, 5.4 with eight, 7.4 in all


@pytest.mark.parametrize(
    ("free", "found"),
    [(4.6, "too large"), (4.8, "without aligner"), (6.6, "without aligner"), (6.8, "close"), (8, "close"), (9, "fits")],
)
def test_a_gpu_has_room_or_not(free: float, found: str) -> None:
    assert verdict(NEED, Room(free * GB, free * GB)) == found


def test_without_an_aligner_nothing_is_said_of_it() -> None:
    need = Need(4 * GB, row=GB / 10, rows=8)
    assert [verdict(need, Room(free * GB, free * GB)) for free in (4.8, 6.1)] == ["close", "fits"]


def test_a_cpu_refuses_only_what_not_even_its_swap_can_hold() -> None:
    assert verdict(NEED, Room(GB, 3.9 * GB, is_cpu=True)) == "too large"
    assert verdict(NEED, Room(GB, 4.1 * GB, is_cpu=True)) == "without aligner"
    assert verdict(Need(4 * GB), Room(4.1 * GB, 4.1 * GB, is_cpu=True)) == "close"
    assert verdict(NEED, Room(9 * GB, 9 * GB, is_cpu=True)) == "fits"


def test_what_cannot_fit_is_refused_with_both_numbers_and_a_remedy() -> None:
    with pytest.raises(TooLittleMemory, match=r"needs 4\.7 GB, 3\.5 are free.*smaller one.*int8"):
        check(NEED, Room(3.5 * GB, 3.5 * GB))
    with pytest.raises(TooLittleMemory, match=r"needs 4\.0 GB, 3\.5 are free"):
        check(NEED, Room(GB, 3.5 * GB, is_cpu=True))


@pytest.mark.parametrize(
    ("free", "warning"),
    [(5, "aligner will hardly fit beside the recogniser: together they need 6.7 GB, 5.0 GB are free"),
     (8, "memory is close: the model with its largest batch needs 7.4 GB, 8.0 GB are free"),
     (9, "")],
)  # fmt: skip
def test_what_hardly_fits_is_a_warning(caplog, free: float, warning: str) -> None:
    check(NEED, Room(free * GB, free * GB))
    assert warning in caplog.text if warning else not caplog.text


def test_what_cannot_be_read_is_never_refused(caplog) -> None:
    check(Need(0), Room(float("inf"), float("inf")))
    assert not caplog.text
