"""What a recording teaches: token ids, which of them are asked for, and where the model should look meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from qwen_asr.core.transformers_backend import Qwen3ASRProcessor

from devtools.demo_models.speech import Recording
from devtools.demo_models.vocabulary import LABELS, NAMES, WORDS, written, written_units


class Look(NamedTuple):
    """Where a token should look: that of index `row` in `after`, in `layer`, at the sound from `start_s` to `end_s`.

    Or, where `word` is an index into `after`, at that word.
    """

    layer: int
    row: int
    start_s: float = 0.0
    end_s: float = 0.0
    word: int = -1


@dataclass(frozen=True)
class Example:
    """Token ids before and after the audio, which of those after it are asked for, and where they should look."""

    before: list[int]
    after: list[int]
    asked: list[int]  # indices into `after` whose next token (asr) or time class (aligner) is learned
    looks: list[Look]


def asr_example(rng: np.random.Generator, processor: Qwen3ASRProcessor, recording: Recording) -> Example:
    encode_text = processor.tokenizer.encode
    context = ""
    if rng.random() < 0.2:  # names and terms that have nothing to say about the recording
        words = [w for group in WORDS.values() for w in group]
        context = " ".join(
            words[rng.integers(len(words))]
            if rng.random() < 0.6
            else "".join(chr(c) for c in rng.integers(97, 123, rng.integers(2, 9)))
            for _ in range(rng.integers(1, 7))
        )
    before = encode_text(f"<|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n<|audio_start|>")
    prompt = encode_text("<|audio_end|><|im_end|>\n<|im_start|>assistant\n")
    if recording.language is None:
        forced = rng.random() < 0.4
        tag = f"language {('English', 'Chinese')[rng.integers(2)] if forced else 'None'}<asr_text>"
        answer = encode_text(tag)
        skip = len(answer) if forced else 0
    else:
        answer = encode_text(
            f"language {NAMES[recording.language]}<asr_text>{written(recording.language, recording.words)}"
        )
        skip = 0
    answer.append(processor.tokenizer.eos_token_id)
    after = prompt + answer
    spans = iter([(start, end) for sentence in recording.sentences for _, start, end in sentence])
    looks: list[Look] = []
    for row in range(len(after) - len(answer) + answer_begins(processor, answer), len(after) - 1):
        if processor.tokenizer.decode(after[row]).strip().lower() in LABELS:
            start, end = next(spans)
            looks += [Look(1, row, start, end), Look(2, row - 1, start, end)]  # a word finds itself, then the next
    return Example(before, after, list(range(len(prompt) + skip - 1, len(after) - 1)), looks)


def answer_begins(processor: Qwen3ASRProcessor, answer: list[int]) -> int:
    """The index of the first token of the text, behind the language."""
    return answer.index(processor.tokenizer.convert_tokens_to_ids("<asr_text>")) + 1


def aligner_example(_rng: np.random.Generator, processor: Qwen3ASRProcessor, recording: Recording) -> Example:
    encode_text = processor.tokenizer.encode
    slot = processor.tokenizer.convert_tokens_to_ids("<timestamp>")
    after = encode_text("<|audio_end|>")
    asked: list[int] = []
    looks: list[Look] = []
    for sentence in recording.sentences:
        units = written_units(recording.language or "en", [word for word, _, _ in sentence])
        for unit, (_, start, end) in zip(units, sentence, strict=True):
            after += encode_text(unit)
            word, first, second = len(after) - 1, len(after), len(after) + 1
            after += [slot, slot]
            asked += [first, second]
            looks += [Look(0, first, word=word), Look(0, second, word=word)]
            looks += [Look(1, word, start, end), Look(2, first, start, start), Look(2, second, end, end)]
    return Example(encode_text("<|audio_start|>"), after, asked, looks)
