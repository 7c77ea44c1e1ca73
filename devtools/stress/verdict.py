"""What is wrong with an answer: nothing, or sentences. The rules are the specification's, see each."""

from __future__ import annotations

from dataclasses import dataclass

from devtools.stress.asking import OK
from devtools.stress.cases import Case
from devtools.stress.processes import MIB
from devtools.stress.sounds import UNCLEAN

LONGEST_S = 5.0
MOST_MIB = 512
OURS = "upload-of-a-client"  # in every file's name; an error text that has it repeats what a client controls
_REFUSED = "INVALID_ARGUMENT"
_TOO_LARGE = "RESOURCE_EXHAUSTED"
_EVICTING = ("connection refused", "connection reset", "no such host", "model not loaded")  # the gateway acts on them


@dataclass(frozen=True)
class Reply:
    """`status`: a gRPC code's name; of a load that is not successful, `refused`. `cost`: bytes beyond what was held."""

    status: str
    took_s: float
    cost: int = 0
    details: str = ""
    text: str = ""
    faults: tuple[str, ...] = ()
    has_died: bool = False


def failures(case: Case, reply: Reply) -> list[str]:
    found = list(_outcome(case, reply))
    if reply.has_died:
        found.append("the server died")
    if reply.took_s > LONGEST_S:
        found.append(f"took {reply.took_s:.1f} s")
    if reply.cost > MOST_MIB * MIB:
        found.append(f"cost {reply.cost // MIB} MiB")
    if any(text in reply.details.lower() for text in _EVICTING):
        found.append("the error text makes the gateway evict the model")
    if not case.load and OURS in reply.details:
        found.append("the error text repeats the file's name")
    return found


def _outcome(case: Case, reply: Reply) -> list[str]:
    if case.load:
        allowed = {"good": {OK}, "bad": {"refused"}, "either": {OK, "refused"}}[case.expected]
        return [] if reply.status in allowed else [f"{reply.status} instead of {' or '.join(sorted(allowed))}"]
    allowed = {"good": {OK}, "bad": {_REFUSED, _TOO_LARGE}, "either": {OK, _REFUSED, _TOO_LARGE}}[case.expected]
    if reply.status not in allowed:
        return [f"{reply.status} instead of {' or '.join(sorted(allowed))}: {reply.details}"]
    if reply.status != OK:
        return []
    found = list(reply.faults)
    if not reply.text:  # the recogniser has a text for every sound, silence too
        found.append("OK without having been transcribed")
    if reply.text == UNCLEAN:
        found.append("a control token reached the recogniser")
    if case.text and reply.text != case.text:
        found.append("not the samples of the file")
    return found
