"""Command lines of the tools: argument types, and make's variables as arguments.

`make eval MODEL=x` puts MODEL into the environment of `python -m devtools.eval`, and

    parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace

reads it as `--model=x`, in front of the real arguments, which therefore win. Every long option has its variable:
`--min-words` is MIN_WORDS; an option with two names (`--option`, `--options`) has two. An empty variable is an empty
argument; a flag without a value is set by anything but "" and "0". The environment counts only under make and only with
`argv` None, so neither tests nor `python -m` at a terminal depend on it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """`argv` None: the process's own arguments, behind those that make's variables stand for."""
    if argv is None:
        variables = os.environ if "MAKELEVEL" in os.environ else {}
        argv = [*from_environment(parser, variables), *sys.argv[1:]]
    return parser.parse_args(argv)


def from_environment(parser: argparse.ArgumentParser, variables: Mapping[str, str]) -> list[str]:
    """The arguments of `parser` that `variables` stand for."""
    arguments = []
    for action in parser._actions:  # argparse has no public list of a parser's options
        for option in action.option_strings:
            value = variables.get(option.removeprefix("--").replace("-", "_").upper())
            if value is None or not option.startswith("--") or action.dest == "help":
                continue
            if action.nargs != 0:
                arguments.append(f"{option}={value}")
            elif value not in ("", "0"):
                arguments.append(option)
    return arguments


def count(text: str) -> int:
    """An argparse type: a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def some_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """An argparse type: some of the `known` names, with commas between them."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in text.split(","))
        unknown = [name for name in found if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not known; there are {', '.join(known)}")
        return found

    return names
