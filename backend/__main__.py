"""`python -m backend --addr HOST:PORT`: argv and logging, nothing else."""

from __future__ import annotations

import os
import signal

from backend import parent

# Before the imports below, which take their time: a parent that has gone, or wants this process to go.
parent.watch(os.environ)
for _number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_number, lambda *_: os._exit(0))  # until server.py has something to end

import argparse  # noqa: E402
import asyncio  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402

from backend.errors import Fatal  # noqa: E402
from backend.log import LogLines  # noqa: E402
from backend.server import serve  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="backend", description="Qwen3-ASR behind LocalAI's gRPC contract.")
    parser.add_argument("--addr", default="127.0.0.1:50051", help="HOST:PORT to listen on; port 0 = any free one")
    arguments = parser.parse_args()
    # stderr is what the gateway shows; it may be a full device, and a lost log line must not stop the service
    logging.raiseExceptions = False
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(LogLines())
    logging.basicConfig(level=logging.INFO, handlers=[stderr])
    try:
        # not asyncio.run: at its end it would wait for a load that still runs in a thread
        asyncio.new_event_loop().run_until_complete(serve(arguments.addr, os.environ))
    except Fatal as error:
        logging.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    # not sys.exit: the model's thread may be deep in a batch, and tearing the interpreter down under it can crash
    logging.shutdown()
    os._exit(code)
