"""Why the hub did not deliver a checkpoint, in fixed words with a remedy.

Rules: an error is told by its class, the number of a system error and the status of a reply. The texts of the hub's
library are never part of an answer: they may hold words, such as "connection refused", on which the gateway acts.
"""

from __future__ import annotations

import errno
import re
import socket

from backend.process.machine.system_cause import described, errno_of, error_chain, own_cause

OUT_OF_REACH = "could not be fetched; check the name and the network, or put the checkpoint under the models folder"
NO_REVISION = "has no such revision; name a branch, a tag or a commit of it in the option revision"
_BY_CLASS = {
    "GatedRepoError": "is gated; accept its conditions on the hub and set HF_TOKEN",
    "RepositoryNotFoundError": "does not exist, or is private and HF_TOKEN gives no access to it",
    "RevisionNotFoundError": NO_REVISION,
    "EntryNotFoundError": "has no config.json; it must hold a whole checkpoint",
    "RemoteEntryNotFoundError": "has no config.json; it must hold a whole checkpoint",
    "ProxyError": "could not be fetched: the proxy does not answer; check HTTPS_PROXY and ALL_PROXY, or set NO_PROXY",
    "InvalidProxyURL": "could not be fetched: HTTPS_PROXY or ALL_PROXY is no address of a proxy",
    "SSLError": "could not be fetched: the certificate of the hub or of the proxy is not trusted; name its authority's "
    "in REQUESTS_CA_BUNDLE",
    "MissingSchema": "could not be fetched: HF_ENDPOINT is no address; write it as https://HOST",
    "InvalidURL": "could not be fetched: HF_ENDPOINT is no address; write it as https://HOST",
    "LocationParseError": "could not be fetched: HF_ENDPOINT is no address; write it as https://HOST",
    "OfflineModeIsEnabled": "is not on this disk, and HF_HUB_OFFLINE forbids to fetch it; unset that, or put the "
    "checkpoint under the models folder",
}
_SOCKS = (
    "could not be fetched: a SOCKS proxy is named (ALL_PROXY or HTTPS_PROXY), for which PySocks is not installed; name "
    "an HTTP proxy, or run venv/bin/python -m pip install pysocks"
)
_NO_SCHEMA = "could not be fetched: HF_ENDPOINT or a proxy has an unknown schema; write it as https://HOST"
_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NETWORK_LIBRARIES = ("requests", "urllib3", "http", "ssl")
_TEXT_OF_SIZE = "consistency check failed"
_STATUS = re.compile(r"[1-5]\d\d")


def cause_of(error: BaseException) -> str:
    """What goes behind `the hub repository '…' `."""
    chain = list(error_chain(error))
    is_network = False  # a cause of a network error may look like one of the disk: a firewall's EPERM
    for part in chain:
        kind = type(part).__name__
        is_network = is_network or type(part).__module__.partition(".")[0] in _NETWORK_LIBRARIES
        if kind == "InvalidSchema":
            return _SOCKS if "SOCKS" in str(part) else _NO_SCHEMA
        if kind in _BY_CLASS:
            return _BY_CLASS[kind]
        if not is_network and _is_of_disk(part):
            return _disk_cause(errno_of(part) or 0)
        if _TEXT_OF_SIZE in str(part).lower():
            return "could not be fetched: a file arrived with another size than the hub says; load it again"
        status = str(getattr(getattr(part, "response", None), "status_code", ""))
        if _STATUS.fullmatch(status):
            return f"could not be fetched: the hub answered with HTTP status {status}; try later, or check HF_TOKEN"
    said = next(filter(None, map(_network_cause, chain)), "")
    return OUT_OF_REACH.replace(";", f" ({said});", 1) if said else OUT_OF_REACH


def described_for_log(error: BaseException) -> str:
    """The classes of the error and of its causes, with what the system refused."""
    return " < ".join(": ".join(filter(None, (type(e).__name__, own_cause(e)))) for e in error_chain(error))


def _is_of_disk(error: BaseException) -> bool:
    """Whether the system refused a file, to Python or to a library in Rust."""
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)):
        return False
    number = errno_of(error)
    is_python = isinstance(error, OSError) and type(error).__module__ == "builtins"
    return number is not None and (is_python or "(os error" in str(error)) and number not in _NETWORK


_NETWORK = {
    getattr(errno, name)
    for name in (
        "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ENETUNREACH", "ENETDOWN", "EHOSTUNREACH", "EHOSTDOWN",
        "ETIMEDOUT", "EPIPE", "EADDRNOTAVAIL", "EAFNOSUPPORT", "ENOTCONN",
    )
}  # fmt: skip


def _disk_cause(number: int) -> str:
    if number in _SPACE:
        return (
            f"could not be stored: no space is left in the cache folder ({described(number)}); free some, or set "
            "HF_HOME to a folder with more"
        )
    return (
        f"could not be stored: the cache folder cannot be written ({described(number)}); set HF_HOME to a folder that "
        "this user may write, or put the checkpoint under the models folder"
    )


def _network_cause(error: BaseException) -> str:
    if isinstance(error, socket.gaierror) or type(error).__name__ == "NameResolutionError":
        return "the host name is not known"
    if type(error).__name__ in ("ConnectTimeout", "ReadTimeout", "ConnectTimeoutError", "ReadTimeoutError"):
        return "it does not answer in time"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    number = errno_of(error)
    return errno.errorcode.get(number, "") if number else ""
