"""Qwen3-ASR behind the Recognizer protocol.

The package's model and processor classes do the arithmetic; this module decides what they are given and reads what
they answer: the prompt, the token budget, the end of an answer, its language and text. One thread at a time: the
package's `rope_deltas` is module state that two concurrent generate calls corrupt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qwen_asr.core.transformers_backend import Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from transformers import LogitsProcessor, StoppingCriteria

from backend.engine.checkpoint import Checkpoint
from backend.engine.device import Placement
from backend.engine.loops import LOOKED_AT, loops
from backend.engine.recognizer import Recognition, Token, Utterance
from backend.engine.windows import use_windows
from backend.errors import CheckpointRefused
from backend.languages import NAMES, code_of_name

_log = logging.getLogger(__name__)

_SAMPLE_RATE = 16_000
_SHORTEST = _SAMPLE_RATE // 2  # samples; the package pads to half a second, too: the encoder was trained on no less
_TEXT_TAG = "<asr_text>"

# The package imports DyNet (through nagisa), whose build switches denormal floats off for the thread that imports it
torch.set_flush_denormal(False)

# transformers builds a model under another default dtype, process-wide; whatever computes meanwhile would get it, too
default_dtype = threading.Lock()


def load(checkpoint: Checkpoint, placement: Placement) -> tuple[Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor]:
    """Model and processor of a recogniser or an aligner, ready on the device.

    Raises CheckpointRefused where the files are not what config.json promises.
    """
    on_cpu = placement.device.type == "cpu"
    try:
        with default_dtype:
            model, report = Qwen3ASRForConditionalGeneration.from_pretrained(
                checkpoint.name,
                dtype=placement.dtype,
                attn_implementation=placement.attention,
                device_map=None if on_cpu else {"": str(placement.device)},
                use_safetensors=True,  # a pickle runs code
                trust_remote_code=False,  # the default asks on stdin
                local_files_only=checkpoint.local,
                output_loading_info=True,
            )
        processor = Qwen3ASRProcessor.from_pretrained(
            checkpoint.name, fix_mistral_regex=True, local_files_only=checkpoint.local
        )
    except Exception as error:  # transformers, safetensors and the hub raise whatever they like
        _log.exception("the checkpoint could not be loaded")
        raise CheckpointRefused(
            f"the checkpoint {checkpoint.name!r} could not be loaded ({type(error).__name__}); "
            "its files are incomplete, damaged or out of reach"
        ) from error
    embedding, head = model.thinker.model.embed_tokens.weight, model.thinker.lm_head.weight
    tied = {"thinker.lm_head.weight"} if head.data_ptr() == embedding.data_ptr() else set()
    if set(report["missing_keys"]) - tied or report["mismatched_keys"]:
        raise CheckpointRefused(
            f"the checkpoint {checkpoint.name!r} lacks weights or holds others than its config says"
        )
    if placement.attention != "flash_attention_2":  # flash-attn reads the windows' bounds itself
        use_windows(model)
    return model.eval(), processor


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of the distinct tensors of a model: tied weights count once."""
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


