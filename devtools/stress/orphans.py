"""A gateway that is killed at any moment of the backend's start-up leaves no backend behind.

Every kill is a real one: a process with a session of its own starts run.sh and gets SIGKILL, from before bash has read
its first line up to the middle of torch's import. What is measured is how long the backend outlives it.
"""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc

RUN = Path(__file__).parents[2] / "run.sh"
GOAL_S = 3.0
_GATEWAY = """
import subprocess, sys, time
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
print(subprocess.Popen(sys.argv[1:], **quiet).pid, flush=True)
time.sleep(600)
"""


def moments(kills: int, seed: int = 0) -> list[tuple[float, bool]]:
    """When to kill, in seconds after the start; True: after the first Health, while torch is imported."""
    rng = random.Random(seed)
    return [
        [(rng.uniform(0, 0.01), False), (rng.uniform(0, 0.5), False), (rng.uniform(0, 3), True)][number % 3]
        for number in range(kills)
    ]


def outlived_s(
    kills: int = 40, seed: int = 0, command: Sequence[str | Path] = (RUN,), patience_s: float = 10.0
) -> list[float]:
    """Seconds that the backend outlived its gateway, for each kill; inf if it had to be killed itself."""
    return [_outlived_s(after_s, asked, command, patience_s) for after_s, asked in moments(kills, seed)]


def _outlived_s(after_s: float, asked: bool, command: Sequence[str | Path], patience_s: float) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [sys.executable, "-ESc", _GATEWAY, *map(str, command), "--addr", address]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True, start_new_session=True) as gateway:
        assert gateway.stdout is not None
        backend = int(gateway.stdout.readline())
        if asked:
            with grpc.insecure_channel(address) as channel:
                stub = rpc.BackendStub(channel)  # type: ignore[no-untyped-call]
                stub.Health(pb.HealthMessage(), wait_for_ready=True, timeout=60)
        time.sleep(after_s)
        gateway.kill()
        gateway.wait()
        return _gone_after_s(backend, patience_s)


def _gone_after_s(pid: int, patience_s: float) -> float:
    began = time.monotonic()
    while time.monotonic() - began < patience_s:
        if not _is_alive(pid):
            return time.monotonic() - began
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return math.inf


def _is_alive(pid: int) -> bool:
    """False for a zombie, too: whoever adopted it may be slow to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> int:
    lived = sorted(outlived_s())
    print(f"{len(lived)} gateways killed; their backends outlived them by {lived[0]:.2f} to {lived[-1]:.2f} s")
    return 0 if lived[-1] <= GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
