"""Findings: one line of the doctor's each, with a value and, unless all is well, the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["OK", "WARN", "FAIL"]
_EXIT_CODES: dict[Level, int] = {"OK": 0, "WARN": 1, "FAIL": 2}

REINSTALL = "make install; in an image: take the image again"


@dataclass(frozen=True)
class Finding:
    """`name`: what was looked at. `remedy`: a command or an option; "" only where `level` is OK."""

    name: str
    level: Level
    value: str
    remedy: str = ""


def ok(name: str, value: str) -> Finding:
    return Finding(name, "OK", value)


def warn(name: str, value: str, remedy: str) -> Finding:
    """It works with reservations."""
    return Finding(name, "WARN", value, remedy)


def fail(name: str, value: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(name, "FAIL", value, remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: fine, 1: works with reservations, 2: does not work."""
    return max((_EXIT_CODES[finding.level] for finding in findings), default=0)
