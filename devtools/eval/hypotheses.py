"""Files to transcribe and the hypotheses for them; the same values for the backend and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from devtools.machine_load import Load


class Word(NamedTuple):
    """A word as it is written, and its start and end in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float

    def edge_errors_s(self, reference: Word) -> tuple[float, float]:
        """How much later its start and its end are than the reference's."""
        return self.start_s - reference.start_s, self.end_s - reference.end_s


class Job(NamedTuple):
    """One file to transcribe. `language` is the code to force, "" to let the model detect it."""

    key: str
    audio: str
    language: str = ""


@dataclass(frozen=True)
class Hypothesis:
    """A transcription. `language` is a code, "" for none; `failure` is the cause where there is no transcription."""

    text: str = ""
    language: str = ""
    words: tuple[Word, ...] = ()
    took_s: float = 0.0
    failure: str = ""


class Run(NamedTuple):
    """One system's hypotheses by the keys of their jobs, and its peak of resident memory, None where unknown.

    `load`: what else the machine did meanwhile.
    """

    hypotheses: Mapping[str, Hypothesis]
    peak_bytes: int | None
    load: Load | None = None
