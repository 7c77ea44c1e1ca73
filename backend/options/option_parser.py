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
from difflib import get_close_matches

from backend.errors import InvalidOption
from backend.options.load_options import LoadOptions
from backend.options.option_table import BATCH, OPTIONS
from backend.options.option_values import MAX_URLS

_log = logging.getLogger(__name__)

# Some gateways (early 2026) add these options of llama.cpp to every model on a machine with a GPU.
_IGNORED = {"parallel", "cache_reuse"}
_OTHER_NAMES = {"keep_alive": "idle_unload_seconds, in seconds"}  # of other servers
_MOST_IN_FLIGHT = 1024  # passages at all servers of engine_url together
_ENGINE_FIELDS = ("engine_model", "engine_api_key_env", "engine_api_key_file", "engine_concurrency", "engine_timeout_s")


def with_options(options: LoadOptions, pairs: Iterable[str], engine_args: str) -> LoadOptions:
    """`options` with the operator's `name:value` pairs and then the JSON object `engine_args` applied.

    Raises InvalidOption.
    """
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise InvalidOption(pair, "has no value; write it as name:value")
        options = _applied(options, name.strip(), value.strip(), added=True)
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
    _check_engine(options)
    return options


def _check_engine(options: LoadOptions) -> None:
    """The options of remote/ together. Raises InvalidOption."""
    urls = options.engine_urls
    if len(set(urls)) < len(urls) or len(urls) > MAX_URLS:
        raise InvalidOption("engine_url", f"must name each server once, and at most {MAX_URLS} servers")
    if len(urls) * options.engine_concurrency > _MOST_IN_FLIGHT:
        problem = f"times the servers of engine_url must be at most {_MOST_IN_FLIGHT}; each passage has a thread here"
        raise InvalidOption("engine_concurrency", problem)
    if options.engine_api_key_env and options.engine_api_key_file:
        raise InvalidOption("engine_api_key_env", "and engine_api_key_file name two keys; leave one out")
    if not urls and any(getattr(options, field) != getattr(LoadOptions, field) for field in _ENGINE_FIELDS):
        _log.warning("engine_model, engine_api_key_*, engine_concurrency and engine_timeout_seconds need engine_url")


def _applied(options: LoadOptions, name: str, value: str, *, added: bool = False) -> LoadOptions:
    """`added`: to what a repeatable option holds already."""
    if name in _IGNORED:
        _log.info("the option '%s' is another engine's; it changes nothing here", name)
        return options
    if name in _OTHER_NAMES:
        raise InvalidOption(name, f"is not known; here it is {_OTHER_NAMES[name]}")
    option = OPTIONS.get(name)
    if option is None:
        near = get_close_matches(name[:64].lower(), OPTIONS, 1)
        meant = (
            f"; did you mean {near[0]}? docs/options.md has all"
            if near
            else f". Known options: {', '.join(sorted(OPTIONS))}"
        )
        raise InvalidOption(name, f"is not known{meant}")
    if option.values is BATCH and value == "-1":
        _log.info("'%s:-1', no bound, is more than a machine has; the default stays", name)
        return options
    parsed = option.values.parse(name, value)
    if option.repeatable and added:
        parsed = (*getattr(options, option.field), *parsed)
    return replace(options, **{option.field: parsed})
