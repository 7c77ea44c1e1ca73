"""The processor of a checkpoint: mel features, tokenizer and chat template, from its small files.

The parts are made one by one, not by the package's `from_pretrained`. That one puts Mistral's pre-tokenizer into large
vocabularies if it is told to (`fix_mistral_regex`), copies the tokenizer for a line of the log (0.3 s), and does not
read what transformers 5 writes.

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

from backend.checkpoint.validation import read_json_object
from backend.engine.model.qwen_package import Qwen3ASRProcessor
from backend.errors import CheckpointRefused

# Passed in every call: by default transformers asks on stdin whether it may run a checkpoint's code.
OFFLINE = {"local_files_only": True, "trust_remote_code": False}

PROMPT_TEMPLATE = (
    "<|im_start|>system\n{{ messages[0]['content'] }}<|im_end|>\n"
    "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
    "<|im_start|>assistant{{ '\n' }}"  # Jinja drops a line feed at the end of a template
)
"""Qwen's prompt for a system message and one recording, in every version: the package's template and that of
transformers render the same for these. It stands in for the template of a native checkpoint, which may be any."""

_SPLIT = (  # of Qwen's pre-tokenizer, as in transformers' Qwen2Converter
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_AUDIO_TOKENS = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>",
                 "audio_eos_token": "<|audio_end|>"}  # fmt: skip
_MOST_VOCABULARIES = 2  # of a recogniser and an aligner that have nothing in common

_vocabularies: dict[tuple[bytes, bytes], BPE] = {}  # by the digests of vocab.json and merges.txt, the latest last
_vocabularies_lock = threading.Lock()


def make_processor(folder: Path, native: bool) -> Any:
    """The package's processor for the checkpoint in `folder`. `native`: in transformers' layout, see checkpoint/layout.

    Raises CheckpointRefused, or what transformers raises over files that it cannot read.
    """
    template = PROMPT_TEMPLATE
    if not native:
        stored, _ = Qwen3ASRProcessor.get_processor_dict(folder, **OFFLINE)
        template = stored.get("chat_template", PROMPT_TEMPLATE)
    return Qwen3ASRProcessor(_mel_features(folder), _tokenizer(folder), chat_template=template)


def read_optional(path: Path) -> dict[str, Any]:
    """The JSON object in the file, {} where there is none. Raises CheckpointRefused."""
    return read_json_object(path) if path.is_file() else {}


def _mel_features(folder: Path) -> Any:
    """From preprocessor_config.json, or from processor_config.json, where transformers 5 nests it."""
    config: Any = read_optional(folder / "preprocessor_config.json")
    config = config or read_optional(folder / "processor_config.json").get("feature_extractor")
    if not isinstance(config, dict):
        raise CheckpointRefused(
            "the checkpoint could not be loaded: it has neither preprocessor_config.json "
            "nor a feature extractor in processor_config.json"
        )
    return WhisperFeatureExtractor.from_dict(config)


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
    options = _special_tokens(read_optional(folder / "tokenizer_config.json"))
    if not (folder / "tokenizer.json").is_file():
        options["tokenizer_object"] = _Made(_backend_tokenizer(folder))
    return _Tokenizer.from_pretrained(folder, fix_mistral_regex=False, **options, **OFFLINE)


def _special_tokens(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments with the tokens that the processor asks for by name, wherever tokenizer_config.json has them.

    transformers 5 has them in `model_specific_special_tokens`, and writes as `extra_special_tokens` the list that was
    `additional_special_tokens` before; transformers 4 fails with that list.
    """
    extra = config.get("extra_special_tokens")
    by_name: dict[str, Any] = {}
    for part in (_AUDIO_TOKENS, config, config.get("model_specific_special_tokens"), extra):
        if isinstance(part, dict):
            by_name |= {key: _content(part[key]) for key in _AUDIO_TOKENS if part.get(key)}
    others = {key: _content(token) for key, token in extra.items()} if isinstance(extra, dict) else {}
    arguments: dict[str, Any] = {"extra_special_tokens": {**others, **by_name}}
    if isinstance(extra, list) and not config.get("additional_special_tokens"):
        arguments["additional_special_tokens"] = [_content(token) for token in extra]
    return arguments


def _content(token: Any) -> Any:
    """A token's text: transformers writes it plainly, or as an object."""
    return token["content"] if isinstance(token, dict) and "content" in token else token


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
