"""Qwen3-ASR behind the Recognizer protocol.

It owns the prompt's format (system message, audio, forced language) and the answer's format (language tag, text). Mel
features and embeddings are computed in prompts.py, tokens are generated in session.py.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from backend.engine.model.graph_capture import with_cuda_graphs
from backend.engine.model.model_builder import BuiltModel, default_dtype_lock, load_weights, weight_bytes
from backend.engine.model.prompts import embed_prompts, prompt_inputs
from backend.engine.model.session import QwenSession, SessionDecoder
from backend.engine.ops.device import max_prefill_s, use_threads
from backend.engine.ops.int8 import int8_layers
from backend.engine.ops.linear import streamed_linear
from backend.engine.ops.transfer import send
from backend.errors import CheckpointRefused, NonFiniteLogits
from backend.languages import NAMES, code_of_name
from backend.serving.protocols import SAMPLE_RATE, Recognition, Token, Utterance, recognize

_log = logging.getLogger(__name__)

_WARM_UP_TOKENS = 8
_POSITIONS_PER_SECOND = 20  # of the KV cache: 12.5 audio tokens, and the tokens of fast speech and of the prompt
_TEXT_TAG = "<asr_text>"
_BARE_TAG = re.compile(r"\s*language(\s+\w+)?\s*")  # an answer that is no more than this was cut inside its tag


class QwenRecognizer:
    """A loaded Qwen3-ASR. See serving/protocols.Recognizer."""

    def __init__(
        self,
        built: BuiltModel,
        quantized: bool = False,
        threads: int | None = None,
        graphs: tuple[int, float] | None = None,
    ) -> None:
        """Reads the weights. Raises CheckpointRefused.

        `quantized`: the decoder in int8. `threads`: of the model thread; None: torch's choice. `graphs`: decode with
        CUDA graphs where that works, with memory for so many rows of so many seconds; None: without.
        """
        self._threads = threads
        # The fast tokenizer keeps its padding as state: one call that changes it while another runs fails.
        self._tokenizer_lock = threading.Lock()
        self.model = model = built.model
        self.processor = built.processor
        self.eos_ids = _eos_ids(built)
        with int8_layers() if quantized else nullcontext(streamed_linear) as make_layer:
            self.decoder = load_weights(built, make_layer, quantized)
        self.max_prefill_s = max_prefill_s(model.device)
        self._session_decoder: SessionDecoder = self.decoder
        if graphs is not None:
            rows, longest_s = graphs
            positions = round(longest_s * _POSITIONS_PER_SECOND)
            self._session_decoder = with_cuda_graphs(self.decoder, model.device, rows, positions)
        self.weight_bytes = weight_bytes(model) + self.decoder.extra_bytes

    def session(self) -> QwenSession:
        use_threads(self._threads)  # the model thread calls this, and OpenMP counts threads by the calling thread
        return QwenSession(self._session_decoder, self._encode, self._parse_answer, self.eos_ids)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        return recognize(self, utterances)

    def count_tokens(self, text: str) -> int:
        """At most one token for each byte of the text's normal form (NFC), which may be three times its length."""
        with self._tokenizer_lock:
            encoded = self.processor.tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return len(encoded[0].ids)  # `fast`: without offsets; one text alone gets no padding

    def warm_up(self) -> None:
        """Transcribe noise and discard the result, so that the first request does not pay for what happens only once.

        It also finds what is wrong with a checkpoint beyond the form of its files. Raises CheckpointRefused.
        """
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
        try:
            session = self.session()
            session.add([Utterance(noise, None, "", _WARM_UP_TOKENS)])
            while len(session):
                session.step()
        except NonFiniteLogits as error:
            raise CheckpointRefused(
                "the model produced NaN or inf logits in its first transcription; fetch the checkpoint again, "
                "or set torch_dtype:fp32"
            ) from error
        except Exception as error:  # foreign code: the package and torch, run with files that may not fit each other
            _log.exception("the warm-up failed")
            raise CheckpointRefused(
                f"the checkpoint is loaded, but its first transcription failed ({type(error).__name__}); "
                "its files do not fit each other, or the device has too little memory"
            ) from error

    def _encode(self, utterances: Sequence[Utterance]) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedded prompts (rows, longest, hidden), and their lengths (rows,)."""
        with default_dtype_lock, self._tokenizer_lock:
            texts = [self._prompt(utterance) for utterance in utterances]
            inputs = prompt_inputs(self.model, self.processor, texts, [u.samples for u in utterances])
        embedded = embed_prompts(self.model.thinker, self.decoder, inputs)
        return embedded, send(inputs["attention_mask"].sum(dim=1), embedded.device)

    def _prompt(self, utterance: Utterance) -> str:
        """The prompt's text. A forced language is the beginning of the answer, which the model then continues."""
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": utterance.prompt},
            {"role": "user", "content": [{"type": "audio", "audio": ""}]},
        ]
        prompt: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if utterance.language is not None:
            prompt += f"language {NAMES[utterance.language]}{_TEXT_TAG}"
        return prompt

    def _parse_answer(self, utterance: Utterance, ids: list[int], finished: bool, looped: bool) -> Recognition:
        """Detokenize an answer: `language English<asr_text>…`, or the text alone where the language was forced."""
        answer: str = self.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        language = utterance.language
        if language is None:
            tag, found, text = answer.partition(_TEXT_TAG)
            language = code_of_name(tag.strip().removeprefix("language")) if found else None
            answer = text if found or _BARE_TAG.fullmatch(tag) else tag
        text = answer.replace("\ufffd", "").strip()  # the token budget can run out inside a character
        return Recognition(text, language if text else None, finished, self._tokens(text), looped)

    def _tokens(self, text: str) -> tuple[Token, ...]:
        """The tokens of the final text, each with its slice of the text."""
        with self._tokenizer_lock:
            encoded = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return tuple(Token(token, begin, end) for token, (begin, end) in spans)


def _eos_ids(built: BuiltModel) -> list[int]:
    """The checkpoint's end-of-sequence tokens. Raises CheckpointRefused: without one no answer would end.

    The package's default ids are never used. They are the real tokenizer's; with another, no answer would end either.
    """
    eos = built.model.generation_config.eos_token_id
    ids = list(eos) if isinstance(eos, (list, tuple)) else [eos]
    vocab_size = built.model.thinker.config.text_config.vocab_size
    if not ids or not all(type(token) is int and 0 <= token < vocab_size for token in ids):
        raise CheckpointRefused("generation_config.json of the checkpoint names no token that ends an answer")
    if len(built.processor.tokenizer) > vocab_size:
        raise CheckpointRefused("the checkpoint's tokenizer has more tokens than its model knows")
    return ids
