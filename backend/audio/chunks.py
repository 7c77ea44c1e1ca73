"""Splits a recording into chunks that the model can take, with the cuts in pauses.

- No speech is lost. Chunks are views of the recording, in order, and only long pauses are left out between them.
  Where no detector ran, chunks are adjacent and together they are the recording.
- No chunk is longer than `max_s`, to the sample. None is shorter than a quarter of `max_s`, unless its region is.
- A pause between sentences is preferred to one between words, and either to a place inside a word. Loudness is
  averaged over three windows at once (100, 200 and 400 ms), of which a short pause fills only the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Chunk, Samples
from backend.thresholds import (
    CUT_MARGIN_S,
    DISTANCE_PENALTY_DB,
    ENERGY_FLOOR,
    LOUDNESS_REACH_HOPS,
    MAX_KEPT_PAUSE_S,
    PAUSE_EDGE_DB,
    PAUSE_SEARCH_S,
    SPEECH_PENALTY_DB,
)

_HOP = SAMPLE_RATE // 100  # samples: loudness is known every 10 ms
_PAUSE_SEARCH_HOPS = round(PAUSE_SEARCH_S * SAMPLE_RATE / _HOP)
_CUT_MARGIN = round(CUT_MARGIN_S * SAMPLE_RATE)  # samples


def split(samples: Samples, *, max_s: float, speech: Speech, margin_s: float) -> list[Chunk]:
    """The recording, shape (n,), as chunks of at most `max_s` seconds, without its long pauses.

    `margin_s` of audio is kept on both sides of speech: after a long noise the detector misses the first word.
    """
    longest = int(max_s * SAMPLE_RATE + 1e-6)  # 1e-6: a product may miss its whole number by a rounding error
    if longest < 1:
        raise ValueError("max_s is shorter than one sample")
    regions = list(_speech_regions(speech, samples.size, margin_s))
    if all(end - start <= longest for start, end in regions):
        return [Chunk(start, samples[start:end]) for start, end in regions]
    energy = _cumulative_energy(samples)
    return [
        Chunk(start, samples[start:end])
        for region in regions
        for start, end in _cut_region(energy, speech, *region, longest)
    ]


def halves(chunk: Chunk, speech: Speech) -> tuple[Chunk, Chunk]:
    """The chunk in two, cut at the deepest pause in its middle half; in exact halves if the loudness is constant."""
    size = chunk.samples.size
    if size < 2:
        raise ValueError("one sample has no halves")
    earliest, latest = max(size // 4, 1), max(size * 3 // 4, 1)
    cut = deepest_pause(chunk, speech, earliest=earliest, latest=latest, target=size // 2)
    return Chunk(chunk.start, chunk.samples[:cut]), Chunk(chunk.start + cut, chunk.samples[cut:])


def deepest_pause(chunk: Chunk, speech: Speech, *, earliest: int, latest: int, target: int) -> int:
    """Where to cut the chunk, in samples from its start, from `earliest` to `latest`: in its longest, deepest pause.

    Of equal ones the nearest to `target`.
    """
    spoken = [(start - chunk.start, end - chunk.start) for start, end in speech.within(chunk.start, chunk.end)]
    return _best_cut(_cumulative_energy(chunk.samples), spoken, earliest=earliest, latest=latest, target=target)


def _speech_regions(speech: Speech, size: int, margin_s: float) -> Iterator[tuple[int, int]]:
    """What of the recording is kept, in samples: speech with its margins, and the shorter pauses between."""
    margin = round(margin_s * SAMPLE_RATE)
    max_pause = max(round(MAX_KEPT_PAUSE_S * SAMPLE_RATE), 2 * margin)  # else the margins of two regions overlap
    begin = 0
    for at, (start, end) in enumerate(speech.spans):
        if at == 0 or start - speech.spans[at - 1][1] > max_pause:
            begin = start
        if at + 1 == len(speech.spans) or speech.spans[at + 1][0] - end > max_pause:
            yield max(begin - margin, 0), min(end + margin, size)


def _cut_region(
    energy: NDArray[np.float64], speech: Speech, start: int, end: int, longest: int
) -> Iterator[tuple[int, int]]:
    """A region in pieces of at most `longest` samples, cut in pauses."""
    while end - start > longest:
        # The rest is never left shorter than a quarter: a second of speech on its own is recognised badly.
        latest = start + min(longest, end - start - longest // 4)
        earliest = start + max(longest // 2, 1)
        cut = _best_cut(energy, speech.within(earliest, latest), earliest=earliest, latest=latest, target=latest)
        yield start, cut
        start = cut
    yield start, end


def _cumulative_energy(samples: Samples) -> NDArray[np.float64]:
    """Cumulative sum of each hop's mean energy, floored; shape (hops + 1,). A span's energy is one subtraction."""
    whole = samples.size // _HOP
    hops = samples[: whole * _HOP].reshape(whole, _HOP)
    energy = np.einsum("ij,ij->i", hops, hops).astype(np.float64) / _HOP  # einsum: no copy of squares
    loudest = max(float(energy.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return np.concatenate(([0.0], np.cumsum(np.maximum(energy, loudest * ENERGY_FLOOR))))


def _level_db(energy: NDArray[np.float64], at: NDArray[np.intp], reach: int) -> NDArray[np.float64]:
    """Loudness around the hop boundaries `at`, over `reach` hops on each side, as far as the recording goes."""
    after = np.minimum(at + reach, energy.size - 1)
    before = np.maximum(at - reach, 0)
    level: NDArray[np.float64] = 10 * np.log10((energy[after] - energy[before]) / (after - before))
    return level


def _best_cut(
    energy: NDArray[np.float64], spoken: Sequence[tuple[int, int]], *, earliest: int, latest: int, target: int
) -> int:
    """The sample in [earliest, latest] to cut at: in the longest, deepest pause; of equal ones the nearest to `target`.

    `spoken`: detected speech, in samples. A place outside it is preferred.
    """
    first, last = -(-earliest // _HOP), min(latest // _HOP, energy.size - 1)
    if first > last or energy.size < 2:
        return target  # less than 10 ms to choose from
    places = np.arange(first, last + 1)
    loudness = sum(_level_db(energy, places, reach) for reach in LOUDNESS_REACH_HOPS) / len(LOUDNESS_REACH_HOPS)
    distance_penalty = DISTANCE_PENALTY_DB * np.abs(places * _HOP - target) / max(latest - earliest, 1)
    in_speech = np.zeros(places.size, bool)
    for start, stop in spoken:
        in_speech |= (start <= places * _HOP) & (places * _HOP <= stop)
    chosen = int(np.argmin(loudness + distance_penalty + SPEECH_PENALTY_DB * in_speech))
    begin, end = _pause_around(energy, int(places[chosen]))
    if not in_speech[chosen]:  # in steady noise everything is as quiet as the pause: keep to the detector's gap
        begin = max([begin, *(stop for _, stop in spoken if stop <= places[chosen] * _HOP)])
        end = min([end, *(start for start, _ in spoken if start >= places[chosen] * _HOP)])
    margin = min(_CUT_MARGIN, (end - begin) // 2)
    cut = min(max(target, begin + margin), end - margin)
    return min(max(cut, earliest), latest)


def _pause_around(energy: NDArray[np.float64], quietest: int) -> tuple[int, int]:
    """The samples between which the level stays within PAUSE_EDGE_DB of that at the hop boundary `quietest`."""
    first = max(quietest - _PAUSE_SEARCH_HOPS, 0)
    places = np.arange(first, min(quietest + _PAUSE_SEARCH_HOPS, energy.size - 1) + 1)
    levels = _level_db(energy, places, 1)
    loud = np.flatnonzero(levels > levels[quietest - first] + PAUSE_EDGE_DB) + first
    split_at = int(np.searchsorted(loud, quietest))
    begin = int(loud[split_at - 1]) + 1 if split_at else int(places[0])
    end = int(loud[split_at]) - 1 if split_at < loud.size else int(places[-1])
    return begin * _HOP, end * _HOP
