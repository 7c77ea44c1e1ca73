"""The token that the operator sets: every call needs it. Imports no grpc, so that the doctor works without."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backend.errors import TokenRefused

TOKEN_VARIABLE = "LOCALAI_GRPC_AUTH_TOKEN"  # noqa: S105 - its name
_CARRIED = re.compile(r"(?=.*[!-~])[ -~]+")  # printable ASCII, and not spaces alone


def operator_token(environment: Mapping[str, str]) -> str:
    """The token that every call needs; "" if none is set. Raises TokenRefused.

    A file of a secret often ends with a line end, which no metadata can carry: it is no part of the token. What is
    left must be one that a call can carry. A token is never dropped: the port would be open to everybody.
    """
    setting = environment.get(TOKEN_VARIABLE, "")
    token = setting.rstrip("\r\n")
    if setting and not _CARRIED.fullmatch(token):
        raise TokenRefused
    return token
