"""Finds the times of a known text: by a recogniser and an aligner (hear_and_match.py), or an aligner alone
(text_windows.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from backend.audio.waveform import Chunk
from backend.errors import AlignerMissing, AlignerUnavailable, AlignmentLanguageUnknown, NoKnownText, NothingHeard
from backend.languages import ALIGNABLE
from backend.options.load_options import TranscribeOptions
from backend.pipeline.alignment import Alignment
from backend.pipeline.known_text.hear_and_match import HeardTextAlignment
from backend.pipeline.known_text.known_transcript import TextTimes, build_known_transcript
from backend.pipeline.known_text.text_windows import WindowedAlignment
from backend.pipeline.recognition import RecognitionPolicy
from backend.pipeline.recognized_chunk import main_language
from backend.pipeline.sound_tracks import SpokenTrack
from backend.pipeline.transcript_builder import Transcript
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import AlignerAlone, Instance, Lean
from backend.serving.protocols import Aligner
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler
from backend.transcript.lyrics.sung_lines import KnownText, known_text, language_by_script


class KnownTextAligner:
    """Aligns the text of one request."""

    def __init__(
        self, resident: Resident, scheduler: Scheduler, options: TranscribeOptions, stats: RequestStats
    ) -> None:
        self._resident = resident
        self._scheduler = scheduler
        self._options = options
        self._stats = stats

    async def transcript(self, instance: Instance, track: SpokenTrack, chunks: list[Chunk], text: str) -> Transcript:
        """The text with the times of its lines and words. Raises any AsrError but LoadRefused."""
        known = await asyncio.to_thread(known_text, text)
        if not known.lines:
            raise NoKnownText
        if not chunks:
            raise NothingHeard
        _check(self._options.language)
        if isinstance(instance, AlignerAlone):
            language = _check(self._options.language or language_by_script(known.text))
            windows = WindowedAlignment(self._scheduler, instance, track, language, self._stats)
            with self._stats.measure("align"):
                found = await windows.align(known, chunks)
            aligner = instance.aligner
        else:
            language, found, aligner = await self._by_hearing(instance, track, chunks, known)
        return await asyncio.to_thread(build_known_transcript, track, known, found, language, instance.options, aligner)

    async def _by_hearing(
        self, lean: Lean, track: SpokenTrack, chunks: list[Chunk], known: KnownText
    ) -> tuple[str, TextTimes, Aligner]:
        """The language, the times, and the aligner. The text is no prompt: the model would recite it."""
        policy = RecognitionPolicy(self._scheduler, lean, replace(self._options, prompt=""), track.speech, self._stats)
        with self._stats.measure("infer"):
            parts = await policy.recognize(chunks)
        if not any(part.recognition.text for part in parts):
            raise NothingHeard
        language = _check(self._options.language or main_language(parts, track.speech))
        try:
            equipped = await self._resident.equipped(lean)
        except AlignerUnavailable as unavailable:
            raise AlignerMissing(str(unavailable)) from unavailable
        alignment = Alignment(self._resident, self._scheduler, track.speech, self._stats)
        with self._stats.measure("align"):
            times = await HeardTextAlignment(alignment, equipped, track, known, language).align(parts)
        return language, times, equipped.aligner


def _check(language: str | None) -> str:
    """The language. Raises AlignmentLanguageUnknown where it is known and none of the aligner's."""
    if language is not None and language not in ALIGNABLE:
        raise AlignmentLanguageUnknown(sorted(ALIGNABLE))
    return language or ""
