"""The processor of a checkpoint: mel features, tokenizer and chat template, from its small files.

The parts are made one by one, not by the package's `from_pretrained`. That one puts Mistral's pre-tokenizer into large
vocabularies if it is told to (`fix_mistral_regex`), and copies the tokenizer for a line of the log (0.3 s).

A tokenizer without tokenizer.json, as in Qwen's own folders, is made of vocab.json and merges.txt. Its vocabulary is
read once in this process and shared: the recogniser, the aligner and the next load have the same one, each with its own
added tokens and its own state. It is kept by the files' content, so other files never get it, and stays in memory after
Free (56 MB for 151,643 words). It is not kept on disk: reading a tokenizer.json back takes as long as making it anew,
and a file that others can write would have to be distrusted.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import Qwen2TokenizerFast, WhisperFeatureExtractor

from backend.engine.model.qwen_package import Qwen3ASRProcessor

# Passed in every call: by default transformers asks on stdin whether it may run a checkpoint's code.
OFFLINE = {"local_files_only": True, "trust_remote_code": False}

_SPLIT = (  # of Qwen's pre-tokenizer, as in transformers' Qwen2Converter
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MOST_VOCABULARIES = 2  # of a recogniser and an aligner that have nothing in common

_vocabularies: dict[tuple[bytes, bytes], BPE] = {}  # by the digests of vocab.json and merges.txt, the latest last
_vocabularies_lock = threading.Lock()


def make_processor(folder: Path) -> Any:
    """The package's processor for the checkpoint in `folder`. Raises what transformers raises over bad files."""
    stored, _ = Qwen3ASRProcessor.get_processor_dict(folder, **OFFLINE)
    features = WhisperFeatureExtractor.from_pretrained(folder, **OFFLINE)
    return Qwen3ASRProcessor(features, _tokenizer(folder), chat_template=stored.get("chat_template"))


# Without the slow tokenizer that would be made first, and then converted. Named like its base, which transformers
# compares with tokenizer_config.json.
_Tokenizer: Any = type("Qwen2TokenizerFast", (Qwen2TokenizerFast,), {"slow_tokenizer_class": None})


class _Made:
    """Hands its tokenizer to transformers, which copies what it is given, in a third of a second."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self.tokenizer


def _tokenizer(folder: Path) -> Any:
    options = {}
    if not (folder / "tokenizer.json").is_file():
        options["tokenizer_object"] = _Made(_backend_tokenizer(folder))
    return _Tokenizer.from_pretrained(folder, fix_mistral_regex=False, **options, **OFFLINE)


def _backend_tokenizer(folder: Path) -> Tokenizer:
    """Qwen's tokenizer without its added tokens: what transformers' Qwen2Converter makes of the same files."""
    tokenizer = Tokenizer(_vocabulary(folder))  # shares it
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _vocabulary(folder: Path) -> BPE:
    words, merges = (folder / "vocab.json").read_bytes(), (folder / "merges.txt").read_bytes()
    key = hashlib.sha256(words).digest(), hashlib.sha256(merges).digest()
    with _vocabularies_lock:
        vocabulary = _vocabularies.pop(key, None)
        if vocabulary is None:
            pairs = _pairs(merges.decode("utf-8"))
            vocabulary = BPE(json.loads(words), pairs, continuing_subword_prefix="", end_of_word_suffix="")
        _vocabularies[key] = vocabulary
        while len(_vocabularies) > _MOST_VOCABULARIES:
            del _vocabularies[next(iter(_vocabularies))]
    return vocabulary


def _pairs(merges: str) -> list[tuple[str, str]]:
    """The merges, in order. Raises ValueError where a line has other than two parts."""
    lines = merges.split("\n")
    if lines[0].startswith("#version:"):
        del lines[0]
    return [(first, second) for first, second in (line.split() for line in lines if line.strip())]
