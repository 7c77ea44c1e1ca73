"""What the fake models do and when they fail: a plan that travels as the model's name.

Calls count from the load, and only for requests with a prompt: the backend's own warm-up has none.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

Where = Literal["session", "add", "step", "drop", "align", "load aligner", "load recognizer", "reclaim"]
Kind = Literal["out of memory", "exception", "lost device", "hang", "slow", "NaN times", "too few answers",
               "text that no reply can hold"]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    where: Where
    kind: Kind
    at: int = 0  # number of the call, from 1; 0: every call with a marked recording, see fakes.MARK
    lasts: bool = False  # at all later calls, too
    once: bool = False  # only at the first call with a marked recording

    def strikes(self, call: int, marked: int) -> bool:
        """`marked`: the number of calls with a marked recording so far; 0 if this call has none."""
        if self.at == 0:
            return marked == 1 if self.once else marked > 0
        return call >= self.at if self.lasts else call == self.at


@dataclass(frozen=True)
class Plan:
    steps: int = 3  # decode steps of a prompt without its own number
    step_s: float = 0.001
    passage_s: float = 0.001  # to align one passage
    faults: tuple[Fault, ...] = ()
    leaks: bool = False  # the recognizer keeps all samples

    def as_name(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of_name(name: str) -> Plan:
        """Raises ValueError, KeyError or TypeError if the name is no plan."""
        fields = json.loads(name)
        return Plan(**{**fields, "faults": tuple(Fault(**fault) for fault in fields["faults"])})

    def steps_of(self, prompt: str) -> int:
        found = re.search(r"take (\d+) steps", prompt)
        return int(found.group(1)) if found else self.steps


def prompt_for(steps: int, name: object = "") -> str:
    """A prompt that makes a request run for `steps` decode steps; `name` makes the prompt unique."""
    return f"take {steps} steps {name}".strip()
