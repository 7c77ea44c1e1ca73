"""The model as a request holds it, from start to end: a recogniser, with or without an aligner, or an aligner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeAlias

from backend.options.load_options import LoadOptions
from backend.serving.one_shot import OneShotSession
from backend.serving.protocols import AlignedUnit, Aligner, Kind, Passage, Recognition, Recognizer, Utterance
from backend.serving.session_kind import SessionKind, live_places
from backend.thresholds import MAX_ALIGNED_CHUNK_S


@dataclass(frozen=True)
class Lean:
    """The recogniser alone."""

    options: LoadOptions
    recognizer: Recognizer

    kind: ClassVar[Kind] = "recognizer"

    def has_models_of(self, other: Lean) -> bool:
        """Whether both have the same recogniser in memory and name the same aligner: one's aligner is the other's."""
        return self.recognizer is other.recognizer and self.options.aligner == other.options.aligner

    def with_options(self, options: LoadOptions) -> Lean:
        """The same recogniser under other options."""
        return Lean(options, self.recognizer)

    @property
    def aligns(self) -> bool:
        """Whether requests bring a known text, whose times they want."""
        return self.options.task == "align"

    @property
    def max_batch(self) -> int:
        """Most passages that are recognised together: the operator's number, or the device's.

        On servers it is what all of them take: `batch_max_size` is about the device here.
        """
        if self.options.engine_urls:
            return self.recognizer.batching.rows
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
            slow_prefill=batching.slow_prefill,
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

    def with_options(self, options: LoadOptions) -> Lean:
        """The same recogniser under other options, with the aligner if they name the same one."""
        if options.aligner != self.options.aligner:
            return super().with_options(options)
        return replace(self, options=options)

    @property
    def alignment(self) -> SessionKind[Passage, list[AlignedUnit]]:
        """The aligner's batches."""
        return _alignment(self.aligner, self.options.batch_max_size)


@dataclass(frozen=True)
class AlignerAlone:
    """An aligner without a recogniser: its requests bring a known text."""

    options: LoadOptions
    aligner: Aligner

    kind: ClassVar[Kind] = "aligner"
    aligns: ClassVar[bool] = True

    def with_options(self, options: LoadOptions) -> AlignerAlone:
        """The same aligner under other options."""
        return AlignerAlone(options, self.aligner)

    @property
    def max_batch(self) -> int:
        return self.options.batch_max_size or self.aligner.batching.rows

    @property
    def max_chunk_s(self) -> float:
        """The longest stretch of speech that is aligned at once, in seconds."""
        return MAX_ALIGNED_CHUNK_S if self.options.max_chunk_s is None else self.options.max_chunk_s

    @property
    def alignment(self) -> SessionKind[Passage, list[AlignedUnit]]:
        """The aligner's batches."""
        return _alignment(self.aligner, self.options.batch_max_size)


Instance: TypeAlias = Lean | AlignerAlone
WithAligner: TypeAlias = Equipped | AlignerAlone


def _alignment(aligner: Aligner, max_batch: int | None) -> SessionKind[Passage, list[AlignedUnit]]:
    batching = aligner.batching
    return SessionKind(
        "alignment",
        aligner,
        partial(OneShotSession, aligner.align),
        max_batch=max_batch or batching.rows,
        max_prefill_s=batching.prefill_s,
        prepare=aligner.prepare if batching.in_groups else None,
    )
