"""When the words of a chunk are said: the aligner's units of it, and what it lost asked for once more.

Rules: any trouble of the aligner's is a reason for coarse times, never for a status. A passage is at most a minute
long, where the aligner is at its best (see below). Words that it piled up or wanted outside the passage are
aligned again alone, between their neighbours, and if that fails too they are spread over the speech there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from statistics import median

from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Chunk
from backend.errors import AlignerUnavailable, EngineFailure, OutOfMemory
from backend.languages import ALIGNABLE
from backend.pipeline.recognition import RecognizedChunk, together
from backend.process.request_stats import RequestStats
from backend.serving.protocols import AlignedUnit, Passage
from backend.serving.resident import Equipped, Lean, Resident
from backend.serving.scheduler import Scheduler
from backend.transcript.implausible_runs import find_implausible_runs
from backend.transcript.pauses import SpeechClock, spans_for

UNKNOWN_TO_ALIGNER = "the aligner does not know the language"
REALIGNED = "had words piled up or out of place and was aligned again"
SPREAD = "could not be aligned; its words are spread over its speech"

_TROUBLE = (EngineFailure, OutOfMemory)
_APART = 2  # good units between two lost ones are drawn in
_MOST_PIECES = 4  # of a passage that are aligned again
_ROOM_S = 0.25  # for each unit of a piece: with less, its neighbours are drawn in and aligned again as well
_HASTE = 0.8  # of the time that the passage's other units take will do, where they take less: in Chinese, for one
_BESIDE_S = 0.1  # of sound beyond the neighbours' edges: they may be wrong, too


class Alignment:
    """What one request aligns."""

    def __init__(self, resident: Resident, scheduler: Scheduler, speech: Speech, stats: RequestStats) -> None:
        self._resident = resident
        self._scheduler = scheduler
        self._speech = speech
        self._stats = stats

    async def align(self, instance: Lean, heard: list[RecognizedChunk], language: str) -> list[RecognizedChunk]:
        """The parts with the aligner's units, or with the reason why there are none."""
        if not any((part.recognition.language or language) in ALIGNABLE for part in heard if part.recognition.text):
            return [replace(part, coarse_because=UNKNOWN_TO_ALIGNER) for part in heard]
        try:
            equipped = await self._resident.equipped(instance)
        except AlignerUnavailable as unavailable:
            return [replace(part, coarse_because=str(unavailable)) for part in heard]
        return await together(self._align(equipped, part, language) for part in heard)

    async def _align(self, equipped: Equipped, part: RecognizedChunk, language: str) -> RecognizedChunk:
        spoken = part.recognition.language or language
        if not part.recognition.text:
            return part
        if spoken not in ALIGNABLE:
            return replace(part, coarse_because=UNKNOWN_TO_ALIGNER)
        passage = Passage(part.chunk.samples, part.recognition.text, spoken)
        try:
            units = await self._submit(equipped, passage)
        except _TROUBLE:  # the text is worth more than its times
            return replace(part, coarse_because="the aligner failed")
        remedies = []
        lost = _lost(units)
        room_s = _room_s(units, lost)
        for piece in lost:
            first, after = _with_room(units, *piece, part.chunk.duration_s, room_s)
            units[first:after], remedy = await self._again(equipped, part.chunk, passage, units, first, after)
            remedies.append(remedy)
        return replace(part, units=tuple(units), remedies=(*part.remedies, *remedies))

    async def _again(
        self,
        equipped: Equipped,
        chunk: Chunk,
        passage: Passage,
        units: Sequence[AlignedUnit],
        first: int,
        after: int,
    ) -> tuple[list[AlignedUnit], str]:
        """Units [first, after) of a passage, aligned between their neighbours or spread there, and which of the two."""
        begin_s, end_s = _between(units, first, after, chunk.duration_s)
        texts = tuple(unit.text for unit in units[first:after])
        if after - first < len(units):  # the same passage once more would give the same times
            from_s, to_s = max(begin_s - _BESIDE_S, 0.0), min(end_s + _BESIDE_S, chunk.duration_s)
            sound = passage.samples[round(from_s * SAMPLE_RATE) : round(to_s * SAMPLE_RATE)]
            try:
                again = await self._submit(equipped, replace(passage, samples=sound, units=texts))
            except _TROUBLE:  # the other units are good
                again = []
            if len(again) == len(texts) and not _lost(again):
                return [_moved(unit, from_s, begin_s, end_s) for unit in again], REALIGNED
        spoken = self._speech.within_s(
            chunk.start + round(begin_s * SAMPLE_RATE), chunk.start + round(end_s * SAMPLE_RATE)
        )
        inside = [(max(start - chunk.start_s, begin_s), min(end - chunk.start_s, end_s)) for start, end in spoken]
        return _spread(texts, spans_for("".join(texts), inside, (begin_s, end_s))), SPREAD

    async def _submit(self, equipped: Equipped, passage: Passage) -> list[AlignedUnit]:
        return await self._scheduler.submit(
            equipped.aligner.align,
            passage,
            seconds=passage.samples.size / SAMPLE_RATE,
            most=equipped.options.batch_max_size,
            owner=self._stats,
            max_prefill_s=equipped.aligner.max_prefill_s,
        )


