"""The backend with models that fail by plan, as a process: `python -m devtools.stress.victim --addr HOST:PORT`.

Everything but the loader is the backend's own, from the parent's watch to the exit, in the order of
backend/__main__.py. One number bounds the requests at once, so that an overload takes tens of them and not thousands;
the other has the garbage collector run after so many new objects: what it meets once in months is met in seconds.
"""

from __future__ import annotations

import os

from backend.process import parent_watch

parent_watch.watch(os.environ)

import argparse  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from backend.pipeline.admission import Admission  # noqa: E402
from backend.process import log  # noqa: E402
from backend.server import run  # noqa: E402
from devtools.stress.fakes import PlannedLoader  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devtools.stress.victim", description="The server under trial.")
    parser.add_argument("--addr", required=True)
    parser.add_argument("--most-requests", type=int)
    parser.add_argument("--collect-every", type=int)
    wanted = parser.parse_args(argv)
    if wanted.collect_every:
        gc.set_threshold(wanted.collect_every)
    log.to_stderr()
    admission = Admission(max_requests=wanted.most_requests) if wanted.most_requests else None
    return run(wanted.addr, os.environ, PlannedLoader(), admission)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)
