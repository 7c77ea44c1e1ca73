"""A case: what is sent, and what may come back for it. Saved as JSON it can be sent again, whatever made it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Expected = Literal["good", "bad", "either"]


@dataclass(frozen=True)
class Case:
    """`kind` is its line in the table, `name` what is special about it.

    Of audio: `content` is written to a file of its own, or `path` is sent as it is ({folder} in it stands for the run's
    folder). `request` has the other fields of a TranscriptRequest; with `load` it is a ModelOptions' instead.
    `text`: the text of the answer, where it is known.
    """

    kind: str
    name: str
    expected: Expected
    content: bytes = b""
    path: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    load: bool = False
    text: str = ""

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "content": base64.b64encode(self.content).decode()}, indent=1)

    @staticmethod
    def of_json(text: str) -> Case:
        """Raises ValueError, KeyError or TypeError. What else stands there (the failure) is not read."""
        read = json.loads(text)
        fields = {name: read[name] for name in asdict(Case("", "", "good"))}
        return Case(**{**fields, "content": base64.b64decode(read["content"])})


def save(case: Case, folder: Path, number: int, seed: int, failures: list[str]) -> Path:
    """Beside the case: the seed and number that made it, and what was wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}-{number}.json"
    told = {**json.loads(case.as_json()), "seed": seed, "number": number, "failures": failures}
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return path
