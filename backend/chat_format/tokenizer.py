"""The tokenizer of a checkpoint, from its small files.

One without tokenizer.json, as in Qwen's own folders, is made of vocab.json and merges.txt. Its vocabulary is
read once in this process and shared: the recogniser, the aligner and the next load have the same one, each with its own
added tokens and its own state. It is kept by the files' content, so other files never get it, and stays in memory after
Free (56 MB for 151,643 words), but not while a model is released for idleness. It is not kept on disk: reading a
tokenizer.json back takes as long as making it anew, and a file that others can write would have to be distrusted.

A folder's chat template is not read: it is a program, and the prompt is fixed by the training (prompt_format.py).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from backend.checkpoint.validation import read_optional
from backend.errors import CheckpointRefused
from backend.process.machine.system_cause import system_cause

_SPLIT = (  # of Qwen's pre-tokenizer, as in transformers' Qwen2Converter
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MOST_VOCABULARIES = 2  # of a recogniser and an aligner that have nothing in common

_END_OF_TEXT = "<|endoftext|>"
# The special tokens of Qwen's tokenizer and of the package's processor, with what they are where no file says it.
_NAMED = {
    "bos_token": None, "eos_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT, "sep_token": None,
    "pad_token": _END_OF_TEXT, "cls_token": None, "mask_token": None,
}  # fmt: skip
_AUDIO = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
_MORE = "additional_special_tokens"
_ADDED_TOKEN_KEYS = ("single_word", "lstrip", "rstrip", "normalized")

_vocabularies: dict[tuple[bytes, bytes], BPE] = {}  # by the digests of vocab.json and merges.txt, the latest last
_vocabularies_lock = threading.Lock()


def make_tokenizer(folder: Path) -> Tokenizer:
    """From tokenizer.json, or from vocab.json and merges.txt, with the added tokens of the other files.

    Without padding and truncation, so that threads can share it. Raises CheckpointRefused, which names the files.
    """
    if (folder / "tokenizer.json").is_file():
        with _damage_of("tokenizer.json"):
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        with _damage_of("vocab.json or merges.txt"):
            tokenizer = _backend_tokenizer(folder)
    own = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    with _damage_of("tokenizer_config.json, special_tokens_map.json or added_tokens.json"):
        tokenizer.add_tokens(list(_added_tokens(folder, own)))
    tokenizer.no_padding()  # a file of the checkpoint may ask for either
    tokenizer.no_truncation()
    return tokenizer


@contextmanager
def _damage_of(files: str) -> Iterator[None]:
    """Any error inside becomes a refusal that names the files."""
    try:
        yield
    except CheckpointRefused:
        raise
    except Exception as error:  # foreign code: tokenizers documents no common error
        cause = system_cause(error) or "it is damaged, or no tokenizer of this model"
        raise CheckpointRefused(
            f"{files} of the checkpoint cannot be used ({type(error).__name__}): {cause}"
        ) from error


def _added_tokens(folder: Path, own: dict[str, AddedToken]) -> Iterator[AddedToken]:
    """What transformers 4.57.6 adds to the tokenizer, in its order: numbered tokens, then special ones by name.

    Numbered tokens are in tokenizer_config.json (`added_tokens_decoder`); before transformers 4.34 they were in
    added_tokens.json, and the special ones in special_tokens_map.json. transformers 5 has them in tokenizer.json.

    `own`: those that the tokenizer has already, which describe what other files only name.
    """
    config = read_optional(folder / "tokenizer_config.json")
    numbered: dict[int, Any] = {}
    if config.get("added_tokens_decoder") is not None:
        numbered = {int(number): token for number, token in config["added_tokens_decoder"].items()}
    else:
        config = _merged(config, read_optional(folder / "special_tokens_map.json"))
        numbered = {number: text for text, number in read_optional(folder / "added_tokens.json").items()}
    special = {_content(token): token for token in _special_tokens(config)}
    tokens = {_content(token): token for _, token in sorted(numbered.items())}
    tokens |= {text: token for text, token in special.items() if text not in tokens or isinstance(token, dict)}
    for content, token in tokens.items():
        described: dict[str, Any] = token if isinstance(token, dict) else {}
        if not described and content in own:
            described = {key: getattr(own[content], key) for key in (*_ADDED_TOKEN_KEYS, "special")}
        options = {key: described[key] for key in _ADDED_TOKEN_KEYS if key in described}
        yield AddedToken(content, special=content in special or bool(described.get("special")), **options)


def _merged(config: dict[str, Any], special_tokens_map: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json with what special_tokens_map.json says otherwise, or more."""
    more = [*(config.get(_MORE) or []), *(special_tokens_map.get(_MORE) or [])]
    return {**config, **special_tokens_map, _MORE: more}


def _special_tokens(config: dict[str, Any]) -> list[Any]:
    """The special tokens of tokenizer_config.json, by name and listed, each as its text or as an object.

    transformers 5 has the processor's own in `model_specific_special_tokens`, and writes as `extra_special_tokens` the
    list that was `additional_special_tokens` before.
    """
    extra, audio = config.get("extra_special_tokens"), dict(_AUDIO)
    for part in (config, config.get("model_specific_special_tokens"), extra):
        if isinstance(part, dict):
            audio |= {key: part[key] for key in _AUDIO if part.get(key)}
    others = [token for key, token in extra.items() if key not in _AUDIO] if isinstance(extra, dict) else []
    more = config.get(_MORE) or (extra if isinstance(extra, list) else [])
    named = [config.get(key, default) for key, default in _NAMED.items()]
    return [token for token in (*named, *more, *others, *audio.values()) if token]


def _content(token: Any) -> str:
    """A token's text: transformers writes it plainly, or as an object."""
    content: str = token["content"] if isinstance(token, dict) else token
    return content


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


def forget_vocabularies() -> None:
    """Give up those that no tokenizer has; the next load reads them again, in half a second."""
    with _vocabularies_lock:
        _vocabularies.clear()


def _pairs(merges: str) -> list[tuple[str, str]]:
    """The merges, in order. Raises ValueError where a line has other than two parts."""
    lines = merges.split("\n")
    if lines[0].startswith("#version:"):
        del lines[0]
    return [(first, second) for first, second in (line.split() for line in lines if line.strip())]
