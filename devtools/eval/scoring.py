"""From truth and answer to numbers: one recording's score, and the figures of a group of them.

Rules: a failed recording counts as heard nothing, so failing never flatters; errors are added up before they are
divided, so a long recording weighs what it is long; a figure that nothing was measured for is None, never 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from devtools.eval import spelling
from devtools.eval.answers import Answer, Word
from devtools.eval.manifest import Entry

CLOSE_S = 0.08  # one time class of the aligner
SLACK_S = 0.001  # rounding is no violation of order


@dataclass(frozen=True)
class Count:
    """Errors among units of the truth."""

    errors: int
    units: int


@dataclass(frozen=True)
class Score:
    """One recording. `matches` are (index of the truth's word, index of the answer's word) pairs of equal words."""

    words: Count
    characters: Count
    matches: tuple[tuple[int, int], ...]
    edge_errors_s: tuple[float, ...]  # of the matches: start, end, start, end, ..., never negative
    timed_words: int
    zero_length: int
    order_violations: int
    right_language: bool | None  # None: nobody speaks, nothing to be right about
    invented: bool

    @property
    def edge_mean_s(self) -> float | None:
        return float(np.mean(self.edge_errors_s)) if self.edge_errors_s else None


@dataclass(frozen=True)
class Scored:
    entry: Entry
    answer: Answer
    score: Score
    duration_s: float


@dataclass(frozen=True)
class Spread:
    """Boundary errors of some words, in seconds; `close` is the share within 80 ms."""

    mean_s: float
    p50_s: float
    p95_s: float
    close: float


@dataclass(frozen=True)
class Figures:
    """A group of recordings. Shares are within 0..1, times in seconds; None: not measured."""

    recordings: int
    failures: int
    wer: float | None
    cer: float | None
    boundaries: Spread | None
    zero_length: float | None
    order_violations: int | None
    language: float | None
    speed: float | None  # × real time
    silent: int  # recordings in which nobody speaks
    invented: int  # and those of them that were given a text


def score(entry: Entry, answer: Answer) -> Score:
    heard = "" if answer.failure else answer.text
    counted, wrong = (spelling.words(text, entry.language) for text in (entry.text, heard))
    timed = () if answer.failure else answer.words
    pairs = tuple(matches(entry.words, timed)) if entry.is_speech else ()
    return Score(
        words=_count(counted, wrong),
        characters=_count(spelling.characters(counted, entry.language), spelling.characters(wrong, entry.language)),
        matches=pairs,
        edge_errors_s=tuple(
            abs(error)
            for i, j in pairs
            for error in (timed[j].start_s - entry.words[i].start_s, timed[j].end_s - entry.words[i].end_s)
        ),
        timed_words=len(timed),
        zero_length=zero_length(timed),
        order_violations=order_violations(timed),
        right_language=answer.language == entry.language and not answer.failure if entry.is_speech else None,
        invented=not entry.is_speech and bool(heard.strip()),
    )


def alignment(truth: Sequence[str], heard: Sequence[str]) -> list[jiwer.AlignmentChunk]:
    """How one list of units becomes the other with the fewest errors; units hold no spaces and are not empty."""
    chunks: list[jiwer.AlignmentChunk] = jiwer.process_words(" ".join(truth), " ".join(heard)).alignments[0]
    return chunks


def matches(truth: Sequence[Word], heard: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Index pairs of the words that are equal in the alignment, punctuation and case in_thread_if_long."""
    named, known = (
        [(i, key) for i, word in enumerate(words) if (key := spelling.key(word.text))] for words in (truth, heard)
    )
    for chunk in alignment([key for _, key in named], [key for _, key in known]):
        if chunk.type == "equal":
            spans = range(chunk.ref_start_idx, chunk.ref_end_idx), range(chunk.hyp_start_idx, chunk.hyp_end_idx)
            yield from ((named[i][0], known[j][0]) for i, j in zip(*spans, strict=True))


def zero_length(words: Sequence[Word]) -> int:
    return sum(word.end_s <= word.start_s for word in words)


def order_violations(words: Sequence[Word]) -> int:
    """Words that start before the previous one has ended, by more than rounding."""
    return sum(b.start_s < a.end_s - SLACK_S for a, b in itertools.pairwise(words))


def figures(scored: Sequence[Scored]) -> Figures:
    spoken = [s for s in scored if s.entry.is_speech]
    done = [s for s in scored if not s.answer.failure]
    timed = sum(s.score.timed_words for s in scored)
    took_s = sum(s.answer.took_s for s in done)
    silent = [s for s in scored if not s.entry.is_speech]
    return Figures(
        recordings=len(scored),
        failures=len(scored) - len(done),
        wer=_rate([s.score.words for s in spoken]),
        cer=_rate([s.score.characters for s in spoken]),
        boundaries=spread([e for s in spoken for e in s.score.edge_errors_s]),
        zero_length=sum(s.score.zero_length for s in scored) / timed if timed else None,
        order_violations=sum(s.score.order_violations for s in scored) if timed else None,
        language=sum(s.score.right_language is True for s in spoken) / len(spoken) if spoken else None,
        speed=sum(s.duration_s for s in done) / took_s if took_s else None,
        silent=len(silent),
        invented=sum(s.score.invented for s in silent),
    )


def spread(errors_s: Sequence[float]) -> Spread | None:
    """None where nothing was measured."""
    if not errors_s:
        return None
    errors = np.array(errors_s)
    p50, p95 = np.percentile(errors, (50, 95))
    return Spread(float(errors.mean()), float(p50), float(p95), float((errors <= CLOSE_S).mean()))


def _count(truth: Sequence[str], heard: Sequence[str]) -> Count:
    chunks = alignment(truth, heard)
    errors = sum(
        max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in chunks if c.type != "equal"
    )
    return Count(errors, len(truth))


def _rate(counts: Sequence[Count]) -> float | None:
    units = sum(c.units for c in counts)
    return sum(c.errors for c in counts) / units if units else None
