"""The tokenizer is the checkpoint's own, and is made of its words once."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import Qwen2TokenizerFast

from backend.chat_format import tokenizer as tokenizer_files
from backend.chat_format.tokenizer import make_tokenizer
from backend.engine.loader import CheckpointLoader
from backend.engine.processor import make_processor
from backend.options.load_options import LoadOptions
from backend.serving.resident import Resident

# What Mistral's pattern splits otherwise: letters that change case inside a word, marks, several digits.
TEXTS = ("YouTube on my iPhone", "สวัสดีครับ", "don't I'LL", "a1b22", "日本語\n\n x", "café cafe\u0301", "<|im_start|>x")
TOKENS = (
    "a <more> b", "<|im_start|>  x <asr_text>  y", "<|im_end|><|endoftext|><asr_text>x<timestamp><|audio_pad|>",
)  # fmt: skip
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

    monkeypatch.setattr(tokenizer_files, "BPE", counting)
    monkeypatch.setattr(tokenizer_files, "_vocabularies", {})
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
    """As many words as in Qwen's own, and no added tokens."""
    folder = unconverted(asr_folder, tmp_path_factory.mktemp("large") / "asr")
    edited(folder / "vocab.json", grow)
    (folder / "added_tokens.json").unlink()
    edited(folder / "tokenizer_config.json", lambda content: content.pop("added_tokens_decoder"))
    return folder


