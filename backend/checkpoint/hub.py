"""Fetches checkpoints from the Hugging Face hub, with timeouts, and names a remedy when that fails.

Rules:
- The commit whose config.json was inspected is the one that is loaded.
- A hub that does not answer within half a minute, whatever its library's retries still try, is out of reach, and the
  files of an earlier download are used instead. If that is whole, the first failure is enough: nothing is retried.
- An accelerated transfer that is asked for and not installed is left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from backend.checkpoint.files import faults
from backend.checkpoint.hub_causes import OUT_OF_REACH, cause_of, described_for_log
from backend.errors import HubFailure

_log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 10.0  # of one answer; the library retries five times, with exponential back-off
_CONFIG_TIMEOUT_S = 30.0  # for config.json with all retries: a few kilobytes, with which every load starts
_SMALL_FILES = ["*.json", "*.txt", "*.jinja"]
_FILES = [*_SMALL_FILES, "*.safetensors"]
MAIN = "main"  # the branch that every repository has
_SERVER_ERRORS = (500, 502, 503, 504)  # which the library retries
# What the hub says of the repository itself: an earlier download does not stand in for it.
_HUBS_ANSWERS = ("RevisionNotFoundError", "EntryNotFoundError", "RemoteEntryNotFoundError")


@dataclass(frozen=True)
class Snapshot:
    """`folder`: of the files so far, config.json at least. `commit`: their commit. `is_whole`: nothing is to fetch,
    because the hub is out of reach and an earlier download is whole.
    """

    folder: Path
    commit: str
    is_whole: bool = False


def fetch_config(repository: str, revision: str = MAIN, timeout_s: float = _CONFIG_TIMEOUT_S) -> Snapshot:
    """The repository's config.json, from the hub or from an earlier download. Raises HubFailure.

    `revision`: a branch, a tag or a commit.
    """
    from huggingface_hub import hf_hub_download

    earlier = _whole(repository, revision)
    _configure(offline_at_failure=earlier is not None)

    def fetched(**options: Any) -> Path:
        return Path(hf_hub_download(repository, "config.json", revision=revision, **options))

    try:
        path = _with_timeout(timeout_s, lambda: fetched(etag_timeout=_ANSWER_TIMEOUT_S))
        return _snapshot(path, earlier)
    except TimeoutError as error:
        try:
            return _snapshot(fetched(local_files_only=True), earlier)
        except Exception:  # noqa: BLE001 - there was no earlier download; the hub's library raises anything
            raise HubFailure(repository, OUT_OF_REACH) from error
    except Exception as error:  # the hub's library raises anything
        if earlier is None or type(error).__name__ in _HUBS_ANSWERS:
            raise _failure(repository, error) from error
        _log.warning("the hub: %s; the earlier download is used", described_for_log(error))
        return Snapshot(earlier, earlier.name, is_whole=True)


def fetch(repository: str, revision: str = MAIN, *, weights: bool = True) -> Path:
    """The folder with the repository's files, without its weights if `weights` is False.

    No timeout as a whole, because gigabytes take long. `revision`: of fetch_config, or the commit that it found. Raises
    HubFailure.
    """
    from huggingface_hub import snapshot_download

    earlier = _whole(repository, revision)
    _configure(offline_at_failure=earlier is not None)
    patterns = _FILES if weights else _SMALL_FILES
    if earlier is None:
        _log_size(repository, revision, patterns)
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                etag_timeout=_ANSWER_TIMEOUT_S,
            )
        )
    except Exception as error:  # the hub's library raises anything
        if earlier is None or type(error).__name__ in _HUBS_ANSWERS:
            raise _failure(repository, error) from error
        _log.warning("the hub: %s; the earlier download is used", described_for_log(error))
        return earlier


def downloaded(repository: str, revision: str = MAIN) -> Path | None:
    """The folder of an earlier download, which may lack files; None where there is none. Asks no network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001 - the hub's library raises anything
        return None


