"""Qwen3-ASR behind the Recognizer protocol.

The package's classes compute the mel and hold the layers; encoder.py encodes it, decoder.py computes the
answer. This module decides what they are given and reads what they answer: the prompt with its sound, the language and
the text.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from numpy.typing import NDArray
from transformers import GenerationConfig

from backend.checkpoint.find import Checkpoint
from backend.checkpoint.hub import fetch
from backend.checkpoint.validation import validate
from backend.engine.model.decoder import Decoder
from backend.engine.model.encoder import Encoder
from backend.engine.model.graph_capture import recorded
from backend.engine.model.qwen_package import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from backend.engine.model.session import Decoding, QwenSession
from backend.engine.model.windowed_attention import use_windows
from backend.engine.ops.device import Placement, max_prefill_s, mel_device, use_threads
from backend.engine.ops.int8 import int8_layers
from backend.engine.ops.linear import Layer, MakeLayer, PackedLinear, dense_linear, pack_linears, streamed_linear
from backend.engine.weights import Weights
from backend.errors import CheckpointRefused, NonFiniteLogits, named
from backend.languages import NAMES, code_of_name
from backend.serving.protocols import Recognition, Token, Utterance, recognize

_log = logging.getLogger(__name__)

_SAMPLE_RATE = 16_000
_SHORTEST = _SAMPLE_RATE // 2  # samples; the package pads to half a second, too: the encoder was trained on no less
_WARM_UP_TOKENS = 8
_POSITIONS_PER_SECOND = 20  # 12.5 of sound, fast speech, and the prompt
_TEXT_TAG = "<asr_text>"
_BARE_TAG = re.compile(r"\s*language(\s+\w+)?\s*")  # an answer that is no more than this, is none: it was cut short
# said every time: the default of the second asks on stdin whether to run a checkpoint's code
_OFFLINE = {"local_files_only": True, "trust_remote_code": False}

# transformers builds a model under another default dtype, process-wide; whatever computes meanwhile would get it, too
default_dtype = threading.Lock()


@dataclass
class Loaded:
    """A recogniser or an aligner on its device, its weights still to be read: `weights.fill` what is needed."""

    model: Qwen3ASRForConditionalGeneration
    processor: Qwen3ASRProcessor
    weights: Weights


def load(checkpoint: Checkpoint, placement: Placement) -> Loaded:
    """Raises CheckpointRefused where the files are not what config.json promises."""
    try:
        folder = Path(checkpoint.name) if checkpoint.local else fetch(checkpoint.name)
        validate(folder)
        config = Qwen3ASRConfig.from_pretrained(folder, **_OFFLINE)
        with default_dtype, init_empty_weights(include_buffers=False):
            model = Qwen3ASRForConditionalGeneration._from_config(
                config, dtype=placement.dtype, attn_implementation=placement.attention
            )
        model.thinker.tie_weights()
        model.generation_config = GenerationConfig.from_pretrained(folder, **_OFFLINE)
        processor = Qwen3ASRProcessor.from_pretrained(folder, fix_mistral_regex=True, **_OFFLINE)
        weights = Weights(folder, model, placement)
    except CheckpointRefused:
        raise
    except Exception as error:  # transformers, safetensors and the hub raise whatever they like
        _log.exception("the checkpoint could not be loaded")
        raise CheckpointRefused(
            f"the checkpoint '{named(checkpoint.name)}' could not be loaded ({type(error).__name__}); "
            "its files are incomplete, damaged or out of reach"
        ) from error
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(placement.device))
    if placement.attention != "flash_attention_2":  # flash-attn reads the windows' bounds itself
        use_windows(model)
    return Loaded(model.eval(), processor, weights)


def _eos_ids(loaded: Loaded) -> list[int]:
    """The tokens that end an answer. Raises CheckpointRefused: without them no answer would ever end."""
    # never the package's default ids: they are the real tokenizer's, and generate would not end with another
    eos = loaded.model.generation_config.eos_token_id
    ids = list(eos) if isinstance(eos, (list, tuple)) else [eos]
    known = loaded.model.thinker.config.text_config.vocab_size
    if not ids or not all(type(token) is int and 0 <= token < known for token in ids):
        raise CheckpointRefused("generation_config.json of the checkpoint names no token that ends an answer")
    if len(loaded.processor.tokenizer) > known:
        raise CheckpointRefused("the checkpoint's tokenizer has more tokens than its model knows")
    return ids


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of the distinct tensors of a model: tied weights count once."""
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values()) + sum(part.bytes for part in model.modules() if isinstance(part, PackedLinear))


