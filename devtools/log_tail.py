"""The end of a failed server's log, as people are shown it above the cause: what the cause does not say itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

LINES_SHOWN = 20
_ORDINARY = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ (INFO|DEBUG) |^\{")  # of no failure, and the JSON of requests

_OF_HUB = "backend.checkpoint.hub: the hub: "  # followed by the classes of an error that the cause explains


def show_log_tail(lines: Sequence[str], cause: str) -> None:
    """On stderr, with a heading; nothing where the `cause`, which the command shows last, is all that the log has."""
    if shown := [*telling(lines, cause)][-LINES_SHOWN:]:
        print("the end of the backend's log:", *shown, sep="\n", file=sys.stderr)


def telling(lines: Sequence[str], cause: str) -> Iterator[str]:
    """Warnings, errors, traces and what libraries wrote; not the line that says the `cause` once more."""
    for line in lines:
        said = line.partition(" refused: ")[2].rpartition(" [request ")[0]
        is_cause = (said and said in cause) or (_OF_HUB in line and "hub repository" in cause)
        if not (_ORDINARY.match(line) or is_cause):
            yield line
