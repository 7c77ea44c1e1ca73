"""The listen address HOST:PORT, and the cause in plain words if it cannot be listened on.

The address is checked before gRPC gets it: gRPC takes port 99999 modulo 65536, listens on 443 if the port is missing,
and has one message for every failure.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from typing import Any

from backend.errors import CannotListen

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]):(?P<port>[0-9]{1,5})")
_CAUSES = {
    errno.EADDRINUSE: "the port is taken by another process: one that listens on it, or one with an outgoing "
    "connection, which may have any ephemeral port (on Linux 32768 to 60999 by default); "
    "choose a port outside of these",
    errno.EADDRNOTAVAIL: "the address is not this machine's",
    errno.EACCES: "the port is privileged; use one from 1024 on",
}


def parse(address: str) -> tuple[str, int]:
    """The host, without the brackets of IPv6, and the port, 0 to 65535. Raises CannotListen."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise CannotListen(address, "write it as HOST:PORT, such as 127.0.0.1:50051; port 0 means any free one")
    return match["host"].strip("[]"), int(match["port"])


def listen_obstacle(address: str) -> str:
    """Why nothing can listen on the address now, found by listening once; "" if something can. Raises CannotListen if
    malformed.

    A name with several addresses, such as localhost, is taken if one of them is: callers of that one would reach the
    other process. An address of a family that the machine lacks does not count.
    """
    host, port = parse(address)
    try:
        found = _addresses(host, port)
    except (socket.gaierror, UnicodeError):  # UnicodeError: not a possible host name
        return "the host name is not known"
    errors = [error for error in map(_listen_error, found) if error]
    taken = [error for error in errors if error.errno == errno.EADDRINUSE]
    if not taken and len(errors) < len(found):
        return ""
    error = (taken or errors)[0]
    return _CAUSES.get(error.errno or 0, error.strerror or "the system refuses it")


def refuse_if_half_taken(address: str) -> None:
    """Raise CannotListen if the host is a name of several addresses and the port is taken on one: gRPC would be
    content with the others. Raises CannotListen if malformed, too.
    """
    host, port = parse(address)
    with contextlib.suppress(socket.gaierror, UnicodeError):  # listen_failure tells
        if port and len(_addresses(host, port)) > 1:
            obstacle = listen_obstacle(address)
            if obstacle:
                raise CannotListen(address, obstacle)


def _addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    """Those that gRPC listens on. For localhost they are both loopbacks, whatever /etc/hosts says."""
    hosts = ("127.0.0.1", "::1") if host.lower() == "localhost" else (host,)
    return [info for name in hosts for info in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]


def _listen_error(info: tuple[Any, ...]) -> OSError | None:
    family, kind, protocol, _, target = info
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
            probe.bind(target)
            probe.listen()
    except OSError as error:
        return error
    return None


def listen_failure(address: str) -> CannotListen:
    """The cause of a failed listen. Raises CannotListen if malformed."""
    return CannotListen(address, listen_obstacle(address) or "the port was taken a moment ago")
