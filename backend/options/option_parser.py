"""A strict parser of the operator's `name:value` pairs.

- An unknown option is an error that lists the known ones.
- A value has the option's type and range, and is finite, or it is refused by the option's name.
- Nothing is guessed, and nothing is ignored silently: an option without an effect is logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace

from backend.errors import InvalidOption
from backend.options.load_options import LoadOptions
from backend.options.option_table import BATCH, OPTIONS

_log = logging.getLogger(__name__)

# Some gateways (early 2026) add these options of llama.cpp to every model on a machine with a GPU.
_IGNORED = {"parallel", "cache_reuse"}
_OTHER_NAMES = {"keep_alive": "idle_unload_seconds, in seconds"}  # of other servers


def with_options(options: LoadOptions, pairs: Iterable[str], engine_args: str) -> LoadOptions:
    """`options` with the operator's `name:value` pairs and then the JSON object `engine_args` applied.

    Raises InvalidOption.
    """
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise InvalidOption(pair, "has no value; write it as name:value")
        options = _applied(options, name.strip(), value.strip())
    if engine_args.strip():
        try:
            arguments = json.loads(engine_args)
        except (ValueError, RecursionError):  # RecursionError: deeply nested brackets
            arguments = None
        if not isinstance(arguments, dict):
            raise InvalidOption("EngineArgs", "must be a JSON object of option names and values")
        for name, value in arguments.items():
            if type(value) not in (str, int, float, bool):
                raise InvalidOption(name, "must be a string, a number, true or false in EngineArgs")
            options = _applied(options, name, str(value))
    return options


def _applied(options: LoadOptions, name: str, value: str) -> LoadOptions:
    if name in _IGNORED:
        _log.info("the option '%s' is another engine's; it changes nothing here", name)
        return options
    if name in _OTHER_NAMES:
        raise InvalidOption(name, f"is not known; here it is {_OTHER_NAMES[name]}")
    option = OPTIONS.get(name)
    if option is None:
        raise InvalidOption(name, f"is not known; known options: {', '.join(sorted(OPTIONS))}")
    if option.values is BATCH and value == "-1":
        _log.info("'%s:-1', no bound, is more than a machine has; the default stays", name)
        return options
    return replace(options, **{option.field: option.values.parse(name, value)})
