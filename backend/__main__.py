"""`python -m backend --addr HOST:PORT`: argv and logging, nothing else."""

from __future__ import annotations

import os
import signal

from backend.process import parent_watch

# Before the imports below, which take their time: a parent that has gone, or wants this process to go.
parent_watch.watch(os.environ)
for _number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_number, lambda *_: os._exit(0))  # until server.py has something to end

import argparse  # noqa: E402
import logging  # noqa: E402

from backend.process import log  # noqa: E402
from backend.server import run  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="backend", description="Qwen3-ASR behind LocalAI's gRPC contract.")
    parser.add_argument("--addr", default="127.0.0.1:50051", help="HOST:PORT to listen on; port 0 = any free one")
    arguments = parser.parse_args()
    log.to_stderr()
    return run(arguments.addr, os.environ)


if __name__ == "__main__":
    code = main()
    # not sys.exit: the model's thread may be deep in a batch, and tearing the interpreter down under it can crash
    logging.shutdown()
    os._exit(code)
