"""The paced client and the captions of one stream, against a servicer that says a script."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from scripted_live import ScriptedLive, serving_live

from devtools.live.caption_session import Session, StreamFailed, show
from devtools.live.captions import Captions
from devtools.live.paced_client import LiveCall, speak, timed_messages
from devtools.live.pacing import Message
from devtools.live.sound_source import recorded

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
SCRIPT = [(0.4, "Hello", False), (0.5, " world.", True), (0.9, " Good", False)]


async def test_the_sound_arrives_whole_and_the_run_has_all_that_came() -> None:
    servicer = ScriptedLive([*SCRIPT, (9.0, " morning.", False)])
    async with serving_live(servicer) as stub:
        run = await speak(stub, timed_messages(SOUND), language="en", params={"prompt": "x"})
    assert (np.concatenate(servicer.sound) == SOUND).all()
    (config,) = servicer.configs
    assert (config.language, config.sample_rate, dict(config.params)) == ("en", 16_000, {"prompt": "x"})
    assert run.is_whole
    assert run.text == "Hello world. Good morning."
    assert [event.eou for event in run.events] == [False, True, False, False]
    assert len(run.sent_s) == len(servicer.sound) == 3
    assert run.events[0].at_s <= run.final_at_s
    assert run.ready_s >= 0
    assert run.flush_s == run.final_at_s - run.closed_s


async def test_no_message_is_sent_before_it_is_due() -> None:
    async with serving_live(ScriptedLive([])) as stub:
        run = await speak(stub, timed_messages(SOUND[:4_000], [Message(5.0, 0, 2_000), Message(5.1, 2_000, 4_000)]))
    assert all(sent >= due for sent, due in zip(run.sent_s, (5.0, 5.1), strict=True))


async def test_deltas_that_are_not_the_final_text_are_seen() -> None:
    async with serving_live(ScriptedLive(SCRIPT, final="Hello word. Good")) as stub:
        assert not (await speak(stub, timed_messages(SOUND))).is_whole


async def test_a_stream_that_fails_has_its_status_and_what_came_before() -> None:
    fault = (8_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "falling behind")
    async with serving_live(ScriptedLive(SCRIPT, fault=fault)) as stub:
        run = await speak(stub, timed_messages(SOUND))
    assert run.failure == "RESOURCE_EXHAUSTED: falling behind"
    assert run.final is None
    assert not run.is_whole
    assert run.flush_s == float("inf")


async def test_a_stream_that_cannot_open_has_its_status(service) -> None:
    run = await speak(service.stub, timed_messages(SOUND))  # no model is loaded
    assert run.failure.startswith("FAILED_PRECONDITION: ")


async def pieces(*sizes: int) -> AsyncIterator[np.ndarray]:
    for first, last in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        yield SOUND[first:last]
        await asyncio.sleep(0.02)


async def test_captions_are_the_final_text_with_a_line_for_each_utterance() -> None:
    written: list[str] = []
    session = Session(Captions(written.append))
    async with serving_live(ScriptedLive(SCRIPT)) as stub:
        final, _ = await show(LiveCall(stub), pieces(7_000, 2_000, 7_000), session)
    assert session.shown == final.text == "Hello world. Good"
    assert "".join(written) == "00:00  Hello world.\n00:00  Good\n"
    assert session.heard == SOUND.size


async def test_a_failed_stream_ends_the_captions_line_and_says_why() -> None:
    written: list[str] = []
    fault = (16_000, grpc.StatusCode.INTERNAL, "the model failed")
    async with serving_live(ScriptedLive(SCRIPT, fault=fault)) as stub:
        with pytest.raises(StreamFailed, match=r"the model failed \(INTERNAL\)"):
            await show(LiveCall(stub), pieces(7_000, 9_000), Session(Captions(written.append)))
    assert "".join(written) == "00:00  Hello\n"


async def test_what_was_said_is_shown_when_the_sound_is_stopped() -> None:
    session = Session(Captions(lambda _: None))

    async def endless() -> AsyncIterator[np.ndarray]:
        yield SOUND[:8_000]
        session.stop.set()
        await asyncio.Event().wait()

    async with serving_live(ScriptedLive(SCRIPT)) as stub:
        final, _ = await show(LiveCall(stub), endless(), session)
    assert final.text == session.shown == "Hello world. Good"


async def test_a_recorders_bytes_are_samples_however_they_are_cut() -> None:
    pcm = (SOUND[:5_000] * 32767).astype("<i2")
    content, at = pcm.tobytes(), 0
    sizes = itertools.cycle([1, 2, 333, 1000])

    def read(_: int) -> bytes:
        nonlocal at
        at, before = at + next(sizes), at
        return content[before:at]

    heard = np.concatenate([samples async for samples in recorded(read)])
    assert heard.dtype == np.float32
    assert (heard == pcm / np.float32(32768)).all()
