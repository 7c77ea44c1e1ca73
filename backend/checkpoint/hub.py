"""Fetching from the Hugging Face hub, within bounds and with a cause that a person can act on.

Rules: a hub that does not answer is given up in half a minute, whatever it does instead; what has been fetched before
is good enough then. The library's own texts stay in the log: they hold the very words on which the gateway acts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import HubFailure

_log = logging.getLogger(__name__)

_ANSWER_S = 10.0  # for one answer; the library asks up to six times
_PATIENCE_S = 30.0  # for config.json, with which every load begins: a few kilobytes
_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja"]


_OUT_OF_REACH = "could not be fetched; check the name and the network, or put the checkpoint under the models folder"
_CAUSES = {
    "GatedRepoError": "is gated; accept its conditions on the hub and set HF_TOKEN",
    "RepositoryNotFoundError": "does not exist, or is private and HF_TOKEN gives no access to it",
    "EntryNotFoundError": "has no config.json; it must hold a whole checkpoint",
    "RemoteEntryNotFoundError": "has no config.json; it must hold a whole checkpoint",
}


def fetch_config(repository: str, patience_s: float = _PATIENCE_S) -> Path:
    """The repository's config.json. Raises HubFailure."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(_within(patience_s, lambda: hf_hub_download(repository, "config.json", etag_timeout=_ANSWER_S)))
    except TimeoutError:
        try:
            return Path(hf_hub_download(repository, "config.json", local_files_only=True))
        except Exception as error:  # it has not been fetched before
            raise HubFailure(repository, _OUT_OF_REACH) from error
    except Exception as error:  # the hub's library raises whatever it likes
        raise _failure(repository, error) from error


def fetch(repository: str) -> Path:
    """The folder with the repository's files. Takes as long as gigabytes take, while they come. Raises HubFailure."""
    from huggingface_hub import configure_http_backend, snapshot_download

    configure_http_backend(_bounded_session)
    try:
        return Path(snapshot_download(repository, allow_patterns=_FILES, etag_timeout=_ANSWER_S))
    except Exception as error:  # the hub's library raises whatever it likes
        raise _failure(repository, error) from error


def _bounded_session() -> Any:
    """The library's own, with a bound on every answer: it would wait for the list of the files for ever."""
    from huggingface_hub.utils._http import _default_backend_factory

    session: Any = _default_backend_factory()
    send = session.send
    session.send = lambda request, **named: send(request, **{**named, "timeout": named.get("timeout") or _ANSWER_S})
    return session


def _failure(repository: str, error: Exception) -> HubFailure:
    _log.warning("the hub: %s", type(error).__name__)
    return HubFailure(repository, _CAUSES.get(type(error).__name__, _OUT_OF_REACH))


def _within(seconds: float, work: Callable[[], str]) -> str:
    """What `work` gives, or TimeoutError; it goes on by itself then, until its own timeouts end it."""
    results: list[str] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - raised again below, where it is waited for
            failures.append(error)

    thread = threading.Thread(target=run, name="hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]
