"""Fetches checkpoints from the Hugging Face hub, with timeouts, and names a remedy when that fails.

Rules: a hub that does not answer within half a minute, whatever its library's retries still try, is out of reach, and
the files of an earlier download are used instead. The library's texts are never part of an answer: they may hold words,
such as "connection refused", on which the gateway acts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.errors import HubFailure

_log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 10.0  # of one answer; the library retries five times, with exponential back-off
_CONFIG_TIMEOUT_S = 30.0  # for config.json with all retries: a few kilobytes, with which every load starts
_SMALL_FILES = ["*.json", "*.txt", "*.jinja"]
_FILES = [*_SMALL_FILES, "*.safetensors"]


_OUT_OF_REACH = "could not be fetched; check the name and the network, or put the checkpoint under the models folder"
_CAUSES = {
    "GatedRepoError": "is gated; accept its conditions on the hub and set HF_TOKEN",
    "RepositoryNotFoundError": "does not exist, or is private and HF_TOKEN gives no access to it",
    "EntryNotFoundError": "has no config.json; it must hold a whole checkpoint",
    "RemoteEntryNotFoundError": "has no config.json; it must hold a whole checkpoint",
}


def fetch_config(repository: str, timeout_s: float = _CONFIG_TIMEOUT_S) -> Path:
    """The path of the repository's config.json, from the hub or from an earlier download. Raises HubFailure."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            _with_timeout(timeout_s, lambda: hf_hub_download(repository, "config.json", etag_timeout=_ANSWER_TIMEOUT_S))
        )
    except TimeoutError:
        try:
            return Path(hf_hub_download(repository, "config.json", local_files_only=True))
        except Exception as error:  # there was no earlier download; the hub's library raises anything
            raise HubFailure(repository, _OUT_OF_REACH) from error
    except Exception as error:  # the hub's library raises anything
        raise _failure(repository, error) from error


def fetch(repository: str, weights: bool = True) -> Path:
    """The folder with the repository's files, without its weights if `weights` is False.

    No timeout as a whole, because gigabytes take long. Raises HubFailure.
    """
    from huggingface_hub import configure_http_backend, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # stderr is the log
    configure_http_backend(_session_with_timeout)
    try:
        return Path(
            snapshot_download(
                repository, allow_patterns=_FILES if weights else _SMALL_FILES, etag_timeout=_ANSWER_TIMEOUT_S
            )
        )
    except Exception as error:  # the hub's library raises anything
        raise _failure(repository, error) from error


def downloaded(repository: str) -> Path | None:
    """The folder of an earlier download, which may lack files; None where there is none. Asks no network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except Exception:  # noqa: BLE001 - the hub's library raises anything
        return None


def _session_with_timeout() -> Any:
    """The library's HTTP session with a timeout for every answer: it has none for the list of the files."""
    from huggingface_hub.utils._http import _default_backend_factory

    session: Any = _default_backend_factory()
    send = session.send
    session.send = lambda request, **named: send(
        request, **{**named, "timeout": named.get("timeout") or _ANSWER_TIMEOUT_S}
    )
    return session


def _failure(repository: str, error: Exception) -> HubFailure:
    _log.warning("the hub: %s", type(error).__name__)
    return HubFailure(repository, _CAUSES.get(type(error).__name__, _OUT_OF_REACH))


def _with_timeout(timeout_s: float, work: Callable[[], str]) -> str:
    """The result of `work`. Raises TimeoutError; `work` goes on in its thread then, until its own timeouts end it."""
    results: list[str] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=run, name="hub", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError
    return results[0]
