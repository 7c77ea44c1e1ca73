"""How far a transcription is, from the seconds of sound that wait in the server's queue.

All passages of a recording are queued at once, so what has left the queue is what is done, but for one batch. The
deltas of a stream say which text is there, and not where in the recording it is.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator

from tqdm import tqdm

_WAITING = re.compile(r"^qwen_asr_queue_audio_seconds ([0-9.e+]+)$", re.MULTILINE)
_INTERVAL_S = 0.25
_MOST_PERCENT = 99  # until the result is there


class Progress:
    """Percent done of what has been queued, as each look at the queue shows it. It never falls within one stage."""

    def __init__(self) -> None:
        self._most_s = 0.0
        self._percent = -1
        self.step = 1  # a second one: the aligner's passages, or those that are heard again

    def percent(self, waiting_s: float) -> int | None:
        """None: nothing has been queued yet."""
        if waiting_s > self._most_s or (waiting_s > 0 and self._percent == _MOST_PERCENT):  # more came, or a new stage
            self.step += self._percent == _MOST_PERCENT
            self._most_s, self._percent = waiting_s, -1
        if not self._most_s:
            return None
        done = round(100 * (1 - waiting_s / self._most_s))
        self._percent = max(self._percent, min(done, _MOST_PERCENT))
        return self._percent


@contextlib.contextmanager
def shown_progress(label: str, metrics_port: int | None, detail: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Shows the seconds that the block takes, percent if the server has a metrics port, and a detail, on a terminal."""
    ended = threading.Event()
    progress = Progress()
    width = shutil.get_terminal_size().columns - 1  # which is right for terminals that say 0, too
    with tqdm(
        desc=label, bar_format="{desc} {elapsed}", leave=False, disable=not sys.stderr.isatty(), ncols=width
    ) as bar:

        def refresh() -> None:
            while not ended.wait(_INTERVAL_S):
                percent = progress.percent(waiting_s(metrics_port)) if metrics_port else None
                step = f", step {progress.step}:" if progress.step > 1 else ""
                shown = label if percent is None else f"{label}{step} {percent} %"
                bar.set_description_str(f"{shown} {detail()}".rstrip())

        thread = threading.Thread(target=refresh, daemon=True)
        if not bar.disable:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join()


def waiting_s(port: int) -> float:
    """Seconds of sound that wait for the model; 0 where the server does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as reply:
            found = _WAITING.search(reply.read().decode())
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0
