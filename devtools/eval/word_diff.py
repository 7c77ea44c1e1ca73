"""A hypothesis word by word against its reference: what is right, wrong, inserted or deleted.

For the page: it compares what is written, without case and punctuation; the figures count normalised text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, zip_longest
from typing import Literal, NamedTuple

from devtools.eval.normalization import UNSPACED, key, tokens
from devtools.eval.scoring import word_alignment

MOST_MISSING = 8  # deleted words in a row that are shown; of more, only their number


class Piece(NamedTuple):
    """`text` as in the hypothesis, or for a missing word as in the reference; `wanted`: what a wrong word should be.

    "many missing": `text` is their number and `wanted` the words.
    """

    kind: Literal["right", "wrong", "extra", "missing", "many missing"]
    text: str
    wanted: str = ""


def diff(reference: str, hypothesis: str, language: str) -> list[Piece]:
    """The pieces in their order. Punctuation that stands alone is right wherever it stands."""
    wanted = [token for token in tokens(reference, language) if key(token)]
    written = tokens(hypothesis, language)
    spoken = [i for i, token in enumerate(written) if key(token)]
    pieces: list[Piece] = []
    shown = 0
    for at, piece in _differences(wanted, [written[i] for i in spoken]):
        upto = spoken[at] if at < len(spoken) else len(written)
        if piece.kind != "missing":
            pieces += [Piece("right", token) for token in written[shown:upto]]
            shown = upto + 1
        pieces.append(piece)
    return pieces + [Piece("right", token) for token in written[shown:]]


def _differences(wanted: list[str], spoken: list[str]) -> Iterator[tuple[int, Piece]]:
    """Each piece with the index in `spoken` where it stands, or for a missing word would stand."""
    for chunk in word_alignment(map(key, wanted), map(key, spoken)).alignments[0]:
        expected = wanted[chunk.ref_start_idx : chunk.ref_end_idx]
        found = spoken[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for i, (want, have) in enumerate(zip_longest(expected, found, fillvalue="")):
            at = min(chunk.hyp_start_idx + i, chunk.hyp_end_idx)
            if chunk.type == "equal":
                yield at, Piece("right", have)
            elif want and have:
                yield at, Piece("wrong", have, want)
            else:
                yield at, Piece("extra", have) if have else Piece("missing", want)


def without_long_gaps(pieces: list[Piece], language: str) -> Iterator[Piece]:
    """The pieces, with one piece for more than MOST_MISSING missing words in a row."""
    for kind, run in groupby(pieces, lambda piece: piece.kind):
        same = list(run)
        if kind == "missing" and len(same) > MOST_MISSING:
            words = ("" if language in UNSPACED else " ").join(piece.text for piece in same)
            yield Piece("many missing", f"{len(same)} words missing", words)
        else:
            yield from same
