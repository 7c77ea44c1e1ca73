"""Everything that one evaluation found, as values; the table, the JSON file and the page are views of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.languages import NAMES
from devtools.eval.answers import Answer, Run
from devtools.eval.manifest import Entry
from devtools.eval.scoring import Figures, Scored, figures, score

OURS, PACKAGE = "backend", "package"  # the keys of `systems`
ALL = "all"
SILENT = "no speech"
PEAKS_PER_S = 50


@dataclass(frozen=True)
class Outline:
    """A recording as it is drawn. `peaks`: (n,) within 0..1, PEAKS_PER_S a second; empty where it cannot be read."""

    duration_s: float = 0.0
    peaks: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class Recording:
    """One recording with what each system made of it."""

    entry: Entry
    outline: Outline
    scored: Mapping[str, Scored]


@dataclass(frozen=True)
class Probe:
    """One transcription of a sound in which nobody speaks. `language` is the code that was forced, "" for none."""

    kind: str
    level: float
    language: str
    answer: Answer

    @property
    def is_invented(self) -> bool:
        return bool(self.answer.text.strip())


@dataclass(frozen=True)
class System:
    """`figures` by group: the languages' names, SILENT, ALL."""

    figures: Mapping[str, Figures]
    peak_bytes: int | None
    probes: tuple[Probe, ...]

    @property
    def inventing(self) -> list[str]:
        """Each kind of sound that was given a text at least once, in order, with how often: `siren (2)`."""
        kinds = [probe.kind for probe in self.probes if probe.is_invented]
        return [f"{kind} ({kinds.count(kind)})" for kind in dict.fromkeys(kinds)]


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

    @property
    def duration_s(self) -> float:
        return sum(r.outline.duration_s for r in self.recordings)

    @property
    def worst_first(self) -> list[Recording]:
        """By the backend's share of wrong words, then by how far its words are off; failures and inventions lead."""

        def badness(recording: Recording) -> tuple[bool, float, float]:
            scored = recording.scored[OURS]
            wrong = scored.score.words
            share = wrong.errors / wrong.units if wrong.units else float(scored.score.invented)
            return bool(scored.answer.failure), share, scored.score.edge_mean_s or 0.0

        return sorted(self.recordings, key=badness, reverse=True)


def outline(samples: NDArray[np.float32], sample_rate: int = 16_000) -> Outline:
    """The loudest sample of every 20 ms, as a share of the recording's loudest. samples: (n,) mono."""
    every = sample_rate // PEAKS_PER_S
    loud = np.abs(np.pad(samples, (0, -samples.size % every))).reshape(-1, every).max(axis=1, initial=0)
    return Outline(samples.size / sample_rate, (loud / max(float(loud.max(initial=0)), 1e-9)).astype(np.float32))


def recording(entry: Entry, outline: Outline, runs: Mapping[str, Run]) -> Recording:
    answers = {name: run.answers[entry.id] for name, run in runs.items()}
    return Recording(
        entry,
        outline,
        {name: Scored(entry, a, score(entry, a), outline.duration_s) for name, a in answers.items()},
    )


def groups(recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """The recordings by language, the most frequent first, then those without speech, then all of them."""
    spoken = [r.entry.language for r in recordings if r.entry.is_speech]
    languages = sorted(set(spoken), key=lambda code: (-spoken.count(code), code))
    found = {NAMES[code]: [r for r in recordings if r.entry.language == code] for code in languages}
    silent = [r for r in recordings if not r.entry.is_speech]
    return found | ({SILENT: silent} if silent else {}) | {ALL: list(recordings)}


def system(name: str, run: Run, recordings: Sequence[Recording], probes: Sequence[Probe]) -> System:
    found = {
        group: figures([recording.scored[name] for recording in members])
        for group, members in groups(recordings).items()
    }
    return System(found, run.peak_bytes, tuple(probes))


def as_json(report: Report) -> dict[str, Any]:
    """Everything but the waveforms, in JSON's own types."""
    return {
        "manifest": report.manifest,
        "model": report.model,
        "aligner": report.aligner,
        "options": list(report.options),
        "made": report.made,
        "systems": {
            name: {
                "figures": {group: asdict(found) for group, found in system.figures.items()},
                "peak_bytes": system.peak_bytes,
                "nonspeech": [
                    {"kind": p.kind, "level": p.level, "language": p.language, "text": p.answer.text}
                    | ({"failure": p.answer.failure} if p.answer.failure else {})
                    for p in system.probes
                ],
            }
            for name, system in report.systems.items()
        },
        "recordings": [_recording_json(r) for r in report.recordings],
    }


def _recording_json(recording: Recording) -> dict[str, Any]:
    entry = recording.entry
    return {
        "id": entry.id,
        "language": entry.language,
        "duration_s": recording.outline.duration_s,
        "text": entry.text,
        "words": entry.words,
        "systems": {
            name: {**asdict(scored.answer), "score": asdict(scored.score)} for name, scored in recording.scored.items()
        },
    }
