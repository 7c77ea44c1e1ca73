"""The backend with models that fail by plan: `python -m devtools.stress.faulty_server --addr HOST:PORT`.

Everything but the loader is the backend's own. `--max-requests` bounds the requests in flight, so an overload takes
tens of them. `--collect-every N` runs the garbage collector after N new objects: at unlucky moments, too.
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
    parser = argparse.ArgumentParser(prog="devtools.stress.faulty_server", description="A server that fails by plan.")
    parser.add_argument("--addr", required=True)
    parser.add_argument("--max-requests", type=int)
    parser.add_argument("--collect-every", type=int)
    arguments = parser.parse_args(argv)
    if arguments.collect_every:
        gc.set_threshold(arguments.collect_every)
    log.to_stderr()
    admission = Admission(max_requests=arguments.max_requests) if arguments.max_requests else None
    return run(arguments.addr, os.environ, PlannedLoader(), admission)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)