def padded(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At least half a second of sound: silence behind what is shorter."""
    return samples if samples.size >= _SHORTEST else np.pad(samples, (0, _SHORTEST - samples.size))


class AnswerWatch(StoppingCriteria):  # type: ignore[misc] # transformers is untyped
    """Ends each row of a batch at its own budget, or where it has begun to repeat itself.

    `stopped`: row -> tokens of its answer, for the rows that were ended here; `looped`: those that repeated themselves.
    """

    def __init__(self, begin: int, budgets: list[int], eos_ids: list[int]) -> None:
        self.budgets = budgets
        self.stopped: dict[int, int] = {}
        self.looped: set[int] = set()
        self._begin = begin  # where the answers begin, behind the prompt
        self._eos_ids = set(eos_ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_unused: Any) -> torch.Tensor:
        written = input_ids.shape[1] - self._begin
        tails = input_ids[:, max(self._begin, input_ids.shape[1] - LOOKED_AT) :].tolist()
        for row, tail in enumerate(tails):
            if row in self.stopped or tail[-1] in self._eos_ids:  # ended, by itself or here: what follows is padding
                continue
            if written >= self.budgets[row]:
                self.stopped[row] = self.budgets[row]
            elif loops(tail):
                self.stopped[row] = written
                self.looped.add(row)
        return torch.tensor([row in self.stopped for row in range(len(tails))], device=input_ids.device)


class RepetitionPenalties(LogitsProcessor):  # type: ignore[misc] # transformers is untyped
    """Divides the logits of tokens that a row's answer already holds (arXiv 1909.05858), by each row's own penalty.

    transformers' own takes one penalty for all rows, and counts the prompt's tokens too.
    """

    def __init__(self, begin: int, penalties: list[float]) -> None:
        self._begin = begin
        self._penalties = penalties

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids[:, self._begin :]
        penalty = torch.tensor(self._penalties, device=scores.device, dtype=scores.dtype)[:, None]
        score = scores.gather(1, said)
        return scores.scatter(1, said, torch.where(score < 0, score * penalty, score / penalty))


class QwenRecognizer:
    """A loaded Qwen3-ASR. See engine/recognizer.Recognizer."""

    def __init__(self, model: Qwen3ASRForConditionalGeneration, processor: Qwen3ASRProcessor) -> None:
        self.model = model
        self.processor = processor
        eos = model.generation_config.eos_token_id
        # never the package's default ids: they are the real tokenizer's, and generate would not end with another
        self.eos_ids = list(eos) if isinstance(eos, (list, tuple)) else [eos]
        self.weight_bytes = weight_bytes(model)

    @torch.inference_mode()
    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        with default_dtype:
            return self._recognize(utterances)

    def _recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        inputs = self.processor(
            text=[self._prompt(u) for u in utterances],
            audio=[padded(u.samples) for u in utterances],
            return_tensors="pt",
            padding=True,
        )
        inputs = inputs.to(self.model.device).to(self.model.dtype)
        begin = inputs["input_ids"].shape[1]
        watch = AnswerWatch(begin, [u.max_new_tokens for u in utterances], self.eos_ids)
        penalties = [u.repetition_penalty for u in utterances]
        answers = self.model.thinker.generate(
            **inputs,
            max_new_tokens=max(watch.budgets),
            eos_token_id=self.eos_ids,
            pad_token_id=self.eos_ids[-1],
            do_sample=False,
            stopping_criteria=[watch],
            logits_processor=[] if set(penalties) == {1.0} else [RepetitionPenalties(begin, penalties)],
        )
        written = answers[:, begin:].tolist()
        return [
            self._read(u, ids[: watch.stopped.get(row)], row in watch.looped)
            for row, (u, ids) in enumerate(zip(utterances, written, strict=True))
        ]

    def _prompt(self, utterance: Utterance) -> str:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": utterance.prompt},
            {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        ]
        prompt: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if utterance.language is not None:
            prompt += f"language {NAMES[utterance.language]}{_TEXT_TAG}"
        return prompt

    def _read(self, utterance: Utterance, ids: list[int], looped: bool) -> Recognition:
        """What one row of generated tokens says; rows shorter than the batch's longest are padded behind their EOS."""
        ends = [i for i, token in enumerate(ids) if token in self.eos_ids]
        if ends:
            ids = ids[: ends[0]]
        answer: str = self.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        language = utterance.language
        if language is None:
            tag, found, text = answer.partition(_TEXT_TAG)
            language = code_of_name(tag.strip().removeprefix("language")) if found else None
            answer = text if found else tag
        text = answer.replace("\ufffd", "").strip()  # a budget can end inside a character
        return Recognition(text, language if text else None, bool(ends), self._tokens(text), looped)

    def _tokens(self, text: str) -> tuple[Token, ...]:
        """The tokens of the final text with the slices they write, for the reply's `tokens`."""
        encoded = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return tuple(Token(token, begin, end) for token, (begin, end) in spans)
