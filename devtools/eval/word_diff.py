"""A hypothesis word by word against its reference: what is right, wrong, extra (inserted) or missing (deleted).

For the page: it compares what is written, without case and punctuation; the figures count normalised text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from typing import Literal, NamedTuple

from devtools.eval.normalization import key, tokens
from devtools.eval.scoring import word_alignment

MOST_MISSING = 8  # missing words in a row that are shown; of more, only their number


class Piece(NamedTuple):
    """`text` as in the hypothesis, or for a missing word as in the reference; `wanted`: what a wrong word should be.

    "many missing": `text` is their number and `wanted` the words.
    """

    kind: Literal["right", "wrong", "extra", "missing", "many missing"]
    text: str
    wanted: str = ""


def diff(reference: str, hypothesis: str, language: str) -> Iterator[Piece]:
    """The pieces in their order. Punctuation that stands alone is right wherever it stands."""
    wanted = [token for token in tokens(reference, language) if key(token)]
    given = tokens(hypothesis, language)
    spoken = [at for at, token in enumerate(given) if key(token)]
    done = 0  # tokens of the hypothesis
    for chunk in word_alignment(map(key, wanted), (key(given[at]) for at in spoken)).alignments[0]:
        expected = wanted[chunk.ref_start_idx : chunk.ref_end_idx]
        for want, at in zip_longest(expected, spoken[chunk.hyp_start_idx : chunk.hyp_end_idx]):
            if at is None:
                yield Piece("missing", want)
                continue
            yield from (Piece("right", token) for token in given[done:at])
            done = at + 1
            if chunk.type == "equal":
                yield Piece("right", given[at])
            else:
                yield Piece("wrong", given[at], want) if want else Piece("extra", given[at])
    yield from (Piece("right", token) for token in given[done:])


def shortened(pieces: Iterable[Piece], gap: str) -> Iterator[Piece]:
    """The pieces, with one piece for more than MOST_MISSING missing words in a row; `gap` joins words."""
    for kind, run in groupby(pieces, lambda piece: piece.kind):
        same = list(run)
        if kind == "missing" and len(same) > MOST_MISSING:
            yield Piece("many missing", f"{len(same)} words missing", gap.join(piece.text for piece in same))
        else:
            yield from same
