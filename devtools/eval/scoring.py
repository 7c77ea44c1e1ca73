"""Scores of one recording from its reference and a hypothesis, and the figures of a group of recordings.

Rules: a failed recording counts as an empty hypothesis; errors are added up before they are divided, so that a long
recording weighs more than a short one; a figure that nothing was measured for is None, never 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from devtools.eval import normalization
from devtools.eval.hypotheses import Hypothesis, Word
from devtools.eval.manifest import Entry

CLOSE_S = 0.08  # one time class of the aligner
SLACK_S = 0.001  # rounding is no violation of order


@dataclass(frozen=True)
class Count:
    """Errors (substitutions, deletions, insertions) and units of the reference."""

    errors: int = 0
    units: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.errors + other.errors, self.units + other.units)

    @property
    def rate(self) -> float | None:
        return self.errors / self.units if self.units else None


@dataclass(frozen=True)
class Score:
    """One recording. `matches` are (index in the reference, index in the hypothesis) pairs of equal words."""

    words: Count
    characters: Count
    matches: tuple[tuple[int, int], ...]
    edge_errors_s: tuple[float, ...]  # of the matches: start, end, start, end, ..., never negative
    timed_words: int
    zero_length: int
    order_violations: int
    right_language: bool | None  # None: no speech, so no language
    invented: bool  # a text where there is no speech: a hallucination

    @property
    def edge_mean_s(self) -> float | None:
        return float(np.mean(self.edge_errors_s)) if self.edge_errors_s else None


@dataclass(frozen=True)
class Scored:
    entry: Entry
    hypothesis: Hypothesis
    score: Score
    duration_s: float

    @property
    def summary(self) -> str:
        """In a few words, for people."""
        score = self.score
        if self.hypothesis.failure:
            return "failed"
        if not self.entry.is_speech:
            return "invented a text" if score.invented else "no text, rightly"
        off = "" if score.edge_mean_s is None else f", boundaries off by {1000 * score.edge_mean_s:.0f} ms"
        return f"{score.words.errors} of {score.words.units} words wrong{off}"


@dataclass(frozen=True)
class Spread:
    """Boundary errors of some words, in seconds; `close` is the share within 80 ms."""

    mean_s: float
    p50_s: float
    p95_s: float
    close: float


@dataclass(frozen=True)
class Latency:
    """Seconds from a request to its reply, of the recordings that were transcribed."""

    p50_s: float
    p95_s: float


@dataclass(frozen=True)
class Figures:
    """A group of recordings. Shares are within 0..1, times in seconds; None: not measured."""

    recordings: int
    failures: int
    success: float
    wer: float | None
    cer: float | None
    boundaries: Spread | None
    zero_length: float | None
    order_violations: int | None
    language: float | None
    speed: float | None  # × real time
    latency: Latency | None
    silent: int  # recordings without speech
    invented: int  # those of them with a text


def score(entry: Entry, hypothesis: Hypothesis) -> Score:
    text, timed = ("", ()) if hypothesis.failure else (hypothesis.text, hypothesis.words)
    wanted, found = (normalization.words(each, entry.language) for each in (entry.text, text))
    pairs = tuple(matches(entry.words, timed)) if entry.is_speech else ()
    space = " " if entry.is_spaced else ""  # it counts as a character
    return Score(
        words=_count(word_alignment(wanted, found)),
        characters=_count(jiwer.process_characters(space.join(wanted), space.join(found))),
        matches=pairs,
        edge_errors_s=tuple(abs(error) for i, j in pairs for error in timed[j].edge_errors_s(entry.words[i])),
        timed_words=len(timed),
        zero_length=zero_length(timed),
        order_violations=order_violations(timed),
        right_language=hypothesis.language == entry.language and not hypothesis.failure if entry.is_speech else None,
        invented=not entry.is_speech and bool(text.strip()),
    )


def word_alignment(reference: Iterable[str], hypothesis: Iterable[str]) -> jiwer.WordOutput:
    """The alignment with the fewest errors; words hold no spaces and are not empty."""
    return jiwer.process_words(" ".join(reference), " ".join(hypothesis))


def matches(reference: Sequence[Word], hypothesis: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Index pairs of the words that are equal in the alignment, without punctuation and case."""
    wanted, found = (
        {i: key for i, word in enumerate(words) if (key := normalization.key(word.text))}
        for words in (reference, hypothesis)
    )
    numbers = list(wanted), list(found)
    for chunk in word_alignment(wanted.values(), found.values()).alignments[0]:
        if chunk.type == "equal":
            i, j = chunk.ref_start_idx, chunk.hyp_start_idx
            yield from zip(numbers[0][i : chunk.ref_end_idx], numbers[1][j : chunk.hyp_end_idx], strict=True)


def zero_length(words: Sequence[Word]) -> int:
    return sum(word.end_s <= word.start_s for word in words)


def order_violations(words: Sequence[Word]) -> int:
    """Words that start before the previous one has ended, by more than rounding."""
    return sum(b.start_s < a.end_s - SLACK_S for a, b in itertools.pairwise(words))


def figures(scored: Sequence[Scored]) -> Figures:
    spoken = [s for s in scored if s.entry.is_speech]
    done = [s for s in scored if not s.hypothesis.failure]
    timed = sum(s.score.timed_words for s in scored)
    took_s = sum(s.hypothesis.took_s for s in done)
    return Figures(
        recordings=len(scored),
        failures=len(scored) - len(done),
        success=len(done) / len(scored) if scored else 1.0,
        wer=sum((s.score.words for s in spoken), Count()).rate,
        cer=sum((s.score.characters for s in spoken), Count()).rate,
        boundaries=spread([e for s in spoken for e in s.score.edge_errors_s]),
        zero_length=sum(s.score.zero_length for s in scored) / timed if timed else None,
        order_violations=sum(s.score.order_violations for s in scored) if timed else None,
        language=sum(s.score.right_language is True for s in spoken) / len(spoken) if spoken else None,
        speed=sum(s.duration_s for s in done) / took_s if took_s else None,
        latency=latency([s.hypothesis.took_s for s in done]),
        silent=len(scored) - len(spoken),
        invented=sum(s.score.invented for s in scored),
    )


def spread(errors_s: Sequence[float]) -> Spread | None:
    """None where nothing was measured."""
    if not errors_s:
        return None
    errors = np.array(errors_s)
    p50, p95 = np.percentile(errors, (50, 95))
    return Spread(float(errors.mean()), float(p50), float(p95), float((errors <= CLOSE_S).mean()))


def latency(took_s: Sequence[float]) -> Latency | None:
    """None where nothing was measured."""
    return Latency(*map(float, np.percentile(took_s, (50, 95)))) if took_s else None


def _count(found: jiwer.WordOutput | jiwer.CharacterOutput) -> Count:
    wrong = found.substitutions + found.deletions
    return Count(wrong + found.insertions, wrong + found.hits)
