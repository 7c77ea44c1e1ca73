"""What is asked of a system and what it answers, for the backend and the baseline alike; on files as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Word(NamedTuple):
    """A word as it is written, and where it is spoken, in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Job:
    """One file to transcribe. `language` is the code to force, "" to let it be detected."""

    key: str
    audio: str
    language: str = ""


@dataclass(frozen=True)
class Answer:
    """What was heard, in `took_s` seconds. `language` is a code, "" for none; `failure` says why there is nothing."""

    text: str = ""
    language: str = ""
    words: tuple[Word, ...] = ()
    took_s: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Run:
    """One system's answers, by the keys of its jobs; `peak_bytes` is the most memory it held, None if nobody counts."""

    answers: Mapping[str, Answer]
    peak_bytes: int | None


def write_jobs(path: Path, jobs: Iterable[Job]) -> None:
    path.write_text("".join(json.dumps(asdict(job)) + "\n" for job in jobs), encoding="utf-8")


def read_jobs(path: Path) -> list[Job]:
    return [Job(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def answer_line(key: str, answer: Answer) -> str:
    return json.dumps({"key": key, **asdict(answer)}) + "\n"


def read_answers(lines: Iterable[str]) -> dict[str, Answer]:
    """The answers of whole lines; one that a crash cut short, and one that holds no answer, is left out."""
    answers: dict[str, Answer] = {}
    for line in lines:
        fields = _fields(line)
        if "key" in fields:
            words = tuple(Word(*word) for word in fields.pop("words"))
            key = fields.pop("key")
            answers[key] = Answer(words=words, **fields)
    return answers


def read_peak(lines: Iterable[str]) -> int | None:
    """The last word on memory among the lines: {"peak_bytes": ...}."""
    peaks = [fields["peak_bytes"] for fields in map(_fields, lines) if "peak_bytes" in fields]
    return peaks[-1] if peaks else None


def peak_bytes(pid: int | str) -> int | None:
    """The most memory that a running process ever held (VmHWM); None where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
    return sizes[0] if sizes else None


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
