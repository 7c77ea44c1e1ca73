"""Chunks: no speech is lost, no chunk is too long, no word is cut."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.audio.chunks import halves, split
from backend.audio.vad import Speech, all_speech
from backend.audio.waveform import SAMPLE_RATE, Chunk

seeded = settings(max_examples=60)


def _sound(seed: int, size: int) -> NDArray[np.float32]:
    """Noise whose loudness changes at random between silence and full scale."""
    chance = np.random.default_rng(seed)
    loudness = np.repeat(chance.choice([0, 0, 0.01, 0.2, 1], size // 1000 + 1), 1000)[:size]
    return (chance.uniform(-1, 1, size) * loudness).astype(np.float32)


recordings = st.builds(_sound, st.integers(0, 1000), st.integers(1, 60_000))


def _seconds(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _speech(seed: int, words: int, noise: float = 0.0) -> tuple[NDArray[np.float32], list[tuple[int, int, float]]]:
    """Tone bursts, and the pauses between them as (first sample, last sample, seconds): one in five ends a sentence."""
    chance = np.random.default_rng(seed)
    pieces, pauses, at = [], [], 0
    for number in range(words):
        word = _seconds(chance.uniform(0.08, 0.7))
        pieces.append(np.sin(np.arange(word) * 2 * np.pi * chance.uniform(100, 900) / SAMPLE_RATE) * 0.3)
        pause_s = chance.uniform(0.45, 0.9) if number % 5 == 4 else chance.uniform(0.08, 0.15)
        pauses.append((at + word, at + word + _seconds(pause_s), pause_s))
        pieces.append(np.zeros(_seconds(pause_s)))
        at = pauses[-1][1]
    speech = np.concatenate(pieces)
    return (speech + chance.normal(0, 1, speech.size) * noise).astype(np.float32), pauses


def chunks_of(samples: NDArray[np.float32], *, max_s: float) -> list[Chunk]:
    """The chunks of a recording on which no detector runs."""
    return split(samples, max_s=max_s, speech=all_speech(samples), margin_s=1.0)


def in_two(chunk: Chunk) -> tuple[Chunk, Chunk]:
    return halves(chunk, speech_in())


def speech_in(*spans_s: tuple[float, float]) -> Speech:
    """Detected speech between these seconds."""
    return Speech(tuple((_seconds(start), _seconds(end)) for start, end in spans_s), np.zeros(0, np.float32))


def _is_the_recording(chunks: list[Chunk], samples: NDArray[np.float32]) -> bool:
    ends = [0, *(chunk.end for chunk in chunks)]
    return (
        [chunk.start for chunk in chunks] == ends[:-1]
        and ends[-1] == samples.size
        and all(np.shares_memory(chunk.samples, samples) for chunk in chunks)
        and np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), samples)
    )


@seeded
@given(recordings, st.floats(0.0001, 3))
def test_chunks_are_the_recording_and_none_is_too_long(samples, max_s):
    chunks = chunks_of(samples, max_s=max_s)
    longest = int(max_s * SAMPLE_RATE + 1e-6)
    assert _is_the_recording(chunks, samples)
    assert all(0 < chunk.samples.size <= longest for chunk in chunks)
    assert len(chunks) == 1 or min(chunk.samples.size for chunk in chunks) >= longest // 4


@seeded
@given(recordings.filter(lambda samples: samples.size > 1), st.integers(0, 10**9))
def test_halves_are_the_chunk_and_neither_is_tiny(samples, start):
    first, second = in_two(Chunk(start, samples))
    assert (first.start, first.end, second.end) == (start, second.start, start + samples.size)
    assert _is_the_recording([Chunk(0, first.samples), Chunk(first.samples.size, second.samples)], samples)
    assert min(first.samples.size, second.samples.size) >= max(samples.size // 4, 1)


@seeded
@given(
    st.integers(0, 10**6), st.integers(40, 120), st.sampled_from([0.0, 0.001, 0.03]), st.sampled_from([5.0, 9.3, 30.0])
)
def test_no_word_is_cut(seed, words, noise, max_s):
    samples, pauses = _speech(seed, words, noise)
    for cut in [chunk.start for chunk in chunks_of(samples, max_s=max_s)][1:]:
        assert any(begin <= cut <= end for begin, end, _ in pauses)


@seeded
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.001, 0.03]))
def test_a_pause_between_sentences_is_preferred_and_cut_in_its_middle(seed, noise):
    samples, pauses = _speech(seed, 120, noise)
    for chunk in chunks_of(samples, max_s=12)[:-2]:  # the last two have less to choose from
        begin, end, pause_s = next(pause for pause in pauses if pause[0] <= chunk.end <= pause[1])
        assert pause_s > 0.4
        full = chunk.samples.size == _seconds(12)  # the limit itself lay in the pause, before its middle
        assert full or abs(chunk.end - (begin + end) / 2) <= _seconds(0.03)


@seeded
@given(st.integers(0, 10**6))
def test_halves_cut_no_word(seed):
    samples, pauses = _speech(seed, 25, 0.001)
    _, second = in_two(Chunk(0, samples))
    assert any(begin <= second.start <= end for begin, end, _ in pauses)


@pytest.mark.parametrize("size", [1, _seconds(0.5), _seconds(29.9), _seconds(30)])
def test_a_recording_that_fits_is_one_chunk(size):
    samples = _sound(1, size)
    (chunk,) = chunks_of(samples, max_s=30)
    assert _is_the_recording([chunk], samples)


def test_an_empty_recording_has_no_chunks():
    assert chunks_of(np.empty(0, np.float32), max_s=30) == []


@pytest.mark.parametrize("level", [0.0, 1e-20, 0.5, 1.0])
def test_at_a_constant_level_chunks_are_full_and_halves_exact(level):
    samples = np.full(_seconds(100), level, np.float32)
    assert [chunk.samples.size for chunk in chunks_of(samples, max_s=30)] == [
        _seconds(30),
        _seconds(30),
        _seconds(30),
        _seconds(10),
    ]
    first, second = in_two(Chunk(0, samples[:100_001]))
    assert (first.samples.size, second.samples.size) == (50_000, 50_001)


def test_steady_noise_gives_long_chunks():
    samples = np.random.default_rng(3).normal(0, 0.1, _seconds(300)).astype(np.float32)
    assert len(chunks_of(samples, max_s=30)) <= 12


def test_the_last_chunk_is_not_tiny():
    for over_s in (0.001, 0.5, 1.5):
        first, last = chunks_of(np.ones(_seconds(30 + over_s), np.float32), max_s=30)
        assert min(first.duration_s, last.duration_s) >= 7.5


def test_of_two_equal_pauses_the_later_is_cut():
    samples = np.ones(_seconds(70), np.float32)
    for at in (18, 27):
        samples[_seconds(at) : _seconds(at + 0.5)] = 0
    assert chunks_of(samples, max_s=30)[0].duration_s == pytest.approx(27.25, abs=0.02)


def test_an_early_long_pause_beats_a_late_short_one():
    samples = np.ones(_seconds(70), np.float32)
    samples[_seconds(17) : _seconds(17.5)] = 0
    samples[_seconds(28) : _seconds(28.1)] = 0
    assert chunks_of(samples, max_s=30)[0].duration_s == pytest.approx(17.25, abs=0.02)


def test_a_quiet_room_is_as_good_a_pause_as_digital_zeros():
    samples = np.ones(_seconds(70), np.float32)
    samples[_seconds(20) : _seconds(20.5)] = 2e-4
    samples[_seconds(28) : _seconds(28.1)] = 0
    assert chunks_of(samples, max_s=30)[0].duration_s == pytest.approx(20.25, abs=0.02)


def test_a_pause_that_goes_on_beyond_the_limit_is_cut_late_but_not_at_the_next_word():
    samples = np.ones(_seconds(70), np.float32)
    samples[_seconds(20) : _seconds(30.2)] = 0
    assert 29.1 <= chunks_of(samples, max_s=30)[0].duration_s <= 29.3


def test_one_sample_has_no_halves():
    with pytest.raises(ValueError, match="no halves"):
        in_two(Chunk(0, np.zeros(1, np.float32)))


def test_a_limit_under_one_sample_is_refused():
    with pytest.raises(ValueError, match="shorter than one sample"):
        chunks_of(np.zeros(10, np.float32), max_s=0.00001)


def test_an_hour_is_split_in_under_two_seconds():
    samples = np.tile(_speech(5, 40, 0.001)[0], 180)[: _seconds(3600)]
    begun = time.process_time()
    chunks_of(samples, max_s=30)
    assert time.process_time() - begun < 2  # 0.2 s on an idle core


def test_without_speech_there_are_no_chunks():
    assert split(np.ones(1000, np.float32), max_s=30, speech=speech_in(), margin_s=1.0) == []


def test_seconds_without_speech_are_left_out_and_shorter_pauses_kept():
    samples = np.random.default_rng(0).normal(size=_seconds(60)).astype(np.float32)
    speech = speech_in((1, 2), (4, 6), (20, 21), (50, 58))
    chunks = split(samples, max_s=30, speech=speech, margin_s=0.5)
    assert [(chunk.start_s, chunk.end_s) for chunk in chunks] == [(0.5, 6.5), (19.5, 21.5), (49.5, 58.5)]
    assert all(np.array_equal(chunk.samples, samples[chunk.start : chunk.end]) for chunk in chunks)


@seeded
@given(st.lists(st.integers(1, 40_000), min_size=2, max_size=20), st.floats(2, 30), st.floats(0, 1))
def test_every_sample_of_speech_is_in_a_chunk_and_none_is_too_long(lengths, max_s, margin_s):
    """Speech and silence of these lengths, in 100ths of a second, in turn."""
    marks = np.cumsum([0, *(length * 100 for length in lengths)])
    size = int(marks[-1])
    spans = tuple((int(a), int(b)) for a, b in zip(marks[1::2], marks[2::2], strict=False))
    chunks = split(
        np.zeros(size, np.float32), max_s=max_s, speech=Speech(spans, np.zeros(0, np.float32)), margin_s=margin_s
    )
    covered = np.zeros(size, bool)
    for chunk in chunks:
        assert chunk.samples.size <= int(max_s * SAMPLE_RATE + 1e-6)
        assert not covered[chunk.start : chunk.end].any()
        covered[chunk.start : chunk.end] = True
    assert all(covered[start:end].all() for start, end in spans)
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)


@pytest.mark.parametrize("pause", [(8, 9), (9, 9.3), (11.5, 12)])
def test_in_steady_noise_the_cut_is_where_the_detector_finds_no_speech(pause):
    samples = np.random.default_rng(1).normal(0, 0.1, _seconds(20)).astype(np.float32)
    speech = speech_in((0, pause[0]), (pause[1], 20))
    first, _ = split(samples, max_s=15, speech=speech, margin_s=1.0)
    left, _ = halves(Chunk(0, samples), speech)
    assert pause[0] <= first.end_s <= pause[1]
    assert pause[0] <= left.end_s <= pause[1]


def test_the_margins_of_two_regions_do_not_overlap():
    samples = np.zeros(_seconds(30), np.float32)
    chunks = split(samples, max_s=30, speech=speech_in((2, 5), (9, 12), (28, 29)), margin_s=5)
    assert [(chunk.start_s, chunk.end_s) for chunk in chunks] == [(0, 17), (23, 30)]


def test_a_cut_is_moved_out_of_soft_speech_into_a_noisy_pause():
    """A soft voice at 8 to 12 s is quieter than the music in the pause of 13 to 14 s, but it is a voice."""
    samples = np.full(_seconds(20), 0.5, np.float32)
    samples[_seconds(8) : _seconds(12)] = 0.1
    samples[_seconds(13) : _seconds(14)] = 0.15
    first, second = split(samples, max_s=15, speech=speech_in((0, 13), (14, 20)), margin_s=1.0)
    assert 13 < first.end_s == second.start_s < 14
    first, _ = chunks_of(samples, max_s=15)
    assert first.end_s < 13
    left, _ = halves(Chunk(0, samples), speech_in((0, 13), (14, 20)))
    assert 13 < left.end_s < 14
