"""Everything that one evaluation found, as values; the table, the JSON file and the page show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.languages import NAMES
from devtools.eval.hypotheses import Hypothesis, Run
from devtools.eval.live.lane import LiveLane
from devtools.eval.manifest import Entry
from devtools.eval.scoring import Figures, Scored, figures, score
from devtools.tables import NOT_MEASURED

BACKEND, PACKAGE = "backend", "package"  # the keys of `systems`
ALL = "all"
NO_SPEECH = "no speech"
PEAKS_PER_S = 50


class Envelope(NamedTuple):
    """A waveform for drawing. `peaks`: (n,) within 0..1, PEAKS_PER_S a second; empty for an unreadable file."""

    duration_s: float = 0.0
    peaks: NDArray[np.float32] = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Recording:
    """One recording with the score of each system."""

    entry: Entry
    envelope: Envelope
    scored: Mapping[str, Scored]

    def as_json(self) -> dict[str, Any]:
        entry, duration_s = self.entry, self.envelope.duration_s
        fields = {"id": entry.id, "language": entry.language, "duration_s": duration_s, "text": entry.text}
        systems = {name: {**asdict(s.hypothesis), "score": asdict(s.score)} for name, s in self.scored.items()}
        return {**fields, "words": entry.words, "systems": systems}


@dataclass(frozen=True)
class Probe:
    """One transcription of a sound without speech. `language` is the code that was forced, "" for none."""

    kind: str
    level: float
    language: str
    hypothesis: Hypothesis

    @property
    def is_hallucination(self) -> bool:
        return bool(self.hypothesis.text.strip())

    def as_json(self) -> dict[str, Any]:
        failure = {"failure": self.hypothesis.failure} if self.hypothesis.failure else {}
        sound = {"kind": self.kind, "level": self.level, "language": self.language}
        return {**sound, "text": self.hypothesis.text, **failure}


@dataclass(frozen=True)
class System:
    """`figures` by group: the languages' names, NO_SPEECH, ALL."""

    figures: Mapping[str, Figures]
    peak_bytes: int | None
    probes: tuple[Probe, ...]

    @property
    def memory(self) -> str:
        return NOT_MEASURED if self.peak_bytes is None else f"{self.peak_bytes / 2**20:.0f} MiB"

    @property
    def hallucinations(self) -> list[str]:
        """The kind of sound of each hallucination."""
        return [probe.kind for probe in self.probes if probe.is_hallucination]


@dataclass(frozen=True)
class Report:
    """`model`, `aligner`, `manifest` are names for people; the recordings are in the manifest's order."""

    manifest: str
    model: str
    aligner: str
    options: tuple[str, ...]
    made: str
    recordings: tuple[Recording, ...]
    systems: Mapping[str, System]
    live: LiveLane | None = None

    @property
    def duration_s(self) -> float:
        return sum(r.envelope.duration_s for r in self.recordings)

    @property
    def worst_first(self) -> list[Recording]:
        """By the backend's failures, then by its WER (hallucinations count as 1), then by its boundary errors."""

        def badness(recording: Recording) -> tuple[bool, float, float]:
            failure, score = recording.scored[BACKEND].hypothesis.failure, recording.scored[BACKEND].score
            return bool(failure), score.words.rate or float(score.invented), score.edge_mean_s or 0.0

        return sorted(self.recordings, key=badness, reverse=True)


def envelope(samples: NDArray[np.float32], sample_rate: int = 16_000) -> Envelope:
    """The peak of every 20 ms, relative to the recording's peak. samples: (n,) mono."""
    every = sample_rate // PEAKS_PER_S
    peaks = np.abs(np.pad(samples, (0, -samples.size % every))).reshape(-1, every).max(axis=1, initial=0)
    return Envelope(samples.size / sample_rate, (peaks / max(float(peaks.max(initial=0)), 1e-9)).astype(np.float32))


def recording(entry: Entry, envelope: Envelope, runs: Mapping[str, Run]) -> Recording:
    found = {name: run.hypotheses[entry.id] for name, run in runs.items()}
    scored = {name: Scored(entry, h, score(entry, h), envelope.duration_s) for name, h in found.items()}
    return Recording(entry, envelope, scored)


def system(name: str, run: Run, recordings: Sequence[Recording], probes: Sequence[Probe]) -> System:
    found = {group: figures([r.scored[name] for r in members]) for group, members in groups(recordings).items()}
    return System(found, run.peak_bytes, tuple(probes))


def groups(recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """The recordings by language, the most frequent first, then those without speech, then all of them."""
    spoken = [r.entry.language for r in recordings if r.entry.is_speech]
    languages = sorted(set(spoken), key=lambda code: (-spoken.count(code), code))
    found = {NAMES[code]: [r for r in recordings if r.entry.language == code] for code in languages}
    silent = [r for r in recordings if not r.entry.is_speech]
    return found | ({NO_SPEECH: silent} if silent else {}) | {ALL: list(recordings)}


def as_json(report: Report) -> dict[str, Any]:
    """Everything but the waveforms, in JSON's own types."""
    names = ("manifest", "model", "aligner", "options", "made")
    return {name: getattr(report, name) for name in names} | {
        "systems": {
            name: {
                "figures": {group: asdict(found) for group, found in system.figures.items()},
                "peak_bytes": system.peak_bytes,
                "nonspeech": [probe.as_json() for probe in system.probes],
            }
            for name, system in report.systems.items()
        },
        "recordings": [recording.as_json() for recording in report.recordings],
        **({"live": asdict(report.live)} if report.live else {}),
    }
