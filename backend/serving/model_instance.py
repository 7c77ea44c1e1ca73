"""The model as a request holds it, from its start to its end: the recogniser, with or without an aligner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from backend.options import LoadOptions
from backend.serving.one_shot import OneShotSession
from backend.serving.protocols import AlignedUnit, Aligner, Passage, Recognition, Recognizer, Utterance
from backend.serving.session_kind import SessionKind


@dataclass(frozen=True)
class Lean:
    """The recogniser alone."""

    options: LoadOptions
    recognizer: Recognizer

    @property
    def max_chunk_s(self) -> float:
        """The longest passage that is given to the models, in seconds: the operator's, or the recogniser's own."""
        return self.recognizer.chunk_s if self.options.max_chunk_s is None else self.options.max_chunk_s

    @property
    def recognition(self) -> SessionKind[Utterance, Recognition]:
        """The recogniser's sessions: the same ones with and without an aligner."""
        return SessionKind(
            "recognition",
            self.recognizer,
            self.recognizer.session,
            max_batch=self.options.batch_max_size,
            max_prefill_s=self.recognizer.max_prefill_s,
            batch_wait_s=self.options.batch_wait_s,
        )


@dataclass(frozen=True)
class Equipped(Lean):
    """The same recogniser with an aligner."""

    aligner: Aligner

    @property
    def alignment(self) -> SessionKind[Passage, list[AlignedUnit]]:
        """The aligner's batches."""
        return SessionKind(
            "alignment",
            self.aligner,
            partial(OneShotSession, self.aligner.align),
            max_batch=self.options.batch_max_size,
            max_prefill_s=self.aligner.max_prefill_s,
        )
