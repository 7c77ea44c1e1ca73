"""The tokenizer is the checkpoint's own, and is made of its words once."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers.models import BPE
from transformers import Qwen2TokenizerFast

from backend.engine import processor
from backend.engine.loader import CheckpointLoader
from backend.engine.processor import make_processor
from backend.options import LoadOptions
from backend.serving.resident import Resident

# What Mistral's pattern splits otherwise: letters that change case inside a word, marks, several digits.
TEXTS = ("YouTube on my iPhone", "สวัสดีครับ", "don't I'LL", "a1b22", "日本語\n\n x", "café cafe\u0301", "<|im_start|>x")
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the vocabularies that were made; none is known before."""
    made: list[int] = []

    def counting(words: dict[str, int], pairs: list[tuple[str, str]], **options: Any) -> BPE:
        made.append(len(words))
        return BPE(words, pairs, **options)

    monkeypatch.setattr(processor, "BPE", counting)
    monkeypatch.setattr(processor, "_vocabularies", {})
    return made


def unconverted(folder: Path, into: Path) -> Path:
    """A copy without tokenizer.json, as Qwen's own folders are."""
    shutil.copytree(folder, into)
    (into / "tokenizer.json").unlink()
    return into


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def grow(content: dict[str, Any]) -> None:
    """Words up to more than 100,000, in place of none: the ids of the first stay."""
    content.update({f"{number:x}": number for number in range(len(content), 100_100)})


@pytest.fixture(scope="module")
def large(asr_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with so many words, and of such a version, that transformers takes it for Mistral's."""
    folder = unconverted(asr_folder, tmp_path_factory.mktemp("large") / "asr")
    edited(folder / "vocab.json", grow)
    (folder / "added_tokens.json").unlink()
    edited(folder / "tokenizer_config.json", lambda content: content.pop("added_tokens_decoder"))
    assert json.loads((folder / "config.json").read_text())["transformers_version"].startswith("4.57.")
    return folder


@pytest.mark.parametrize("converted", [False, True])
def test_a_large_vocabulary_keeps_the_checkpoints_own_pre_tokenizer(
    large: Path, tmp_path: Path, converted: bool
) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "copy"))
    own = processor._backend_tokenizer(folder)
    if converted:
        own.save(str(folder / "tokenizer.json"))
    tokenizer = make_processor(folder, native=False).tokenizer
    assert tokenizer.vocab_size > 100_000
    steps = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in steps] == ["Split", "ByteLevel"]
    assert steps[0]["pattern"] == {"Regex": QWEN_SPLIT}
    for text in TEXTS[:-1]:
        assert tokenizer.encode(text) == own.encode(text).ids


def test_words_and_merges_make_the_tokenizer_that_transformers_makes_of_them(asr_folder: Path, tmp_path: Path) -> None:
    folder = unconverted(asr_folder, tmp_path / "asr")
    ours = make_processor(folder, native=False).tokenizer
    theirs = Qwen2TokenizerFast.from_pretrained(folder, local_files_only=True)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    assert ours.decode(range(len(ours)), skip_special_tokens=True) == theirs.decode(
        range(len(theirs)), skip_special_tokens=True
    )


def test_the_words_of_recogniser_and_aligner_are_read_once_and_not_again_after_free(
    asr_folder: Path, aligner_folder: Path, tmp_path: Path, built: list[int]
) -> None:
    asr, aligner = unconverted(asr_folder, tmp_path / "asr"), unconverted(aligner_folder, tmp_path / "aligner")
    (asr / "added_tokens.json").unlink()
    edited(asr / "tokenizer_config.json", lambda content: content["added_tokens_decoder"].pop("546"))
    load = LoadOptions(model=str(asr), forced_aligner=str(aligner), threads=1, dtype="float32")
    loader = CheckpointLoader()
    first, aligned = loader.load_recognizer(load), loader.load_aligner(load)
    assert built == [first.processor.tokenizer.vocab_size]
    assert len(first.processor.tokenizer.encode("<timestamp>")) > 1  # the aligner's added token is its own
    assert aligned.processor.tokenizer.encode("<timestamp>") == [aligned.slot_id]
    first.processor.tokenizer.backend_tokenizer.enable_padding(length=50)  # and so is its state
    assert len(aligned.processor.tokenizer.backend_tokenizer.encode("x").ids) == 1
    del first, aligned
    assert loader.load_recognizer(load).count_tokens("The quick fox") > 0
    assert len(built) == 1


@pytest.mark.slow
async def test_a_reload_after_free_reads_no_words(asr_folder: Path, tmp_path: Path, built: list[int]) -> None:
    load = LoadOptions(model=str(unconverted(asr_folder, tmp_path / "asr")), threads=1)
    resident = Resident(CheckpointLoader())
    for _ in range(2):
        await resident.load(load)
        await resident.free()
    assert len(built) == 1


def test_other_words_or_merges_are_never_taken_from_memory(asr_folder: Path, tmp_path: Path, built: list[int]) -> None:
    folder = unconverted(asr_folder, tmp_path / "asr")
    before = make_processor(folder, native=False).tokenizer.encode("The quick")
    merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:2]))
    assert len(make_processor(folder, native=False).tokenizer.encode("The quick")) > len(before)
    edited(folder / "vocab.json", lambda content: content.update({"a": content["b"], "b": content["a"]}))
    assert len(built) == 1 + 1
    make_processor(folder, native=False)
    assert len(built) == 1 + 1 + 1
    assert len(processor._vocabularies) <= 2  # and memory holds no more of them


@pytest.mark.parametrize("merges", ["#version: 0.2\r\na b\r\n\r\nc d", "a b\n\n  \nc d\n"])
def test_blank_lines_and_line_ends_do_not_matter(merges: str) -> None:
    assert processor._pairs(merges) == [("a", "b"), ("c", "d")]


def test_a_merge_of_three_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        processor._pairs("a b\na b c")


def test_a_temperature_in_generation_config_writes_no_warning(
    asr_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(asr_folder, tmp_path / "asr"))
    edited(folder / "generation_config.json", lambda content: content.update(do_sample=False, temperature=1e-6))
    with caplog.at_level(logging.WARNING):
        CheckpointLoader().load_recognizer(LoadOptions(model=str(folder), threads=1))
    assert "temperature" not in caplog.text + "".join(capfd.readouterr())
