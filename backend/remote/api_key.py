"""The servers' API key: read at each load from the environment or a file, and never shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from backend.errors import InvalidOption
from backend.options.load_options import LoadOptions

_MAX_CHARS = 4096


class ApiKey:
    """`headers`: of a request with the key; none without one."""

    def __init__(self, key: str = "") -> None:
        self.headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"} if key else {}

    def __repr__(self) -> str:
        return "ApiKey(…)" if self.headers else "ApiKey()"


def read_api_key(options: LoadOptions, environment: Mapping[str, str] = os.environ) -> ApiKey:
    """The key that the options name. Raises InvalidOption."""
    if options.engine_api_key_env:
        name, found = "engine_api_key_env", environment.get(options.engine_api_key_env, "")
    elif options.engine_api_key_file:
        name, found = "engine_api_key_file", _first_line(options.engine_api_key_file)
    else:
        return ApiKey()
    key = found.strip()
    if not key:
        raise InvalidOption(name, "leads to no key: the variable or file is not there, is empty or cannot be read")
    if len(key) > _MAX_CHARS or not (key.isascii() and key.isprintable()):
        raise InvalidOption(name, "leads to something that is no API key")
    return ApiKey(key)


def _first_line(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.readline(_MAX_CHARS + 2).decode("ascii", "replace")
    except OSError:
        return ""
