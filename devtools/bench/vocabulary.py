"""The tokenizer of the bench checkpoints, and the words that they say.

It has the size of the released one, and its special tokens have the released ids: two of them, which end an answer,
stand in the package's code. All else is made up.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from devtools.server_process import DEMO_MODEL

if TYPE_CHECKING:
    from tokenizers import Tokenizer  # type: ignore[import-untyped]

SPECIAL = {
    "<|endoftext|>": 151_643,
    "<|im_start|>": 151_644,
    "<|im_end|>": 151_645,
    "<|audio_start|>": 151_669,
    "<|audio_end|>": 151_670,
    "<|audio_pad|>": 151_676,
}
NOT_SPECIAL = {"<asr_text>": 151_704, "<timestamp>": 151_705}  # decoding must keep <asr_text>: it ends the language
_PROTOCOL = ("system", "user", "assistant", "language", " None", " English", " Chinese")
_SYLLABLES = ["".join(pair) for pair in itertools.product("bdfghjklmnprstvz", "aeio")]
# 4096 words of one token each, as most words of a real transcript are
WORDS = tuple(f" {first}{second}" for first, second in itertools.product(_SYLLABLES, repeat=2))


def make_core() -> Tokenizer:
    """Bytes, the words, and meaningless entries up to the special ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    demo, learned = Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json")), Tokenizer(models.BPE())
    learned.pre_tokenizer = demo.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=16_384, initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator([*_PROTOCOL, *WORDS], trainer)
    model = json.loads(learned.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    named = {token_id: token for token, token_id in (SPECIAL | NOT_SPECIAL).items()}
    for token_id in range(len(vocabulary), max(named) + 1):
        vocabulary[named.get(token_id, f"<|nothing-{token_id}|>")] = token_id
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge) for merge in model["merges"]]))
    core.pre_tokenizer, core.decoder = demo.pre_tokenizer, decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL])
    return core


def chain(core: Tokenizer, words: int) -> list[int]:
    """Token ids from the end of the prompt to the end of the answer: newline, language, `words` words, end."""
    if not 0 < words <= len(WORDS):
        raise ValueError(f"a chain has 1 to {len(WORDS)} words, not {words}")
    # a byte-level vocabulary writes newline and space as these two
    said = ["\u010a", "language", "\u0120English", "<asr_text>"]
    said += [word.replace(" ", "\u0120") for word in WORDS[:words]]
    ids = [core.token_to_id(token) for token in (*said, "<|im_end|>")]
    assert None not in ids
    return ids


def text_of(words: int) -> str:
    """The transcript of a checkpoint with so many words."""
    return "".join(WORDS[:words]).strip()