def _lost(units: Sequence[AlignedUnit]) -> list[tuple[int, int]]:
    """Where units are piled up or were wanted outside the passage: [first, after) of their numbers, apart, in order."""
    found: list[tuple[int, int]] = []
    astray = [(number, number + 1) for number, unit in enumerate(units) if unit.outside or not _is_finite(unit)]
    for first, after in sorted([*find_implausible_runs([(unit.start_s, unit.end_s) for unit in units]), *astray]):
        if found and first <= found[-1][1] + _APART:
            found[-1] = found[-1][0], max(found[-1][1], after)
        else:
            found.append((first, after))
    # lost all over the place: not worth a run for each
    return found if len(found) <= _MOST_PIECES else [(found[0][0], found[-1][1])]


def _is_finite(unit: AlignedUnit) -> bool:
    return math.isfinite(unit.start_s) and math.isfinite(unit.end_s)


def _moved(unit: AlignedUnit, by_s: float, begin_s: float, end_s: float) -> AlignedUnit:
    """The unit later by `by_s`, but inside [begin_s, end_s]."""
    return AlignedUnit(
        unit.text, min(max(unit.start_s + by_s, begin_s), end_s), min(max(unit.end_s + by_s, begin_s), end_s)
    )


def _between(units: Sequence[AlignedUnit], first: int, after: int, duration_s: float) -> tuple[float, float]:
    """The time between the neighbours of units [first, after), in seconds from the start of the passage."""
    return units[first - 1].end_s if first else 0.0, units[after].start_s if after < len(units) else duration_s


def _room_s(units: Sequence[AlignedUnit], lost: Sequence[tuple[int, int]]) -> float:
    """What a lost unit needs at least, in seconds, by the pace of the others."""
    astray = {number for first, after in lost for number in range(first, after)}
    paces = [
        units[number + 1].start_s - units[number].start_s
        for number in range(len(units) - 1)
        if not {number, number + 1} & astray
    ]
    return min(_ROOM_S, _HASTE * median(paces)) if paces else _ROOM_S


def _with_room(
    units: Sequence[AlignedUnit], first: int, after: int, duration_s: float, room_s: float
) -> tuple[int, int]:
    """Units [first, after) with as many of their neighbours as it takes to have room for them all.

    On each side no more than were lost: where all speak faster, more of them bring no room.
    """
    for _ in range(after - first):
        begin_s, end_s = _between(units, first, after, duration_s)
        if end_s - begin_s >= room_s * (after - first):
            break
        first, after = max(first - 1, 0), min(after + 1, len(units))
    return first, after


def _spread(texts: Sequence[str], spoken: Sequence[tuple[float, float]]) -> list[AlignedUnit]:
    """Units over speech, in proportion to their lengths."""
    clock = SpeechClock(spoken)
    marks = list(accumulate((len(text) for text in texts), initial=0))
    times = [clock.total_s * mark / marks[-1] for mark in marks]
    return [
        AlignedUnit(text, clock.word_start_s(start), clock.word_end_s(end))
        for text, (start, end) in zip(texts, pairwise(times), strict=True)
    ]
