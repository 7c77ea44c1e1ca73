"""Decoder processes start, are cancelled, are limited, and never outlive their server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from decoder_processes import (
    HOSTILE,
    MAIN,
    ROOT,
    assert_serves,
    children,
    has_ended,
    linux,
    only_child,
    open_files,
    proc_file,
    until,
)

from backend.audio.decoding.process import COMMAND
from backend.audio.decoding.protocol import max_store_bytes
from backend.errors import AsrError, EngineFailure


@linux
@pytest.mark.parametrize("action", ["sleep", "spin"])
async def test_a_cancelled_request_frees_its_slot(make, hostile_file, golden, action) -> None:
    before, decoder_pool = children(), make(HOSTILE, max_processes=1)
    pid = await only_child(decoder_pool, golden, before)
    ours, theirs = len(open_files()), len(open_files(pid))
    decoding = asyncio.create_task(decoder_pool.decode(hostile_file(action), max_seconds=60))
    await until(lambda: len(open_files(pid)) == theirs + 2)
    waiting = asyncio.create_task(decoder_pool.decode(str(golden), max_seconds=60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    await until(lambda: has_ended(pid), 1)
    await assert_serves(decoder_pool, golden)
    await until(lambda: len(open_files()) == ours)


async def test_close_leaves_no_process(make, hostile_file, golden) -> None:
    before, ours, decoder_pool = children(), len(open_files()), make(HOSTILE)
    hanging = [asyncio.create_task(decoder_pool.decode(hostile_file("sleep"), max_seconds=60)) for _ in range(2)]
    await assert_serves(decoder_pool, golden)
    assert len(children() - before) == 3
    await asyncio.to_thread(decoder_pool.close)
    assert children() <= before
    for done in await asyncio.gather(*hanging, return_exceptions=True):
        assert isinstance(done, AsrError)
    assert len(open_files()) == ours


SERVER = """
import asyncio, sys
from backend.audio.decoding.pool import DecoderPool
async def main():
    decoder_pool = DecoderPool([sys.executable, sys.argv[1]])
    await decoder_pool.decode(sys.argv[2], max_seconds=60)
    print("served", flush=True)
    await asyncio.gather(*(decoder_pool.decode(path, max_seconds=60) for path in sys.argv[3:]))
asyncio.run(main())
"""


@linux
async def test_decoder_processes_end_with_a_killed_server(hostile_file, golden) -> None:
    command = [sys.executable, "-c", SERVER, HOSTILE[1], str(golden), hostile_file("sleep"), hostile_file("spin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as server:  # noqa: ASYNC220 - no loop waits here
        assert server.stdout is not None
        assert server.stdout.readline() == b"served\n"
        await until(lambda: sum(len(open_files(pid)) == 6 for pid in children(server.pid)) == 2)
        orphans = children(server.pid)
        server.kill()
    await until(lambda: all(has_ended(pid) for pid in orphans), 3)


def test_a_process_ends_when_its_socket_closes() -> None:
    ours, theirs = os.pipe()  # any stream: what counts is its end
    with subprocess.Popen([*COMMAND, str(os.getpid())], stdin=ours, cwd=ROOT, stderr=subprocess.PIPE) as child:
        os.close(ours)
        os.close(theirs)
        assert child.wait(20) != 0


@pytest.mark.parametrize(
    "command", [("/no/such/program",), (sys.executable, "-c", "raise SystemExit(3)"), ("sh", "-c", "echo no >&0")]
)
async def test_a_failed_start_is_not_the_files_fault(make, golden, command, caplog) -> None:
    decoder_pool = make(command)
    for _ in range(2):
        with pytest.raises(EngineFailure):
            await decoder_pool.decode(str(golden), max_seconds=60)
    assert "decoder" in caplog.text


async def test_the_next_request_retries_the_start(make, golden, tmp_path) -> None:
    flag = tmp_path / "ready"
    decoder_pool = make(("sh", "-c", f'test -e {flag} || exit 1; exec "$0" -m {MAIN} "$@"', sys.executable), 1)
    with pytest.raises(EngineFailure):
        await decoder_pool.decode(str(golden), max_seconds=60)
    flag.touch()
    await assert_serves(decoder_pool, golden)


async def test_a_process_that_dies_after_ready_is_not_restarted_for_ever(make, golden, tmp_path) -> None:
    log = tmp_path / "starts"
    decoder_pool = make(("sh", "-c", f"echo started >> {log}; printf R >&0"))
    decoder_pool.warm_up()
    await until(log.exists)
    for _ in range(2):
        with pytest.raises(AsrError):
            await decoder_pool.decode(str(golden), max_seconds=60)
    decoder_pool.close()
    assert len(log.read_text().split()) <= 1 + 2 * 2  # each request's own, and one to replace it


@linux
async def test_a_process_ignores_the_groups_sigterm_from_its_start(make, golden) -> None:
    command = ("sh", "-c", 'kill -TERM $$; kill -INT $$; exec "$0" -m backend.audio.decoding.main "$@"', sys.executable)
    before, decoder_pool = children(), make(command, 1)
    pid = await only_child(decoder_pool, golden, before)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert await only_child(decoder_pool, golden, before) == pid


@linux
async def test_limits_are_set_and_the_environment_holds_no_secret(make, golden, monkeypatch) -> None:
    monkeypatch.setenv("LOCALAI_GRPC_AUTH_TOKEN", "secret")
    before, decoder_pool = children(), make()
    pid = await only_child(decoder_pool, golden, before)
    lines = proc_file(pid, "limits").splitlines()[1:]
    limits = {line[:25].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max data size"] == [str(384 << 20)] * 2
    assert limits["Max open files"] == ["32"] * 2
    assert limits["Max processes"] == ["0"] * 2
    assert limits["Max core file size"] == ["0"] * 2
    assert limits["Max file size"][0] == str(max_store_bytes(60))
    assert 70 <= int(limits["Max cpu time"][0]) <= 80
    assert "secret" not in proc_file(pid, "environ")
    assert "Threads:\t1\n" in proc_file(pid, "status")


def test_each_side_imports_only_its_own() -> None:
    def imported(module: str) -> set[str]:
        program = f"import {module}, sys; print(*sys.modules)"
        listed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(listed.stdout.split())

    assert not imported(MAIN) & {"torch", "grpc", "transformers", "asyncio", "backend.audio.silero", "av"}
    assert not imported("backend.server") & {
        "torch",
        "silero_vad",
        "soundfile",
        "soxr",
        "av",
        "backend.audio.decoding.decode",
    }
