"""What the fakes are to do, and when they are to fail: a plan that travels as the name of the model.

LoadModel brings it, so that one process can go through many plans, each loaded over the one before as any other model
would be. Calls are counted from the load, and only those that serve a request of a trial (it has a prompt): what the
backend asks of a model by itself, a warm-up say, is not meant.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

Where = Literal["session", "add", "step", "drop", "align", "load aligner", "load recognizer"]
Kind = Literal[
    "out of memory", "exception", "lost device", "hang", "slow", "times that are no numbers", "too few answers",
    "text that no reply can hold",
]  # fmt: skip

_TAKE = re.compile(r"take (\d+) steps")


@dataclass(frozen=True)
class Fault:
    """What happens at the call with number `at`, from 1, and at all after it if it `lasts`.

    `at` 0: at every call that has something marked in it, see sounds.py; at the first of them if it happens `once`.
    """

    where: Where
    kind: Kind
    at: int = 0
    lasts: bool = False
    once: bool = False

    def strikes(self, call: int, marked: int) -> bool:
        """`marked`: the how manyeth call with something marked this is; 0 if nothing is."""
        if self.at == 0:
            return marked == 1 if self.once else marked > 0
        return call >= self.at if self.lasts else call == self.at


@dataclass(frozen=True)
class Plan:
    """`steps`: of an utterance whose prompt does not say `take N steps`. `passage_s`: to align one passage.

    `leaks`: the recogniser keeps everything that it was given, and must be caught at it.
    """

    steps: int = 3
    step_s: float = 0.001
    passage_s: float = 0.001
    faults: tuple[Fault, ...] = ()
    leaks: bool = False

    def as_name(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of_name(name: str) -> Plan:
        """Raises ValueError, KeyError or TypeError if the name is no plan."""
        read = json.loads(name)
        return Plan(**{**read, "faults": tuple(Fault(**fault) for fault in read["faults"])})

    def steps_of(self, prompt: str) -> int:
        wanted = _TAKE.search(prompt)
        return int(wanted.group(1)) if wanted else self.steps


def taking(steps: int, name: object = "") -> str:
    """A prompt that makes a request last so many steps; `name` makes it one of its own."""
    return f"take {steps} steps {name}".strip()
