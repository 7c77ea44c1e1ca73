"""Qwen3-ASR behind the Recognizer protocol.

The formats of prompt and answer are chat_format's. Mel features and embeddings are computed in prompts.py, tokens are
generated in session.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from backend.chat_format.prompt_format import PROMPT, beginning
from backend.chat_format.spelling import Spelling
from backend.checkpoint.feature_extractor import chunk_s
from backend.engine.model.graph_capture import with_cuda_graphs
from backend.engine.model.model_builder import BuiltModel, load_weights, weight_bytes
from backend.engine.model.prompts import PreparedPrompt, PromptPreparer, embed
from backend.engine.model.session import QwenSession, SessionDecoder
from backend.engine.ops.device import batching, use_threads
from backend.engine.ops.int8 import int8_layers
from backend.engine.ops.linear import streamed_linear
from backend.errors import CheckpointRefused, NonFiniteCheckpoint, NonFiniteLogits
from backend.sequences.agreement import common_prefix
from backend.serving.protocols import SAMPLE_RATE, Recognition, Spelled, Token, Utterance, recognize

_log = logging.getLogger(__name__)

_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class PreparedUtterance(Utterance):
    """An utterance with its prompt, ready for the device."""

    prepared: PreparedPrompt = field(kw_only=True)


class QwenRecognizer:
    """A loaded Qwen3-ASR. See serving/protocols.Recognizer."""

    def __init__(
        self,
        built: BuiltModel,
        quantized: bool = False,
        threads: int | None = None,
    ) -> None:
        """Reads the weights. Raises CheckpointRefused.

        `quantized`: the decoder in int8. `threads`: of the model thread; None: torch's choice.
        """
        self._threads = threads
        self.model = model = built.model
        self.processor = built.processor
        self.eos_ids = _eos_ids(built)
        with int8_layers() if quantized else nullcontext(streamed_linear) as make_layer:
            self.decoder = load_weights(built, make_layer, quantized)
        self._preparer = PromptPreparer(self.processor, model.thinker.audio_tower, model.config.audio_token)
        self._tokenizer = self.processor.tokenizer
        self._spelling = Spelling(self._tokenizer)
        self.batching = batching(model.device)
        self.chunk_s = chunk_s(built.processor.features.chunk_length)
        self._session_decoder: SessionDecoder = self.decoder
        self.weight_bytes = weight_bytes(model) + self.decoder.extra_bytes

    def session(self) -> QwenSession:
        use_threads(self._threads)  # the model thread calls this, and OpenMP counts threads by the calling thread
        return QwenSession(self._session_decoder, self._encode, self._parse_answer, self.eos_ids)

    def prepare(self, utterance: Utterance) -> PreparedUtterance:
        use_threads(1)  # enough for one utterance at a time; the model thread's own number is not changed by it
        return self._prepared(utterance)

    def _prepared(self, utterance: Utterance) -> PreparedUtterance:
        if isinstance(utterance, PreparedUtterance):
            return utterance
        prepared = self._preparer.prepare(self._prompt(utterance), utterance.samples)
        return PreparedUtterance(**vars(utterance), prepared=prepared)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        return recognize(self, utterances)

    def count_tokens(self, text: str) -> int:
        """At most one token for each byte of the text's normal form (NFC), which may be three times its length."""
        encoded = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return len(encoded[0].ids)  # `fast`: without offsets

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
            raise NonFiniteCheckpoint(
                "the model produced NaN or inf logits in its first transcription; fetch the checkpoint again, "
                "or set torch_dtype:fp32"
            ) from error
        except Exception as error:  # foreign code: torch and tokenizers, run with files that may not fit each other
            _log.exception("the warm-up failed")
            raise CheckpointRefused(
                f"the checkpoint is loaded, but its first transcription failed ({type(error).__name__}); "
                "its files do not fit each other, or the device has too little memory"
            ) from error

    def capture_steps(self, rows: int, chunk_s: float) -> None:
        """Decode with CUDA graphs where that works: batches of at most `rows` passages of `chunk_s` seconds.

        The last part of a load: what is captured must be what runs later.
        """
        self._session_decoder = with_cuda_graphs(self.decoder, self.model.device, rows, chunk_s)

    def _encode(self, utterances: Sequence[Utterance]) -> tuple[torch.Tensor, list[int]]:
        """The embedded prompts with their drafts (rows, longest, hidden), and the length of each."""
        prompts = [self._prepared(utterance).prepared.followed_by(utterance.draft) for utterance in utterances]
        return embed(self.model, self.decoder, prompts), [len(prompt.ids) for prompt in prompts]

    def _prompt(self, utterance: Utterance) -> str:
        """The prompt's text. A forced language is the beginning of the answer, which the model then continues."""
        return PROMPT.format(system=utterance.prompt) + beginning(utterance.language)

    def spell(self, ids: Sequence[int], language: str | None) -> Spelled:
        return self._spelling.spell(ids, language, ended=False)

    def tokens_of(self, text: str) -> tuple[Token, ...]:
        return self._spelling.tokens_of(text)

    def _parse_answer(self, utterance: Utterance, ids: list[int], finished: bool, looped: bool) -> Recognition:
        language, text = self._spelling.spell(ids, utterance.language, ended=True)
        agreed = common_prefix(ids, utterance.draft)
        tokens = self.tokens_of(text)
        return Recognition(text, language if text else None, finished, tokens, looped, tuple(ids), agreed)


def _eos_ids(built: BuiltModel) -> list[int]:
    """The checkpoint's end-of-sequence tokens. Raises CheckpointRefused: without one no answer would end."""
    eos, vocab_size = built.eos_token_id, built.model.config.decoder.vocab_size
    ids = list(eos) if isinstance(eos, (list, tuple)) else [eos]
    if not ids or not all(type(token) is int and 0 <= token < vocab_size for token in ids):
        raise CheckpointRefused("generation_config.json of the checkpoint names no token that ends an answer")
    if built.processor.tokenizer.get_vocab_size() > vocab_size:
        raise CheckpointRefused("the checkpoint's tokenizer has more tokens than its model knows")
    return ids
