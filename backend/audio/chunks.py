"""Long recordings become chunks that the model can hold; the cuts are where nobody speaks.

- No speech is lost: chunks are views of the recording, in order, and what is between them is seconds without speech.
  Without a detector's word for it they are adjacent, and together they are the recording.
- No chunk is longer than asked, to the sample. None is shorter than a quarter of that, unless its stretch is.
- A pause between sentences is preferred to one between words, and either to a place inside a word: how quiet a place
  is, is judged over three spans at once (100, 200 and 400 ms), of which a short pause fills only the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.audio.vad import Speech
from backend.audio.waveform import SAMPLE_RATE, Chunk, Samples

_HOP = SAMPLE_RATE // 100  # loudness is known every 10 ms
_REACH = (5, 10, 20)  # hops on each side of a cut: 100 ms is a gap between words, 400 ms one between sentences
_FLOOR = 1e-7  # 70 dB under the loudest 10 ms all is silence: digital zeros are no better a pause than a quiet room
_PULL_DB = 2.0  # what the far end of the span costs: decides between equal pauses, never between a pause and a word
_PAUSE_DB = 6.0  # a pause goes on while it is not this much louder than where it is quietest
_LONGEST_PAUSE = 500  # hops to look for the ends of a pause on each side
_MARGIN = SAMPLE_RATE  # quiet to leave on both sides of a cut: a pause of up to 2 s is cut in its middle
_SPEECH_DB = 12.0  # what a place costs where somebody speaks: a quiet vowel is no pause, a pause full of music is one
_SKIPPED_S = 3.0  # a pause of more is not given to the model; a shorter one tells it where sentences end


def split(samples: Samples, *, max_s: float, speech: Speech, margin_s: float = 1.0) -> list[Chunk]:
    """The recording, shape (n,), as chunks of at most `max_s` seconds, without its long pauses.

    `margin_s` of sound is kept on both sides of speech: a detector that has heard noise for long misses the first word.
    """
    longest = int(max_s * SAMPLE_RATE + 1e-6)  # 1e-6: a product that misses its whole number by a rounding error
    if longest < 1:
        raise ValueError("max_s is shorter than one sample")
    stretches = list(_stretches(speech, samples.size, margin_s))
    if all(end - start <= longest for start, end in stretches):
        return [Chunk(start, samples[start:end]) for start, end in stretches]
    energy = _summed_energy(samples)
    return [
        Chunk(start, samples[start:end])
        for stretch in stretches
        for start, end in _pieces(energy, speech, *stretch, longest)
    ]


def halves(chunk: Chunk, speech: Speech) -> tuple[Chunk, Chunk]:
    """The chunk in two, cut at the deepest pause in its middle half; in exact halves when it is all alike."""
    size = chunk.samples.size
    if size < 2:
        raise ValueError("one sample has no halves")
    energy = _summed_energy(chunk.samples)
    earliest, latest = max(size // 4, 1), max(size * 3 // 4, 1)
    spoken = [(start - chunk.start, end - chunk.start) for start, end in speech.within(chunk.start, chunk.end)]
    cut = _quiet_place(energy, spoken, earliest=earliest, latest=latest, aim=size // 2)
    return Chunk(chunk.start, chunk.samples[:cut]), Chunk(chunk.start + cut, chunk.samples[cut:])


def _stretches(speech: Speech, size: int, margin_s: float) -> Iterator[tuple[int, int]]:
    """What of the recording is kept: speech with its margins, and the shorter pauses between, in samples."""
    margin = round(margin_s * SAMPLE_RATE)
    skipped = max(round(_SKIPPED_S * SAMPLE_RATE), 2 * margin)  # else the margins of two stretches overlap
    begin = 0
    for at, (start, end) in enumerate(speech.spans):
        if at == 0 or start - speech.spans[at - 1][1] > skipped:
            begin = start
        if at + 1 == len(speech.spans) or speech.spans[at + 1][0] - end > skipped:
            yield max(begin - margin, 0), min(end + margin, size)


def _pieces(
    energy: NDArray[np.float64], speech: Speech, start: int, end: int, longest: int
) -> Iterator[tuple[int, int]]:
    """A stretch in pieces of at most `longest` samples, cut in pauses."""
    while end - start > longest:
        # The rest is never left shorter than a quarter: a second of speech on its own is recognised badly.
        latest = start + min(longest, end - start - longest // 4)
        earliest = start + max(longest // 2, 1)
        cut = _quiet_place(energy, speech.within(earliest, latest), earliest=earliest, latest=latest, aim=latest)
        yield start, cut
        start = cut
    yield start, end


def _summed_energy(samples: Samples) -> NDArray[np.float64]:
    """Mean energy of each 10 ms, floored and summed up, shape (hops + 1,): any span's energy is one subtraction."""
    whole = samples.size // _HOP
    hops = samples[: whole * _HOP].reshape(whole, _HOP)
    energy = np.einsum("ij,ij->i", hops, hops).astype(np.float64) / _HOP  # einsum: no copy of squares
    loudest = max(float(energy.max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return np.concatenate(([0.0], np.cumsum(np.maximum(energy, loudest * _FLOOR))))


def _level_db(energy: NDArray[np.float64], at: NDArray[np.intp], reach: int) -> NDArray[np.float64]:
    """Loudness around the hop boundaries `at`, over `reach` hops on each side, as far as the recording goes."""
    after = np.minimum(at + reach, energy.size - 1)
    before = np.maximum(at - reach, 0)
    level: NDArray[np.float64] = 10 * np.log10((energy[after] - energy[before]) / (after - before))
    return level


def _quiet_place(
    energy: NDArray[np.float64], spoken: Sequence[tuple[int, int]], *, earliest: int, latest: int, aim: int
) -> int:
    """The sample in [earliest, latest] to cut at: in the longest, deepest pause; of equals in the one nearest `aim`.

    `spoken`: where somebody speaks, in samples; what a detector does not hear is preferred.
    """
    first, last = -(-earliest // _HOP), min(latest // _HOP, energy.size - 1)
    if first > last or energy.size < 2:
        return aim  # less than 10 ms to choose from
    places = np.arange(first, last + 1)
    loudness = sum(_level_db(energy, places, reach) for reach in _REACH) / len(_REACH)
    pull = _PULL_DB * np.abs(places * _HOP - aim) / max(latest - earliest, 1)
    in_speech = np.zeros(places.size, bool)
    for start, stop in spoken:
        in_speech |= (start <= places * _HOP) & (places * _HOP <= stop)
    chosen = int(np.argmin(loudness + pull + _SPEECH_DB * in_speech))
    begin, end = _pause_around(energy, int(places[chosen]))
    if not in_speech[chosen]:  # in steady noise all is as quiet as the pause
        begin = max([begin, *(stop for _, stop in spoken if stop <= places[chosen] * _HOP)])
        end = min([end, *(start for start, _ in spoken if start >= places[chosen] * _HOP)])
    margin = min(_MARGIN, (end - begin) // 2)
    cut = min(max(aim, begin + margin), end - margin)
    return min(max(cut, earliest), latest)


def _pause_around(energy: NDArray[np.float64], quietest: int) -> tuple[int, int]:
    """The samples between which it stays about as quiet as at the hop boundary `quietest`."""
    first = max(quietest - _LONGEST_PAUSE, 0)
    places = np.arange(first, min(quietest + _LONGEST_PAUSE, energy.size - 1) + 1)
    levels = _level_db(energy, places, 1)
    loud = np.flatnonzero(levels > levels[quietest - first] + _PAUSE_DB) + first
    split_at = int(np.searchsorted(loud, quietest))
    begin = int(loud[split_at - 1]) + 1 if split_at else int(places[0])
    end = int(loud[split_at]) - 1 if split_at < loud.size else int(places[-1])
    return begin * _HOP, end * _HOP
