"""Command lines of the tools: argument types, and make's variables as arguments.

`make eval MODEL=x` puts MODEL into the environment of `python -m devtools.eval`, and

    parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace

reads it as `--model=x`, in front of the real arguments, which therefore win. Every long option has its variable:
`--min-words` is MIN_WORDS; an option with two names (`--option`, `--options`) has two. An empty variable is an empty
argument; a flag without a value is set by anything but "" and "0". Under make what is wrong is named by its variable,
and no usage of options is printed, which nobody typed. A variable on make's command line that the tool does
not have is refused by its name. The environment counts only under make and only with `argv` None, so neither tests nor
`python -m` at a terminal depend on it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

# Variables of install.sh and of the Makefile, which install before a tool runs.
_OF_INSTALL = frozenset(
    {"ADDR", "BUILD_TYPE", "CPU_TORCH_ONLY", "CUDA", "CUDA_MAJOR_VERSION", "DEV", "PORTABLE_PYTHON", "PYTHON", "SHELL"}
)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """`argv` None: the process's own arguments, behind those that make's variables stand for."""
    if argv is not None or "MAKELEVEL" not in os.environ:
        return parser.parse_args(argv)
    if unknown := unknown_variable(parser, os.environ.get("MAKEFLAGS", "")):
        parser.exit(2, f"{parser.prog}: {unknown}\n")
    parser.exit_on_error = False
    try:
        return parser.parse_args([*from_environment(parser, os.environ), *sys.argv[1:]])
    except argparse.ArgumentError as wrong:
        variable = variable_of((wrong.argument_name or "").rpartition("/")[2])
        parser.exit(2, f"{parser.prog}: {variable}: {wrong.message}\n")


def variable_of(option: str) -> str:
    """The variable of an option: MIN_WORDS of --min-words."""
    return option.removeprefix("--").replace("-", "_").upper()


def unknown_variable(parser: argparse.ArgumentParser, makeflags: str) -> str:
    """Why a variable on make's command line is refused, "" if none is. `makeflags`: make's own MAKEFLAGS."""
    _, _, overrides = f" {makeflags}".partition(" -- ")
    known = {
        variable_of(option)
        for action in parser._actions  # argparse has no public list of a parser's options
        for option in action.option_strings
        if option.startswith("--") and action.dest != "help"
    }
    for name in re.findall(r"(?:^|(?<!\\) )([A-Za-z_][A-Za-z0-9_]*)=", overrides):
        if name not in known and name not in _OF_INSTALL and not name.startswith("PIP_"):
            near = get_close_matches(name.upper(), known, 1)
            meant = f"; did you mean {near[0]}?" if near else "."
            return f"{name} is no variable of this command{meant} It has {', '.join(sorted(known))}"
    return ""


def from_environment(parser: argparse.ArgumentParser, variables: Mapping[str, str]) -> list[str]:
    """The arguments of `parser` that `variables` stand for."""
    arguments = []
    for action in parser._actions:  # argparse has no public list of a parser's options
        for option in action.option_strings:
            value = variables.get(variable_of(option))
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
