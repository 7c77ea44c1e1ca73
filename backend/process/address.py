"""Where to listen: HOST:PORT, or the human cause why not.

Looked at before gRPC sees it, which takes 99999 modulo 65536, listens on 443 where the port is forgotten, and gives one
sentence for every failure.
"""

from __future__ import annotations

import errno
import re
import socket

from backend.errors import CannotListen

_WRITTEN = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]):(?P<port>[0-9]{1,5})")
_CAUSES = {
    errno.EADDRINUSE: "the port is taken by another process",
    errno.EADDRNOTAVAIL: "the address is not this machine's",
    errno.EACCES: "the port is privileged; use one from 1024 on",
}


def parse(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port. Raises CannotListen."""
    written = _WRITTEN.fullmatch(address)
    if written is None or int(written["port"]) > 65535:
        raise CannotListen(address, "write it as HOST:PORT, such as 127.0.0.1:50051; port 0 means any free one")
    return written["host"].strip("[]"), int(written["port"])


def why_not(address: str) -> CannotListen:
    """Why nobody can listen there, found by trying."""
    host, port = parse(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
            tried.bind(where)
            tried.listen()
    except (socket.gaierror, UnicodeError):  # the latter: not even a possible name
        return CannotListen(address, "the host name is not known")
    except OSError as error:
        return CannotListen(address, _CAUSES.get(error.errno or 0, error.strerror or "the system refuses it"))
    return CannotListen(address, "the port was taken a moment ago")
