"""Entry point of `python -m backend --addr HOST:PORT`, or `--doctor`: parses argv and starts the log."""

from __future__ import annotations

import os
import signal
import sys

from backend.errors import NoThreads
from backend.process import parent_watch
from backend.process.start_failure import check_threads, ended_with

# Before the slow imports below: the parent may die or send a signal meanwhile.
try:
    parent_watch.watch(os.environ)
    check_threads()
except NoThreads as _error:
    os._exit(ended_with(_error))
for _number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and a shell's background job SIGINT
        signal.signal(_number, lambda *_: os._exit(0))  # until server.py installs its own

import argparse  # noqa: E402
import logging  # noqa: E402

from backend.process import log  # noqa: E402


def main() -> int:
    if "--doctor" in sys.argv[1:]:
        from backend.doctor.command import main as doctor  # works where the server's imports fail

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(2))
        return doctor([argument for argument in sys.argv[1:] if argument != "--doctor"])

    try:
        from backend.server import run
    except Exception as error:  # noqa: BLE001 - half an install fails in any library's way
        return ended_with(error)

    parser = argparse.ArgumentParser(prog="backend", description="Qwen3-ASR behind LocalAI's gRPC contract.")
    parser.add_argument("--addr", default="127.0.0.1:50051", help="HOST:PORT to listen on; port 0 = any free one")
    arguments = parser.parse_args()
    log.to_stderr()
    logging.getLogger(__name__).info("%s", parent_watch.described(os.environ))
    try:
        return run(arguments.addr, os.environ)
    except Exception as error:
        logging.getLogger(__name__).exception("the backend has failed")
        return ended_with(error, "cannot go on")


if __name__ == "__main__":
    code = main()
    # Not sys.exit: the model thread may be inside a batch, and finalising the interpreter under it can crash.
    logging.shutdown()
    os._exit(code)
