"""An aligner that loses its place on cue: what is aligned again, where, and what is done when that fails, too."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.errors import AlignerUnavailable
from backend.pipeline import alignment
from backend.pipeline.transcript_builder import COARSE, Transcript, of_passages
from backend.serving.protocols import AlignedUnit, Passage

RATE = 16_000
TEXT = " ".join(f"word{n}" for n in range(20))


def evenly(texts, start_s: float, end_s: float, **fields) -> list[AlignedUnit]:
    marks = np.linspace(start_s, end_s, len(texts) + 1).tolist()
    return [AlignedUnit(text, *span, **fields) for text, *span in zip(texts, marks, marks[1:], strict=False)]


def length_s(passage: Passage) -> float:
    return passage.samples.size / RATE


def words_of(transcript: Transcript):
    words = [word for some in transcript.words for word in some]
    assert [transcript.text[w.begin : w.end] for w in words] == transcript.text.split()
    edges = [t for word in words for t in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert all(word.end_s > word.start_s for word in words)
    return words


@pytest.fixture
def aligned(transcribe, loader, bursts):
    """A recording of 10 s of speech with TEXT, aligned by `first` and, when it is asked again, by `again`."""

    async def run(first, again=None, samples=None, text=TEXT) -> Transcript:
        loader.recognizer.answer = lambda _: text
        loader.aligner.answer = lambda passage: (again if passage.units else first)(passage)
        return await transcribe(bursts(10) if samples is None else samples, vad=True)

    return run


def crowded(passage: Passage) -> list[AlignedUnit]:
    """Words 8 to 13 share 50 ms at 4 s; the others are right, half a second each."""
    units = evenly(TEXT.split(), 0, 10)
    units[8:14] = evenly(TEXT.split()[8:14], 4.0, 4.05)
    return units


async def test_piled_up_words_are_realigned_alone_between_their_neighbours(aligned, loader) -> None:
    transcript = await aligned(crowded, lambda p: evenly(p.units, 0.1, length_s(p) - 0.1))
    whole, piece = loader.aligner.passages
    assert piece.units == tuple(TEXT.split()[8:14])
    assert length_s(piece) == pytest.approx(3.0 + 0.2, abs=0.01)
    assert np.array_equal(piece.samples, whole.samples[round(3.9 * RATE) : round(7.1 * RATE)])
    words = words_of(transcript)
    assert [w.start_s for w in words] == pytest.approx([n / 2 for n in range(20)], abs=0.03)
    assert transcript.warnings == (of_passages(1, alignment.REALIGNED),)


async def test_words_that_stay_piled_up_are_spread_over_the_speech_between_their_neighbours(
    aligned, loader, bursts
) -> None:
    samples = bursts(10)
    samples[round(5 * RATE) : round(6 * RATE)] = 0  # nobody speaks for a second
    transcript = await aligned(crowded, lambda p: evenly(p.units, 1.0, 1.05), samples)
    words = words_of(transcript)[8:14]
    assert len(loader.aligner.passages) == 2
    assert (words[0].start_s, words[-1].end_s) == (pytest.approx(4, abs=0.05), pytest.approx(7, abs=0.05))
    lengths = [w.end_s - w.start_s for w in words]
    assert min(lengths) > 0.25
    assert not any(w.start_s < 5.7 and w.end_s > 5.3 for w in words)  # none over the pause
    assert transcript.warnings == (of_passages(1, alignment.SPREAD),)


async def test_words_placed_outside_the_passage_are_realigned(aligned, loader) -> None:
    def first(passage: Passage) -> list[AlignedUnit]:
        inside = evenly(TEXT.split()[:17], 0, 8.5)
        return inside + evenly(TEXT.split()[17:], 9.7, 10.0, outside=True)

    transcript = await aligned(first, lambda p: evenly(p.units, 0.1, length_s(p)))
    _, piece = loader.aligner.passages
    assert piece.units == tuple(TEXT.split()[17:])
    assert words_of(transcript)[17].start_s == pytest.approx(8.5, abs=0.03)
    assert transcript.warnings == (of_passages(1, alignment.REALIGNED),)


async def test_piled_up_words_without_room_are_realigned_with_their_neighbours(aligned, loader) -> None:
    def first(passage: Passage) -> list[AlignedUnit]:
        units = evenly(TEXT.split(), 0, 10)
        units[8:14] = evenly(TEXT.split()[8:14], 6.9, 6.95)
        units[7] = AlignedUnit("word7", 3.5, 6.8)  # its neighbour has swallowed their time
        return units

    transcript = await aligned(first, lambda p: evenly(p.units, 0.1, length_s(p) - 0.1))
    _, piece = loader.aligner.passages
    assert piece.units == tuple(TEXT.split()[7:15])
    assert min(w.end_s - w.start_s for w in words_of(transcript)) > 0.3


@pytest.mark.parametrize("paces", [[0.15], [0.22, 0.15], [0.15, 0.3]])
async def test_a_few_words_lost_in_fast_speech_cost_no_others_their_times(aligned, loader, bursts, paces) -> None:
    """`paces`: seconds of a unit, of each part of the 60."""
    texts = [f"w{n}" for n in range(60)]
    starts = np.cumsum([0.2, *np.repeat(paces, 60 // len(paces))]).tolist()
    right = [AlignedUnit(text, *span) for text, *span in zip(texts, starts, starts[1:], strict=False)]

    def first(passage: Passage) -> list[AlignedUnit]:
        units = list(right)
        units[40:45] = evenly(texts[40:45], starts[40], starts[40] + 0.4)
        return units

    def again(passage: Passage) -> list[AlignedUnit]:
        at = texts.index(passage.units[0])
        return [
            u._replace(start_s=u.start_s - starts[at] + 0.1, end_s=u.end_s - starts[at] + 0.1)
            for u in right[at : at + len(passage.units)]
        ]

    transcript = await aligned(first, again, bursts(starts[-1] + 0.2), " ".join(texts))
    assert len(loader.aligner.passages) == 2
    assert [w.start_s for w in words_of(transcript)] == pytest.approx(starts[:-1], abs=0.05)


async def test_a_passage_whose_words_are_all_lost_is_spread_at_once(aligned, loader) -> None:
    transcript = await aligned(lambda p: evenly(TEXT.split(), 3.0, 3.1))
    assert len(loader.aligner.passages) == 1  # the same passage once more would give the same
    words = words_of(transcript)
    assert min(w.end_s - w.start_s for w in words) > 0.3
    assert transcript.warnings == (of_passages(1, alignment.SPREAD),)


async def test_a_failed_realignment_costs_only_its_words(aligned, loader) -> None:
    def again(passage: Passage) -> list[AlignedUnit]:
        raise RuntimeError("boom")

    transcript = await aligned(crowded, again)
    words = words_of(transcript)
    assert [w.start_s for w in words[:8]] == pytest.approx([n / 2 for n in range(8)], abs=0.03)
    assert words[7].end_s <= words[8].start_s < words[13].end_s <= words[14].start_s
    assert transcript.warnings == (of_passages(1, alignment.SPREAD),)


async def test_many_lost_runs_are_realigned_as_one(aligned, loader) -> None:
    def first(passage: Passage) -> list[AlignedUnit]:
        units = evenly(TEXT.split(), 0, 10)
        return [unit._replace(outside=number % 4 == 1) for number, unit in enumerate(units)]

    await aligned(first, lambda p: evenly(p.units, 0.1, length_s(p) - 0.1))
    assert len(loader.aligner.passages) == 2
    assert loader.aligner.passages[1].units == tuple(TEXT.split()[1:18])


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
async def test_times_that_are_not_finite_are_realigned(aligned, loader, wild: float) -> None:
    def first(passage: Passage) -> list[AlignedUnit]:
        units = evenly(TEXT.split(), 0, 10)
        units[3:5] = [AlignedUnit("word3", wild, 2.0), AlignedUnit("word4", 2.0, wild)]
        return units

    transcript = await aligned(first, lambda p: evenly(p.units, 0.1, length_s(p) - 0.1))
    assert [w.start_s for w in words_of(transcript)] == pytest.approx([n / 2 for n in range(20)], abs=0.11)


@pytest.mark.parametrize("wild", [math.nan, math.inf])
async def test_piled_up_words_beside_times_that_are_not_finite_are_realigned(aligned, loader, wild: float) -> None:
    def first(passage: Passage) -> list[AlignedUnit]:
        units = crowded(passage)
        units[7] = AlignedUnit("word7", wild, wild)
        return units

    transcript = await aligned(first, lambda p: evenly(p.units, 0.1, length_s(p) - 0.1))
    assert loader.aligner.passages[1].units == tuple(TEXT.split()[7:14])
    assert [w.start_s for w in words_of(transcript)] == pytest.approx([n / 2 for n in range(20)], abs=0.05)


async def test_coarse_words_are_not_squeezed_into_too_little_detected_speech(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: TEXT
    samples = np.concatenate([np.zeros(3 * RATE, np.float32), bursts(0.2), np.zeros(3 * RATE, np.float32)])
    transcript = await transcribe(samples, vad=True, forced_aligner="")
    assert transcript.segments[0].end_s - transcript.segments[0].start_s > 2


async def test_good_times_are_kept(aligned, loader) -> None:
    transcript = await aligned(lambda p: evenly(TEXT.split(), 0, 10))
    assert len(loader.aligner.passages) == 1
    assert transcript.warnings == ()
    assert words_of(transcript)


async def test_a_word_does_not_reach_into_a_pause(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: "One two."
    loader.aligner.answer = lambda _: [AlignedUnit("One", 0.0, 2.9), AlignedUnit("two", 3.0, 4.0)]
    transcript = await transcribe(bursts(1.5, 1, pause_s=1.5), vad=True)
    one, two = words_of(transcript)
    assert one.end_s == pytest.approx(1.7, abs=0.05)
    assert (two.start_s, two.end_s) == (3.0, 4.0)


async def test_passages_for_the_aligner_are_a_minute_long_at_most(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: " ".join(["so"] * 200)
    await transcribe(bursts(150), vad=True, max_chunk_s=180)
    loader.recognizer.chunk_s = 180
    await transcribe(bursts(150), vad=True)
    assert max(length_s(p) for p in loader.aligner.passages) <= 60


async def test_what_a_language_lacks_here_is_the_warning_and_costs_no_text(aligned, loader) -> None:
    """As where nagisa is not installed. Asked once more, the aligner would say the same."""
    lack = "the aligner's Japanese needs the package nagisa"
    loader.aligner.fault = AlignerUnavailable(lack)
    transcript = await aligned(crowded)
    assert transcript.text == TEXT
    assert transcript.segments
    assert transcript.warnings == (COARSE.format(cause=lack),)
    assert len(loader.aligner.passages) == 1
