"""How long and how wide a trial is: the full form of `make soak`, and the short one that CI runs."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Form:
    """`load_s`: of each load that is held. The rest counts repetitions; see where they are used."""

    load_s: float = 30.0
    streams: int = 16
    overload_s: float = 8.0
    cancels: int = 20
    kills: int = 40
    requests: int = 4000
    seed: int = 1
    is_quiet: bool = False
    began: float = field(default_factory=time.monotonic)

    def say(self, what: str) -> None:
        """A line of progress, with the minutes since the run began."""
        if not self.is_quiet:
            minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
            print(f"[{minutes:3}:{seconds:02}] {what}", file=sys.stderr, flush=True)


@contextmanager
def sound_folder() -> Iterator[Path]:
    """Recordings of a trial, gone with it."""
    with tempfile.TemporaryDirectory(prefix="trials-") as folder:
        yield Path(folder)
