"""A transcription word by word against the truth: what is right, wrong, too much, or missing.

For the eye, so it compares what is written, case and punctuation in_thread_if_long; the figures count normalised text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from devtools.eval import spelling
from devtools.eval.scoring import alignment


@dataclass(frozen=True)
class Piece:
    """`text` as it was heard, or for a missing word as it should have been; `wanted`: what a wrong word should be."""

    kind: Literal["right", "wrong", "extra", "missing"]
    text: str
    wanted: str = ""


def marked(truth: str, heard: str, language: str) -> list[Piece]:
    """The pieces of a transcription in their order. Punctuation that stands alone is right wherever it stands."""
    wanted = [token for token in spelling.tokens(truth, language) if spelling.key(token)]
    given = spelling.tokens(heard, language)
    spoken = [i for i, token in enumerate(given) if spelling.key(token)]
    pieces: list[Piece] = []
    shown = 0
    for at, piece in _differences(wanted, [given[i] for i in spoken]):
        upto = spoken[at] if at < len(spoken) else len(given)
        if piece.kind != "missing":
            pieces += [Piece("right", token) for token in given[shown:upto]]
            shown = upto + 1
        pieces.append(piece)
    return pieces + [Piece("right", token) for token in given[shown:]]


def _differences(wanted: list[str], spoken: list[str]) -> Iterator[tuple[int, Piece]]:
    """Each piece with the index in `spoken` where it stands, or for a missing word would stand."""
    for chunk in alignment([spelling.key(t) for t in wanted], [spelling.key(t) for t in spoken]):
        expected = wanted[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = spoken[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for i, (want, have) in enumerate(zip_longest(expected, heard, fillvalue="")):
            at = min(chunk.hyp_start_idx + i, chunk.hyp_end_idx)
            if chunk.type == "equal":
                yield at, Piece("right", have)
            elif want and have:
                yield at, Piece("wrong", have, want)
            else:
                yield at, Piece("extra", have) if have else Piece("missing", want)