@pytest.mark.parametrize("converted", [False, True])
def test_a_large_vocabulary_keeps_the_checkpoints_own_pre_tokenizer(
    large: Path, tmp_path: Path, converted: bool
) -> None:
    folder = Path(shutil.copytree(large, tmp_path / "copy"))
    own = tokenizer_files._backend_tokenizer(folder)
    if converted:
        own.save(str(folder / "tokenizer.json"))
    tokenizer = make_tokenizer(folder)
    assert tokenizer.get_vocab_size(with_added_tokens=False) > 100_000
    steps = json.loads(tokenizer.to_str())["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in steps] == ["Split", "ByteLevel"]
    assert steps[0]["pattern"] == {"Regex": QWEN_SPLIT}
    for text in TEXTS[:-1]:
        assert tokenizer.encode(text).ids == own.encode(text).ids


def without(*files: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return change


def in_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edited(folder / "tokenizer_config.json", change)


def strip(content: dict[str, Any]) -> None:
    for key in ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "audio_token"):
        content.pop(key)


before_4_34 = in_config(strip)  # added tokens in a file of their own, special ones in the map alone


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def one_more(special: bool) -> Callable[[dict[str, Any]], None]:
    def add(content: dict[str, Any]) -> None:
        token = {"content": "<more>", "lstrip": True, "normalized": False, "rstrip": True, "single_word": False}
        content["added_tokens_decoder"]["547"] = {**token, "special": special}

    return add


def with_spaces(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for token in content["added_tokens"]:
            token["rstrip"] = True

    edited(folder / "tokenizer.json", change)


# What changes the folder, which then has no tokenizer.json where the name says so.
SHAPES: dict[str, Callable[[Path], object]] = {
    "as transformers 4 writes it": lambda folder: None,
    "words and merges": without("tokenizer.json"),
    "words and merges, one more token": both(without("tokenizer.json"), in_config(one_more(False))),
    "one more token": in_config(one_more(False)),
    "one more special token": in_config(one_more(True)),
    "no added tokens but the tokenizer's": without("added_tokens.json", "special_tokens_map.json"),
    "before transformers 4.34": before_4_34,
    "words and merges, before transformers 4.34": both(without("tokenizer.json"), before_4_34),
    "no tokenizer_config.json": without("tokenizer_config.json"),
    "tokenizer.json alone": without("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"),
    "tokenizer.json alone, with spaces that belong to tokens": both(
        without("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"), with_spaces
    ),
    "before transformers 4.34, with spaces that belong to tokens": both(before_4_34, with_spaces),
    "no end of text": in_config(lambda content: content.update(eos_token=None, pad_token=None)),
    "a special token by name": in_config(lambda content: content.update(bos_token="<asr_text>")),
    "a listed special token": in_config(lambda content: content["additional_special_tokens"].append("<timestamp>")),
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)
def test_the_tokenizer_is_the_one_that_transformers_makes(
    asr_folder: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = Path(shutil.copytree(asr_folder, tmp_path / "asr"))
    change(folder)
    ours = make_processor(folder, 128).tokenizer
    theirs = Qwen2TokenizerFast.from_pretrained(folder, local_files_only=True)
    assert ours.get_vocab_size() == len(theirs)
    for text in (*TEXTS, *TOKENS):
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False)
    every = list(range(len(theirs)))
    for ids in (*([number] for number in every), every):
        decoded = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special_tokens=True) == decoded


def test_words_and_merges_make_the_very_tokenizer_that_transformers_makes(asr_folder: Path, tmp_path: Path) -> None:
    folder = unconverted(asr_folder, tmp_path / "asr")
    theirs = Qwen2TokenizerFast.from_pretrained(folder, local_files_only=True)
    assert make_tokenizer(folder).to_str() == theirs.backend_tokenizer.to_str()


@pytest.mark.parametrize("as_objects", [False, True])
def test_special_tokens_may_stand_where_transformers_5_writes_them(
    asr_folder: Path, tmp_path: Path, as_objects: bool
) -> None:
    def token(content: str) -> Any:
        return {"content": content, "__type": "AddedToken", "lstrip": False} if as_objects else content

    def rewrite(content: dict[str, Any]) -> None:
        named = {"audio_token": token("<|audio_pad|>"), "audio_bos_token": token("<|audio_start|>")}
        listed = [token("<|im_start|>"), token("<|audio_end|>")]
        content.clear()
        content.update(extra_special_tokens=listed, model_specific_special_tokens=named, eos_token=token("<|im_end|>"))

    folder = unconverted(asr_folder, tmp_path / "asr")
    edited(folder / "tokenizer_config.json", rewrite)
    (folder / "special_tokens_map.json").unlink()
    tokenizer = make_tokenizer(folder)
    special = "<|im_start|><|im_end|><|endoftext|><|audio_pad|><|audio_start|><|audio_end|>"
    ids = tokenizer.encode(f"{special}<asr_text>fox<timestamp>").ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<asr_text>fox<timestamp>"
    assert ids[:6] == [544, 539, 540, 541, 542, 543]


def test_padding_and_truncation_of_a_file_are_not_obeyed(asr_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(asr_folder, tmp_path / "asr"))
    asking = Tokenizer.from_file(str(folder / "tokenizer.json"))
    asking.enable_padding(length=50)
    asking.enable_truncation(1)
    asking.save(str(folder / "tokenizer.json"))
    asked, plain = (make_processor(each, 128).tokenizer.encode("The quick fox").ids for each in (folder, asr_folder))
    assert asked == plain


def test_the_words_of_recogniser_and_aligner_are_read_once_and_not_again_after_free(
    asr_folder: Path, aligner_folder: Path, tmp_path: Path, built: list[int]
) -> None:
    asr, aligner = unconverted(asr_folder, tmp_path / "asr"), unconverted(aligner_folder, tmp_path / "aligner")
    (asr / "added_tokens.json").unlink()
    edited(asr / "tokenizer_config.json", lambda content: content["added_tokens_decoder"].pop("546"))
    load = LoadOptions(model=str(asr), forced_aligner=str(aligner), threads=1, dtype="float32")
    loader = CheckpointLoader()
    first, aligned = loader.load_recognizer(load), loader.load_aligner(load)
    assert built == [first.processor.tokenizer.get_vocab_size(with_added_tokens=False)]
    assert len(first.processor.tokenizer.encode("<timestamp>").ids) > 1  # the aligner's added token is its own
    assert aligned.processor.tokenizer.encode("<timestamp>").ids == [aligned.slot_id]
    first.processor.tokenizer.enable_padding(length=50)  # and so is its state
    assert len(aligned.processor.tokenizer.encode("x").ids) == 1
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
    before = make_tokenizer(folder).encode("The quick").ids
    merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:2]))
    assert len(make_tokenizer(folder).encode("The quick").ids) > len(before)
    edited(folder / "vocab.json", lambda content: content.update({"a": content["b"], "b": content["a"]}))
    assert len(built) == 1 + 1
    make_tokenizer(folder)
    assert len(built) == 1 + 1 + 1
    assert len(tokenizer_files._vocabularies) <= 2  # and memory holds no more of them


def test_an_idle_release_leaves_no_vocabulary(asr_folder: Path, tmp_path: Path, built: list[int]) -> None:
    folder = unconverted(asr_folder, tmp_path / "asr")
    before = make_tokenizer(folder).encode("The quick").ids
    CheckpointLoader().reclaim()
    assert tokenizer_files._vocabularies
    CheckpointLoader().reclaim(idle=True)
    assert not tokenizer_files._vocabularies
    assert make_tokenizer(folder).encode("The quick").ids == before
    assert len(built) == 2


@pytest.mark.parametrize("merges", ["#version: 0.2\r\na b\r\n\r\nc d", "a b\n\n  \nc d\n"])
def test_blank_lines_and_line_ends_do_not_matter(merges: str) -> None:
    assert tokenizer_files._pairs(merges) == [("a", "b"), ("c", "d")]


def test_a_merge_of_three_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        tokenizer_files._pairs("a b\na b c")


def test_a_temperature_in_generation_config_writes_no_warning(
    asr_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(asr_folder, tmp_path / "asr"))
    edited(folder / "generation_config.json", lambda content: content.update(do_sample=False, temperature=1e-6))
    with caplog.at_level(logging.WARNING):
        CheckpointLoader().load_recognizer(LoadOptions(model=str(folder), threads=1))
    assert "temperature" not in caplog.text + "".join(capfd.readouterr())
