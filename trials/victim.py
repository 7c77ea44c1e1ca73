"""The backend with models that fail by plan, as a process: `python -m trials.victim --addr HOST:PORT`.

Everything but the loader is the backend's own, from the parent's watch to the exit, in the order of
backend/__main__.py. Two numbers bound what may wait, so that an overload needs tens of requests and not thousands; the
third makes the garbage collector run after so many new objects: what it meets once in months is then met in seconds.
"""

from __future__ import annotations

import os

from backend import parent

parent.watch(os.environ)

import argparse  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from backend import log  # noqa: E402
from backend.engine.scheduler import Scheduler  # noqa: E402
from backend.server import run  # noqa: E402
from trials.fakes import PlannedLoader  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="trials.victim", description="The server under trial; used by trials.")
    parser.add_argument("--addr", required=True)
    parser.add_argument("--most-requests", type=int)
    parser.add_argument("--longest-queue-s", type=float)
    parser.add_argument("--collect-every", type=int)
    wanted = parser.parse_args(argv)
    if wanted.collect_every:
        gc.set_threshold(wanted.collect_every)
    log.to_stderr()
    bounds = {
        "most_requests": wanted.most_requests,
        "longest_queue_s": wanted.longest_queue_s,
    }
    scheduler = Scheduler(**{name: bound for name, bound in bounds.items() if bound is not None})
    return run(wanted.addr, os.environ, PlannedLoader(), scheduler)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)
