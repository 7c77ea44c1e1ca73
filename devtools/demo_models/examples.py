"""What a recording teaches: token ids, the positions whose output is learned, and what they should attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from qwen_asr.core.transformers_backend import Qwen3ASRProcessor

from devtools.demo_models.speech import Recording
from devtools.demo_models.vocabulary import LABELS, NAMES, WORDS


class AttentionTarget(NamedTuple):
    """In `layer`, token `row` of `after` should attend to the sound from `start_s` to `end_s`, or to token `word`."""

    layer: int
    row: int
    start_s: float = 0.0
    end_s: float = 0.0
    word: int = -1


@dataclass(frozen=True)
class Example:
    """Token ids before and after the audio. `learned` and the rows of `targets` are indices into `after`."""

    before: list[int]
    after: list[int]
    learned: list[int]  # whose next token (asr) or time class (aligner) is learned
    targets: list[AttentionTarget]


def asr_example(rng: np.random.Generator, processor: Qwen3ASRProcessor, recording: Recording) -> Example:
    encode = processor.tokenizer.encode
    before = encode(f"<|im_start|>system\n{_context(rng)}<|im_end|>\n<|im_start|>user\n<|audio_start|>")
    prompt = encode("<|audio_end|><|im_end|>\n<|im_start|>assistant\n")
    is_forced = recording.language is None and rng.random() < 0.4  # the language is in the prompt: nothing to learn
    name = NAMES.get(recording.language or "") or (("English", "Chinese")[rng.integers(2)] if is_forced else "None")
    answer = encode(f"language {name}<asr_text>{recording.text}")
    skipped = len(answer) if is_forced else 0
    answer.append(processor.tokenizer.eos_token_id)
    after = prompt + answer
    text_begin = len(prompt) + answer.index(processor.tokenizer.convert_tokens_to_ids("<asr_text>")) + 1
    spoken = iter(recording.spoken)
    targets: list[AttentionTarget] = []
    for row in range(text_begin, len(after) - 1):
        if processor.tokenizer.decode(after[row]).strip().lower() in LABELS:
            _, start, end = next(spoken)  # a word attends to its own sound, the token before it to the next word's
            targets += [AttentionTarget(1, row, start, end), AttentionTarget(2, row - 1, start, end)]
    return Example(before, after, list(range(len(prompt) + skipped - 1, len(after) - 1)), targets)


def _context(rng: np.random.Generator) -> str:
    """Mostly none; else words and names that have nothing to do with the recording."""
    if rng.random() >= 0.2:
        return ""
    words = [w for group in WORDS.values() for w in group]
    return " ".join(
        words[rng.integers(len(words))]
        if rng.random() < 0.6
        else "".join(chr(c) for c in rng.integers(97, 123, rng.integers(2, 9)))
        for _ in range(rng.integers(1, 7))
    )


def aligner_example(_rng: np.random.Generator, processor: Qwen3ASRProcessor, recording: Recording) -> Example:
    encode = processor.tokenizer.encode
    slot = processor.tokenizer.convert_tokens_to_ids("<timestamp>")
    after = encode("<|audio_end|>")
    learned: list[int] = []
    targets: list[AttentionTarget] = []
    for unit, start, end in recording.units:
        after += [*encode(unit), slot, slot]
        word, first, second = range(len(after) - 3, len(after))
        learned += [first, second]
        targets += [AttentionTarget(0, first, word=word), AttentionTarget(0, second, word=word)]
        targets += [AttentionTarget(1, word, start, end)]
        targets += [AttentionTarget(2, first, start, start), AttentionTarget(2, second, end, end)]
    return Example(encode("<|audio_start|>"), after, learned, targets)