def _log_size(repository: str, revision: str, patterns: list[str]) -> None:
    """Log what is left to fetch, for whoever waits; nothing where the hub does not say it: the fetch says why not."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, revision=revision, timeout=_ANSWER_TIMEOUT_S, files_metadata=True)
        here = downloaded(repository, info.sha or revision)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = [name for name in sizes if any(fnmatch(name, pattern) for pattern in patterns)]
        left = sum(sizes[name] for name in wanted if here is None or not (here / name).exists())
    except Exception as error:  # noqa: BLE001 - the hub's library raises anything
        _log.debug("the size of %s is not known: %s", repository, described_for_log(error))
        return
    if left >= 1e6:  # nobody waits for less
        _log.info("fetching %s: %s", repository, f"{left / 1e9:.1f} GB" if left >= 1e8 else f"{left / 1e6:.0f} MB")


def _whole(repository: str, revision: str) -> Path | None:
    """The folder of an earlier download that has every file that is needed."""
    folder = downloaded(repository, revision)
    return folder if folder and (folder / "config.json").is_file() and not any(faults(folder)) else None


def _snapshot(config: Path, earlier: Path | None) -> Snapshot:
    """Of the config.json in the cache, whose folder is named after the commit."""
    return Snapshot(config.parent, config.parent.name, is_whole=_session.failed and config.parent == earlier)


class _Session:
    """What the library's HTTP sessions do, which it makes for each of its threads.

    Every answer has a timeout: the library has none for the list of the files. If `offline_at_failure`, the first
    failure of the network ends the attempt, as if the library had been told to stay offline.
    """

    def __init__(self) -> None:
        self.offline_at_failure = False
        self.failed = False

    def make(self) -> Any:
        from huggingface_hub.errors import OfflineModeIsEnabled
        from huggingface_hub.utils._http import _default_backend_factory
        from requests import HTTPError, RequestException

        session: Any = _default_backend_factory()
        send = session.send

        def send_once(request: Any, **named: Any) -> Any:
            try:
                answer = send(request, **{**named, "timeout": named.get("timeout") or _ANSWER_TIMEOUT_S})
            except (RequestException, OfflineModeIsEnabled) as error:
                self._fail(error)
                raise
            if answer.status_code in _SERVER_ERRORS:
                self._fail(HTTPError(response=answer))
            return answer

        session.send = send_once
        return session

    def _fail(self, error: Exception) -> None:
        from huggingface_hub.errors import OfflineModeIsEnabled

        if self.offline_at_failure:
            if not self.failed and not isinstance(error, OfflineModeIsEnabled):  # the operator's own HF_HUB_OFFLINE
                _log.warning("the hub is out of reach (%s); the earlier download is used", described_for_log(error))
            self.failed = True
            raise OfflineModeIsEnabled("the earlier download is whole") from error


_session = _Session()


def _configure(offline_at_failure: bool) -> None:
    """Set the library up for one fetch."""
    from huggingface_hub import configure_http_backend, constants
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # stderr is the log
    hub_logging.set_verbosity(logging.ERROR)  # each retry has two lines, twice; the failure has one of ours
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # the same
    _session.offline_at_failure, _session.failed = offline_at_failure, False
    configure_http_backend(_session.make)
    if constants.HF_HUB_ENABLE_HF_TRANSFER and not _can_import("hf_transfer"):
        _log.warning("HF_HUB_ENABLE_HF_TRANSFER is set, but hf_transfer is not installed; fetching without it")
        constants.HF_HUB_ENABLE_HF_TRANSFER = False
    if not constants.HF_HUB_DISABLE_XET and not _can_import("hf_xet"):
        constants.HF_HUB_DISABLE_XET = True


def _can_import(module: str) -> bool:
    try:
        __import__(module)
    except Exception:  # noqa: BLE001 - a native module for another machine raises anything
        return False
    return True


def _failure(repository: str, error: Exception) -> HubFailure:
    _log.warning("the hub: %s", described_for_log(error))
    return HubFailure(repository, cause_of(error))


def _with_timeout(timeout_s: float, work: Callable[[], Path]) -> Path:
    """The result of `work`. Raises TimeoutError; `work` goes on in its thread then, until its own timeouts end it."""
    results: list[Path] = []
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
