"""A decoder can cost the server one request and nothing else. The processes, and their failures, are real."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading

import numpy as np
import pytest
import soundfile
from decoder_processes import (
    HOSTILE,
    assert_serves,
    children,
    has_ended,
    linux,
    only_child,
    open_files,
    proc_file,
    until,
)

from backend.audio.decoding import causes, pool
from backend.audio.decoding.decode import decode
from backend.audio.decoding.safe_open import check
from backend.errors import AsrError, EngineFailure, OutOfMemory, UndecodableAudio


async def test_the_pool_returns_what_decode_returns(decoder_pool, recordings) -> None:
    for path in (*recordings.glob("*.wav"), *recordings.glob("*.flac")):
        decoded, expected = await decoder_pool.decode(str(path), max_seconds=600), decode(str(path), max_seconds=600)
        np.testing.assert_array_equal(decoded.samples, expected.samples)
        assert decoded.samples.flags.writeable  # torch warns of read-only arrays
        assert (decoded.duration_s, decoded.truncated) == (expected.duration_s, expected.truncated)


async def test_of_32_concurrent_requests_each_gets_its_own_samples(decoder_pool, tmp_path) -> None:
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
async def test_no_descriptor_leaks_over_200_recordings(make, golden, tmp_path) -> None:
    before, decoder_pool = children(), make(max_processes=1)
    pid = await only_child(decoder_pool, golden, before)
    ours, theirs = len(open_files()), open_files(pid)
    assert len(theirs) == 4  # no more is inherited: /dev/null twice, our stderr, and the socket
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
async def test_one_process_is_warm_after_warm_up(make, golden) -> None:
    before, decoder_pool = children(), make(max_processes=1)
    assert children() == before
    decoder_pool.warm_up()
    await until(lambda: any("libavformat" in proc_file(pid, "maps") for pid in children() - before))
    (pid,) = children() - before
    decoder_pool.warm_up()
    assert await only_child(decoder_pool, golden, before) == pid


@linux
async def test_requests_at_once_start_another_process_when_they_have_waited_and_not_before(
    make, golden, hostile_file, monkeypatch
) -> None:
    before, decoder_pool = children(), make(HOSTILE, max_processes=2)
    await only_child(decoder_pool, golden, before)
    monkeypatch.setattr(pool, "_PATIENCE_S", 3600.0)
    await asyncio.gather(*(decoder_pool.decode(str(golden), max_seconds=60) for _ in range(8)))
    assert len(children() - before) == 1
    monkeypatch.undo()
    hanging = asyncio.create_task(decoder_pool.decode(hostile_file("sleep"), max_seconds=60))
    await until(lambda: not decoder_pool._idle)
    await assert_serves(decoder_pool, golden)
    assert len(children() - before) == 2
    hanging.cancel()


async def test_causes_reach_the_request(decoder_pool, tmp_path) -> None:
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


async def test_a_bad_path_does_not_wait_for_a_process(make, hostile_file) -> None:
    decoder_pool = make(HOSTILE, max_processes=1)
    hanging = [asyncio.create_task(decoder_pool.decode(hostile_file("sleep"), max_seconds=60)) for _ in range(3)]
    with pytest.raises(UndecodableAudio, match=causes.MISSING):
        await asyncio.wait_for(decoder_pool.decode("/no/such/file.wav", max_seconds=60), 4)
    for task in hanging:
        task.cancel()


@linux
async def test_long_silence_in_a_small_file_costs_the_process_no_memory(make, golden, tmp_path) -> None:
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
    assert int(proc_file(pid, "status").partition("VmHWM:")[2].split()[0]) < 128 << 10


@pytest.mark.parametrize(
    ("action", "error", "logged"),
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
async def test_a_hostile_decoder_costs_one_request(
    make, hostile_file, golden, action, error, logged, caplog, capfd
) -> None:
    decoder_pool = make(HOSTILE, max_processes=1)
    await assert_serves(decoder_pool, golden)
    with caplog.at_level(logging.WARNING), pytest.raises(AsrError) as caught:
        await decoder_pool.decode(hostile_file(action), max_seconds=60)
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))
    await assert_serves(decoder_pool, golden)
    assert logged in caplog.text
    assert "upload-name" not in caplog.text + capfd.readouterr().err


async def test_an_internal_error_is_logged_without_the_files_content(make, hostile_file, capfd) -> None:
    with pytest.raises(EngineFailure):
        await make(HOSTILE).decode(hostile_file("fail"), max_seconds=60)
    logged = capfd.readouterr().err
    assert logged.startswith("a decoder failed: KeyError at hostile.py:")
    assert "words of the file" not in logged
    assert logged.count("\n") == 1


@linux
async def test_a_bad_path_does_not_wait_for_running_decodes(make, hostile_file, golden, tmp_path) -> None:
    decoder_pool = make(HOSTILE)
    await assert_serves(decoder_pool, golden)
    path = hostile_file("sleep")
    hanging = [asyncio.create_task(decoder_pool.decode(path, max_seconds=60)) for _ in range(20)]
    await until(lambda: open_files().count(path) == 16)
    with pytest.raises(UndecodableAudio, match=causes.MISSING):
        await decoder_pool.decode(str(tmp_path / "missing.wav"), max_seconds=60)
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)


async def test_a_request_can_be_cancelled_during_the_check(make, hostile_file, golden) -> None:
    decoder_pool = make(HOSTILE)
    await assert_serves(decoder_pool, golden)
    leaving = [asyncio.create_task(decoder_pool.decode(hostile_file("sleep"), max_seconds=60)) for _ in range(50)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert all(task.cancelled() for task in leaving)


async def test_a_share_that_does_not_answer_costs_its_own_requests_until_all_threads_hang(make, golden) -> None:
    answers = threading.Event()

    def slow_check(path: str) -> None:
        if path == "on a dead share":
            assert answers.wait(60)
        check(path)

    decoder_pool = make(check=slow_check, check_timeout_s=1.0)
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
async def test_a_stalled_process_is_killed_after_seconds(make, hostile_file, golden) -> None:
    decoder_pool = make(HOSTILE)
    actions = ("sleep", "spin", "stop")
    hanging = [asyncio.create_task(decoder_pool.decode(hostile_file(action), max_seconds=60)) for action in actions]
    await assert_serves(decoder_pool, golden)
    assert not any(task.done() for task in hanging)
    for task in hanging:
        with pytest.raises(UndecodableAudio) as caught:
            await asyncio.wait_for(task, 40)  # on an idle machine 5
        assert caught.value.cause == causes.TOO_SLOW
    await assert_serves(decoder_pool, golden)


@linux
async def test_an_idle_process_that_died_costs_nothing(make, golden) -> None:
    before, decoder_pool = children(), make()
    pid = await only_child(decoder_pool, golden, before)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: has_ended(pid))
    assert await only_child(decoder_pool, golden, before) != pid


async def test_memory_is_asked_for_before_it_is_taken(make, tmp_path) -> None:
    asked: list[tuple[float, float, float]] = []
    sound = np.random.default_rng(5).uniform(-1, 1, 16_000 * 300).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", sound, 16_000, subtype="FLOAT")
    decoder_pool = make(max_processes=1)

    def reserve(known_s: float, room_s: float, held_bytes: float) -> None:
        asked.append((known_s, room_s, held_bytes))
        if room_s > most_s:
            raise OutOfMemory

    most_s = 600.0
    decoded = await decoder_pool.decode(str(tmp_path / "long.wav"), max_seconds=450, reserve=reserve)
    np.testing.assert_array_equal(decoded.samples, sound)
    steps = [(known_s, room_s) for known_s, room_s, _ in asked]
    assert steps == [(0, 60), (60, 120), (120, 240), (240, 451)]  # a second more, for rounding
    for known_s, _, held_bytes in asked:
        assert (known_s - 20) * 64_000 <= held_bytes <= (known_s + 1) * 64_000
    processes = children()
    for limit_s in (120.0, 120.0, 0.0):
        most_s = limit_s
        with pytest.raises(OutOfMemory):
            await decoder_pool.decode(str(tmp_path / "long.wav"), max_seconds=450, reserve=reserve)
    await decoder_pool.decode(str(tmp_path / "long.wav"), max_seconds=450)
    assert children() == processes  # a refusal is not the process's fault


async def test_a_decoder_that_asks_for_ever_is_killed(make, hostile_file, golden) -> None:
    decoder_pool = make(HOSTILE, max_processes=1)
    with pytest.raises(UndecodableAudio, match=causes.CRASHED):
        await decoder_pool.decode(hostile_file("beg"), max_seconds=3600)
    await assert_serves(decoder_pool, golden)