def padded(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At least half a second of sound: silence behind what is shorter."""
    return samples if samples.size >= _SHORTEST else np.pad(samples, (0, _SHORTEST - samples.size))


def take_over(loaded: Loaded, layers: MakeLayer, quantized: bool = False) -> Decoder:
    """Read the weights, and compute by our encoder and our decoder, whose linear `layers` are made by this."""
    thinker, weights = loaded.model.thinker, loaded.weights
    pack_linears(thinker.audio_tower, weights.lend)
    linears = {m for layer in thinker.model.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)}
    weights.fill(m for m in loaded.model.modules() if m not in linears and not any(m.children()))
    thinker.audio_tower = Encoder(thinker.audio_tower)
    embedding = thinker.model.embed_tokens.weight  # which is the head's weight, too, in all recognisers so far

    def make(modules: Sequence[torch.nn.Linear]) -> Layer:
        weights.lend(modules)  # one stack after the other, where the one before it was
        return dense_linear(modules) if modules[0].weight is embedding and not quantized else layers(modules)

    quantized_on_cpu = quantized and embedding.device.type == "cpu"
    decoder = Decoder(thinker, make, torch.float32 if quantized_on_cpu else None)  # which those take and give
    weights.close()
    return decoder


def with_sound(thinker: Any, decoder: Decoder, inputs: Any) -> torch.Tensor:
    """The processor's prompts and their sound, embedded (rows, longest, hidden), after `take_over`."""
    embedded = decoder.embed(inputs["input_ids"])
    frames = inputs["feature_attention_mask"].sum(dim=1)
    # one packed call for all clips: the encoder's windows keep them apart
    packed = torch.cat([mel[:, :length] for mel, length in zip(inputs["input_features"], frames, strict=True)], 1)
    heard = thinker.audio_tower(packed, frames)
    embedded[inputs["input_ids"] == thinker.config.audio_token_id] = heard.to(embedded.dtype)
    return embedded


class QwenRecognizer:
    """A loaded Qwen3-ASR. See serving/protocols.Recognizer."""

    def __init__(
        self,
        loaded: Loaded,
        quantized: bool = False,
        threads: int | None = None,
        graphs: tuple[int, float] | None = None,
    ) -> None:
        """`graphs`: steps are recorded where that can be done; for so many rows of so many seconds, usually."""
        self._threads = threads
        self._tokenizing = threading.Lock()  # who pads or does not, changes the tokenizer, and fails if another uses it
        self.model = model = loaded.model
        self.processor = loaded.processor
        self.eos_ids = _eos_ids(loaded)
        with int8_layers() if quantized else nullcontext(streamed_linear) as layers:
            self.decoder = take_over(loaded, layers, quantized)
        self.max_prefill_s = max_prefill_s(model.device)
        self._decoding: Decoding = self.decoder
        if graphs is not None:
            rows, longest_s = graphs
            self._decoding = recorded(self.decoder, model.device, rows, round(longest_s * _POSITIONS_PER_SECOND))
        self.weight_bytes = weight_bytes(model) + self.decoder.extra_bytes

    def session(self) -> QwenSession:
        use_threads(self._threads)  # of the model thread, which begins the sessions
        return QwenSession(self._decoding, self._encoded, self._read, self.eos_ids)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        return recognize(self, utterances)

    def count_tokens(self, text: str) -> int:
        """At most one for each byte, of which its normal form may have three times as many."""
        with self._tokenizing:
            encoded = self.processor.tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return len(encoded[0].ids)  # `fast` is without offsets; one text alone is padded to its own length

    def warm_up(self) -> None:
        """One transcription of noise, of which nothing is kept: the first user does not pay for what comes once.

        What is wrong with a checkpoint beyond its files' form shows here. Raises CheckpointRefused.
        """
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * _SAMPLE_RATE).astype(np.float32)
        try:
            session = self.session()
            session.add([Utterance(noise, None, "", _WARM_UP_TOKENS)])
            while len(session):
                session.step()
        except NonFiniteLogits as error:
            raise CheckpointRefused(
                "the checkpoint computes no numbers (NaN); fetch it again, or set torch_dtype:fp32"
            ) from error
        except Exception as error:
            _log.exception("the warm-up failed")
            raise CheckpointRefused(
                f"the checkpoint is loaded, but its first transcription failed ({type(error).__name__}); "
                "its files do not fit each other, or the device has too little memory"
            ) from error

    def _encoded(self, utterances: Sequence[Utterance]) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompts with their sound, (rows, longest, hidden), and their lengths (rows,)."""
        with default_dtype, self._tokenizing:  # the mel filter bank is computed in the former
            inputs = self.processor(
                text=[self._prompt(u) for u in utterances],
                audio=[padded(u.samples) for u in utterances],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                audio_kwargs={"device": mel_device(self.model.device)},
            )
        inputs = inputs.to(self.model.device).to(self.model.dtype)
        return with_sound(self.model.thinker, self.decoder, inputs), inputs["attention_mask"].sum(dim=1)

    def _prompt(self, utterance: Utterance) -> str:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": utterance.prompt},
            {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        ]
        prompt: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if utterance.language is not None:
            prompt += f"language {NAMES[utterance.language]}{_TEXT_TAG}"
        return prompt

    def _read(self, utterance: Utterance, ids: list[int], finished: bool, looped: bool) -> Recognition:
        """What the tokens of an answer say."""
        answer: str = self.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        language = utterance.language
        if language is None:
            tag, found, text = answer.partition(_TEXT_TAG)
            language = code_of_name(tag.strip().removeprefix("language")) if found else None
            answer = text if found or _BARE_TAG.fullmatch(tag) else tag
        text = answer.replace("\ufffd", "").strip()  # a budget can end inside a character
        return Recognition(text, language if text else None, finished, self._tokens(text), looped)

    def _tokens(self, text: str) -> tuple[Token, ...]:
        """The tokens of the final text with the slices they write, for the reply's `tokens`."""
        with self._tokenizing:
            encoded = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return tuple(Token(token, begin, end) for token, (begin, end) in spans)
