"""What is read from paced runs, and the sounds that they say."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_live import ScriptedLive, serving_live

from backend.wire import backend_pb2 as pb
from devtools.bench.benchmark import Benchmark
from devtools.bench.live import sounds
from devtools.bench.live.growing_posts import post_growing
from devtools.bench.live.limits import held_to, the_subject
from devtools.bench.live.paced_runs import Sample, cpu_between, message_rates, ready_ms, say_all, utterance_delays
from devtools.bench.live.sounds import Speech, speech
from devtools.bench.measurement import Failed
from devtools.eval.hypotheses import Word
from devtools.live.paced_client import Event, LiveRun

WORDS = (Word("Turn", 0.0, 0.4), Word("on", 0.5, 0.7), Word("the", 2.0, 2.3), Word("light", 2.4, 2.8))
TWO = Speech(np.zeros(48_000, np.float32), WORDS)


def test_words_keep_their_sound_wherever_the_recording_is_cut() -> None:
    whole = speech(60.0)
    later = speech(40.0, 20.0)
    shifted = {word.text: word for word in later.words[:3]}
    for word in shifted.values():
        at, there = round(word.start_s * 16_000), round((word.start_s + 20.0) * 16_000)
        assert (later.samples[at : at + 4_000] == whole.samples[there : there + 4_000]).all()
        assert any(abs(w.start_s - word.start_s - 20.0) < 1e-9 and w.text == word.text for w in whole.words)


def test_the_recording_begins_again_at_its_end() -> None:
    long = speech(400.0)
    again = [word for word in long.words if word.text == long.words[0].text]
    assert long.samples.size == 6_400_000
    assert again[-1].start_s > 184
    assert all(word.end_s <= 400 for word in long.words)


def test_one_sound_ends_in_a_word_and_the_other_in_a_pause() -> None:
    loud = [float(np.abs(sounds.ends_in_a_word(number)[-800:]).max()) for number in range(3)]
    quiet = [float(np.abs(sounds.ends_in_a_pause(number)[-16_000:]).max()) for number in range(3)]
    assert min(loud) > 0.02 > max(quiet)


def test_utterances_are_divided_by_pauses() -> None:
    assert TWO.utterances == [(0, 1), (2, 3)]


def test_delays_are_of_each_utterances_first_and_last_word() -> None:
    run = LiveRun(events=[Event(1.5, "Turn"), Event(1.9, " on."), Event(4.0, " The"), Event(4.5, " light.")])
    firsts, lasts = utterance_delays(run, TWO)
    assert firsts == pytest.approx([1.5, 2.0])
    assert lasts == pytest.approx([1.2, 1.7])


def test_messages_are_counted_in_a_second_and_in_300_ms() -> None:
    run = LiveRun(events=[Event(at_s, "a") for at_s in (1.0, 1.1, 1.2, 1.29, 3.0)], closed_s=5.0)
    assert message_rates(run) == (1.0, 4.0)
    assert message_rates(LiveRun(closed_s=5.0)) == (0.0, 0.0)


def test_processor_time_is_between_the_nearest_samples() -> None:
    samples = [Sample(float(at), at * 0.1, 0.0) for at in range(10)]
    assert cpu_between(samples, 2.4, 6.6) == pytest.approx(0.5)


def test_a_row_has_the_limit_of_its_models() -> None:
    demo = Benchmark(formats=("bf16",))
    (row,) = held_to(demo, "lag of words, p50", [1.7])
    assert (row.ours, row.theirs, row.is_good) == ("ours bf16", "1.8 s", True)
    (row,) = held_to(Benchmark(shape="0.6b", formats=("int8",)), "lag of words, p50", [2.6])
    assert (row.theirs, row.is_good) == ("2.5 s", False)
    (row,) = held_to(Benchmark(shape="0.6b"), "first delta after the detector", [90.0])
    assert row.goal is None
    assert list(held_to(demo, "lag of words, p50", [])) == []
    assert the_subject(Benchmark()).name == "ours bf16"


async def test_a_stream_that_fails_is_a_failed_measurement(service) -> None:
    with pytest.raises(Failed, match="FAILED_PRECONDITION"):
        await say_all(service.stub, [TWO])  # no model is loaded


async def test_ready_is_timed_and_the_stream_is_closed() -> None:
    async with serving_live(ScriptedLive([])) as stub:
        assert len(await ready_ms(stub, 3)) == 3


class Echoing(ScriptedLive):
    """Says how many samples a file has."""

    async def AudioTranscription(self, request, context) -> pb.TranscriptResult:  # noqa: N802
        import soundfile

        return pb.TranscriptResult(text=str(soundfile.info(request.dst).frames))


async def test_todays_way_posts_all_that_was_said_so_far(monkeypatch) -> None:
    monkeypatch.setattr("devtools.bench.live.growing_posts.EVERY_S", 0.1)
    async with serving_live(Echoing([])) as stub:
        texts = await post_growing(stub, np.zeros(8_000, np.float32))
    sizes = [int(text) for _, text in texts]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 8_000
    assert all(at_s >= size / 16_000 for (at_s, _), size in zip(texts, sizes, strict=True))
