"""The model as a request holds it, from its start to its end: the recogniser, with or without an aligner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from backend.options.load_options import LoadOptions
from backend.serving.one_shot import OneShotSession
from backend.serving.protocols import AlignedUnit, Aligner, Passage, Recognition, Recognizer, Utterance
from backend.serving.session_kind import SessionKind, live_places


@dataclass(frozen=True)
class Lean:
    """The recogniser alone."""

    options: LoadOptions
    recognizer: Recognizer

    @property
    def max_batch(self) -> int:
        """Most passages that are recognised or aligned together: the operator's number, or the device's."""
        return self.options.batch_max_size or self.recognizer.batching.rows

    @property
    def max_chunk_s(self) -> float:
        """The longest passage that is given to the models, in seconds: the operator's, or the recogniser's own."""
        return self.recognizer.chunk_s if self.options.max_chunk_s is None else self.options.max_chunk_s

    @property
    def recognition(self) -> SessionKind[Utterance, Recognition]:
        """The recogniser's sessions: the same ones with and without an aligner."""
        batching = self.recognizer.batching
        return SessionKind(
            "recognition",
            self.recognizer,
            self.recognizer.session,
            max_batch=self.max_batch,
            max_prefill_s=batching.prefill_s,
            batch_wait_s=self.options.batch_wait_s,
            joins_in_groups=batching.in_groups,
            prepare=self.recognizer.prepare if batching.in_groups else None,
            live_places=live_places(self.max_batch),
        )

    @property
    def live_recognition(self) -> SessionKind[Utterance, Recognition]:
        """The same sessions, for utterances of live streams."""
        return replace(self.recognition, is_live=True, batch_wait_s=0.0)


@dataclass(frozen=True)
class Equipped(Lean):
    """The same recogniser with an aligner."""

    aligner: Aligner

    @property
    def alignment(self) -> SessionKind[Passage, list[AlignedUnit]]:
        """The aligner's batches."""
        batching = self.aligner.batching
        return SessionKind(
            "alignment",
            self.aligner,
            partial(OneShotSession, self.aligner.align),
            max_batch=self.max_batch,
            max_prefill_s=batching.prefill_s,
            prepare=self.aligner.prepare if batching.in_groups else None,
        )
