"""Faults of time: a server that is frozen and thawed, clients that ping, a terminal that closes.

A golden request must come back exact after each.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from backend.wire import backend_pb2 as pb
from devtools.stress.client import OK, Server, Stub, noise_requests, statuses
from devtools.stress.plan import Plan
from devtools.stress.results import Results

pytestmark = pytest.mark.slow

_STALL_S, _FROZEN_S = 5.0, 7.5
_PINGED_S = 65.0
_PINGS = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1),
          ("grpc.http2.max_pings_without_data", 0), ("grpc.use_local_subchannel_pool", 1))  # fmt: skip


@pytest.mark.soak("machine", is_long=True)
async def test_a_frozen_and_thawed_server_has_not_hung(folder: Path, results: Results) -> None:
    with Server(environment={"QWEN_ASR_STALL_SECONDS": f"{_STALL_S:g}"}) as server:
        server.load_plan(Plan(step_s=2.0))  # so that it is in the middle of a step
        requests = noise_requests(folder, range(4), 1.0, steps=4)
        tasks = [asyncio.create_task(server.transcribe(request)) for request in requests]
        for _ in range(3):
            await asyncio.sleep(1.0)
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(_FROZEN_S)
            server.signal(signal.SIGCONT)
        outcomes = await asyncio.gather(*tasks)
        server.load_plan(Plan())
        golden = await server.golden()
    is_met = all(outcome.is_exact for outcome in outcomes)
    what = f"frozen three times for {_FROZEN_S:g} s, a hang is {_STALL_S:g} s"
    results.fault(what, f"requests: {statuses(outcomes)}", "all exact", is_met, golden, "; ".join(server.log_lines()))


@pytest.mark.soak("machine", is_long=True)
async def test_pings_every_ten_seconds_break_nothing_off(folder: Path, results: Results) -> None:
    """During a call, during a Watch, and on a connection without calls."""
    with Server() as server:
        server.load_plan(Plan(step_s=1.0))
        (request,) = noise_requests(folder, [1], 1.0, steps=int(_PINGED_S))
        busy, watching, idle = [grpc.aio.insecure_channel(server.address, options=_PINGS) for _ in range(3)]
        async with busy, watching, idle:
            await Stub(idle).Health(pb.HealthMessage())
            watch = HealthStub(watching).Watch(health_pb2.HealthCheckRequest())
            first = (await watch.read()).status
            outcome = await server.transcribe(request, Stub(busy), _PINGED_S + 30)
            lives = not watch.done() and idle.get_state() is grpc.ChannelConnectivity.READY
            watch.cancel()
            golden = await server.golden()
    measured = f"the call {outcome.status}, Watch and connection {'live' if lives else 'have ended'}"
    is_met = outcome.status == OK and outcome.is_exact and lives and first == health_pb2.HealthCheckResponse.SERVING
    results.fault(f"pings every 10 s for {_PINGED_S:g} s", measured, "OK, live", is_met, golden, outcome.details)


@pytest.mark.soak("stop")
async def test_a_terminal_that_closes_drains_the_server(folder: Path, results: Results) -> None:
    with Server() as server:
        server.load_plan(Plan(step_s=0.01))
        tasks = [asyncio.create_task(server.transcribe(each)) for each in noise_requests(folder, range(4), 1.0, 50)]
        while server.stub.Status(pb.HealthMessage(), timeout=5).state != pb.StatusResponse.BUSY:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        server.signal(signal.SIGHUP)
        outcomes = await asyncio.gather(*tasks)
        code = await asyncio.to_thread(server.wait, 20.0)
    with Server() as successor:
        successor.load_plan(Plan())
        golden = await successor.golden()
    is_met = code == 0 and all(outcome.is_exact for outcome in outcomes)
    results.fault("SIGHUP", f"exit code {code}; {statuses(outcomes)}", "exit code 0; all exact", is_met, golden)


def test_a_server_that_ignores_hangups_goes_on() -> None:
    """As nohup starts it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Server() as server:
            os.kill(server.pid, signal.SIGHUP)
            assert server.stub.Health(pb.HealthMessage(), timeout=20).message == b"OK"
    finally:
        signal.signal(signal.SIGHUP, before)
