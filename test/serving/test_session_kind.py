"""Which jobs share a session, and that a session's key keeps no model in memory."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace

import numpy as np

from backend.options.load_options import LoadOptions
from backend.serving.model_instance import Equipped, Lean
from backend.serving.protocols import Batching, Passage, Utterance
from backend.serving.scheduler import Scheduler

OPTIONS = LoadOptions(model="a", forced_aligner="al", batch_max_size=4, batch_wait_s=0.5)
SOUND = np.zeros(16_000, np.float32)


def test_a_lean_and_an_equipped_instance_share_the_recognisers_session(loader) -> None:
    lean = Lean(OPTIONS, loader.recognizer)
    equipped = Equipped(OPTIONS, loader.recognizer, loader.aligner)
    assert lean.recognition.key == equipped.recognition.key
    assert lean.recognition.key != equipped.alignment.key
    assert equipped.alignment.key == equipped.alignment.key


def test_two_models_share_no_session_even_if_they_are_equal(loader) -> None:
    twin = replace(loader.recognizer)
    assert twin == loader.recognizer
    assert Lean(OPTIONS, twin).recognition.key != Lean(OPTIONS, loader.recognizer).recognition.key


def test_a_kind_has_the_limits_of_its_model_and_its_options(loader) -> None:
    loader.recognizer.batching, loader.aligner.batching = Batching(32, 30.0), Batching(32, 60.0)
    equipped = Equipped(OPTIONS, loader.recognizer, loader.aligner)
    recognition, alignment = equipped.recognition, equipped.alignment
    assert (recognition.max_batch, recognition.max_prefill_s, recognition.batch_wait_s) == (4, 30.0, 0.5)
    assert (alignment.max_batch, alignment.max_prefill_s, alignment.batch_wait_s) == (4, 60.0, 0.0)
    assert (recognition.joins_in_groups, recognition.prepare, alignment.prepare) == (False, None, None)
    loader.recognizer.batching = loader.aligner.batching = Batching(slow_prefill=True)
    assert (equipped.recognition.slow_prefill, equipped.alignment.slow_prefill) == (True, False)


def test_without_the_option_the_device_says_how_many_run_together_and_how_they_join(loader) -> None:
    loader.recognizer.batching = loader.aligner.batching = Batching(32, in_groups=True)
    equipped = Equipped(replace(OPTIONS, batch_max_size=None), loader.recognizer, loader.aligner)
    recognition, alignment = equipped.recognition, equipped.alignment
    assert (recognition.max_batch, alignment.max_batch) == (32, 32)
    assert (recognition.joins_in_groups, alignment.joins_in_groups) == (True, False)  # an alignment has no steps
    assert recognition.prepare == loader.recognizer.prepare
    assert alignment.prepare == loader.aligner.prepare


def test_the_longest_passage_is_the_operators_or_the_recognisers_own(loader) -> None:
    loader.recognizer.chunk_s = 30.0
    assert Lean(OPTIONS, loader.recognizer).max_chunk_s == 30.0
    assert Equipped(replace(OPTIONS, max_chunk_s=9.0), loader.recognizer, loader.aligner).max_chunk_s == 9.0


async def test_a_model_leaves_memory_with_its_last_job_without_the_collector(scheduler: Scheduler, loader) -> None:
    equipped = Equipped(OPTIONS, loader.recognizer, loader.aligner)
    await scheduler.submit(equipped.recognition, Utterance(SOUND, None, "", 8), audio_s=1)
    await scheduler.submit(equipped.alignment, Passage(SOUND, "a word", "en"), audio_s=1)
    models: list[weakref.ref] = [weakref.ref(equipped.recognizer), weakref.ref(equipped.aligner)]
    loader.recognizer = loader.aligner = None
    del equipped
    while scheduler.busy:
        await asyncio.sleep(0.001)
    assert [model() for model in models] == [None, None]


async def test_a_waiting_job_keeps_its_model(scheduler: Scheduler, loader) -> None:
    instance = Lean(replace(OPTIONS, batch_wait_s=0.05), loader.recognizer)
    model = weakref.ref(loader.recognizer)
    loader.recognizer = None
    waiting = asyncio.ensure_future(scheduler.submit(instance.recognition, Utterance(SOUND, None, "", 8), audio_s=1))
    await asyncio.sleep(0)
    del instance
    assert scheduler.waiting == (1, 1.0)
    assert model() is not None
    assert (await waiting).text
