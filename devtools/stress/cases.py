"""A case of the fuzzing: what is sent, which answers are right, and what is wrong with the one that came.

A case that failed is saved as JSON and can be sent again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from devtools.procfs import MIB
from devtools.stress.client import FULL, OK
from devtools.stress.sounds import UNCLEAN

Expected = Literal["good", "bad", "either"]
TIME_LIMIT_S, MEMORY_LIMIT_MIB = 5.0, 512
FILE_NAME = "upload-of-a-client"  # no error text may contain it: a client controls it
_EVICTING = ("connection refused", "connection reset", "no such host", "model not loaded")  # for the gateway


@dataclass(frozen=True)
class Case:
    """`kind` is its row in the table, `name` what is special about it.

    Audio: `content` is written to a file, or `path` is sent as it is, with {folder} for the run's folder. `request` has
    other fields of TranscriptRequest, or with `load` those of ModelOptions. `text`: of the reply, where known.
    """

    kind: str
    name: str
    expected: Expected
    content: bytes = b""
    path: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    load: bool = False
    text: str = ""

    @staticmethod
    def of_json(text: str) -> Case:
        """Raises ValueError, KeyError or TypeError. Other fields (seed, failures) are ignored."""
        saved = json.loads(text)
        values = {each.name: saved[each.name] for each in fields(Case)}
        return Case(**{**values, "content": base64.b64decode(values["content"])})


@dataclass(frozen=True)
class Reply:
    """`status`: the name of a gRPC code, or `refused` for a load. `growth_bytes`: memory above that before the case."""

    status: str
    took_s: float = 0.0
    growth_bytes: int = 0
    details: str = ""
    text: str = ""
    violations: tuple[str, ...] = ()
    has_died: bool = False


def save(case: Case, folder: Path, number: int, seed: int, failures: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}-{number}.json"
    content = base64.b64encode(case.content).decode()
    saved = {**asdict(case), "content": content, "seed": seed, "number": number, "failures": failures}
    path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return path


def failures(case: Case, reply: Reply) -> list[str]:
    """What is wrong with the reply."""
    refusals = {"refused"} if case.load else {"INVALID_ARGUMENT", FULL}
    allowed = {"good": {OK}, "bad": refusals, "either": {OK, *refusals}}[case.expected]
    is_transcript = reply.status == OK and OK in allowed and not case.load
    wrong = {
        f"{reply.status} instead of {' or '.join(sorted(allowed))}: {reply.details}": reply.status not in allowed,
        "OK without having been transcribed": is_transcript and not reply.text,  # silence has a text, too
        "a control token reached the recogniser": is_transcript and reply.text == UNCLEAN,
        "not the samples of the file": is_transcript and bool(case.text) and reply.text != case.text,
        **dict.fromkeys(reply.violations, is_transcript),
        "the server died": reply.has_died,
        f"took {reply.took_s:.1f} s": reply.took_s > TIME_LIMIT_S,
        f"cost {reply.growth_bytes // MIB} MiB": reply.growth_bytes > MEMORY_LIMIT_MIB * MIB,
        "the error text makes the gateway evict the model": any(text in reply.details.lower() for text in _EVICTING),
        "the error text repeats the file's name": not case.load and FILE_NAME in reply.details,
    }
    return [problem for problem, is_there in wrong.items() if is_there]
