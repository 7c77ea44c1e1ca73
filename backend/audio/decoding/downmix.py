"""Channels into one: their mean, unless they cancel each other out.

A microphone or cable with its poles swapped makes one channel the opposite of another, and their mean is silence. It
may concern one of two speakers, or one pair of a surround recording, so it is judged in pieces, pair by pair.

- A pair cancels where its sum has next to none of its energy. It counts from a tenth of a second on, and is then turned
  over wherever the two are opposed, in the breaths and consonants around it as well.
- Energy is taken of the differences of samples at about 8 kHz: hum, and the fundamental of a voice between two distant
  microphones, would look like an opposed pair.
- Where no pair cancels, the mean is the mean, bit by bit.
"""

from __future__ import annotations

import functools
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from backend.thresholds import (
    CANCELLED_ENERGY_SHARE,
    CANCELLED_PIECES,
    CHANNEL_PIECE_S,
    MIN_CHANNEL_ENERGY,
    SIGN_FADE_S,
)

_JUDGED_HZ = 8_000
_CACHED_SAMPLES = 1 << 15  # of all channels, 128 KiB

Block = NDArray[np.float32]
Flags = NDArray[np.bool_]


class Downmix:
    """The mix of one recording. `cancelled_s`: seconds in which a channel was turned over or left out."""

    def __init__(self) -> None:
        self.cancelled_s = 0.0
        self._rate, self._channels = 0, 0
        self._trailing: dict[object, int] = {}  # cancelled pieces of the run that the last block ended in, by pair
        self._weights: NDArray[np.float32] | None = None  # of the last piece

    def mix(self, block: Block, rate: int) -> NDArray[np.float32]:
        """Mono sound, shape (frames,), of a block of shape (frames, channels), channels >= 2."""
        channels = block.shape[1]
        if (rate, channels) != (self._rate, self._channels):
            self._rate, self._channels, self._trailing, self._weights = rate, channels, {}, None
        mean = np.full(channels, 1 / channels, np.float32)
        mono: NDArray[np.float32] = block @ mean
        with np.errstate(all="ignore"):  # the products of huge samples overflow, and compare as not opposed
            weights = self._piece_weights(block, rate)
        if weights is None and self._weights is None:  # ordinary stereo: nothing was ever turned over
            return mono
        before = mean if self._weights is None else self._weights
        if weights is None:
            weights = mean[None]
        if (weights == mean).all() and (before == mean).all():
            return mono
        length = block.shape[0] if len(weights) == 1 else self._piece_frames(rate)
        fade = max(1, round(SIGN_FADE_S * rate))
        for first, last in _runs_of_equal(weights):
            now, begin = weights[first], first * length
            end = block.shape[0] if last == len(weights) else last * length
            if not (now == mean).all():
                mono[begin:end] = block[begin:end] @ now
                self.cancelled_s += (end - begin) / rate
            if not (now == before).all():
                rise = np.linspace(0, 1, min(fade, end - begin), dtype=np.float32)
                stop = begin + rise.size
                mono[begin:stop] = rise * mono[begin:stop] + (1 - rise) * (block[begin:stop] @ before)
            before = now
        self._weights = before
        return mono

    def _piece_frames(self, rate: int) -> int:
        step = max(1, rate // _JUDGED_HZ)
        return step * max(1, round(CHANNEL_PIECE_S * rate / step))

    def _piece_weights(self, block: Block, rate: int) -> NDArray[np.float32] | None:
        """The weight of each channel in each piece, shape (pieces, channels); None if all are the mean's."""
        channels, step, piece = block.shape[1], max(1, rate // _JUDGED_HZ), self._piece_frames(rate)
        if not self._trailing and not _any_cancels(_products(block, step, piece, every=2)):
            return None  # what counts lasts for more than two pieces
        products = _products(block, step, piece)
        energy, opposed_by, cancels = _pairs(products)
        signs = np.ones((len(products), channels), np.float32)
        for first, second in combinations(range(channels), 2):
            pair = (first, second)
            if not (cancels[:, first, second].any() or pair in self._trailing):
                continue
            turned = self._turned(pair, cancels[:, first, second], opposed_by[:, first, second])
            signs[turned, second] = -signs[turned, first]
        weights = signs / np.float32(channels)
        if channels > 2:
            self._leave_out(weights, signs, products, energy)
        return None if (signs == 1).all() and (weights == np.float32(1 / channels)).all() else weights

    def _leave_out(
        self, weights: NDArray[np.float32], signs: NDArray[np.float32], products: Block, energy: NDArray[np.float32]
    ) -> None:
        """Where three or more channels cancel together, though no pair does, take the loudest alone."""
        whole = energy.sum(axis=1)
        left = np.einsum("pi,pij,pj->p", signs, products, signs)
        has_sound = whole > MIN_CHANNEL_ENERGY
        alone = self._turned(
            "all", (left < CANCELLED_ENERGY_SHARE * whole) & has_sound, (left < whole / 2) | ~has_sound
        )
        if alone.any():
            weights[alone] = 0
            weights[alone, energy[alone].sum(axis=0).argmax()] = 1

    def _turned(self, key: object, cancels: Flags, opposed: Flags) -> Flags:
        """The pieces of those runs of `opposed` that have enough pieces that cancel."""
        turned = np.zeros(cancels.size, bool)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], opposed | cancels, [False])).astype(np.int8)))
        trailing = self._trailing.pop(key, 0)
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            count = int(cancels[begin:end].sum()) + (trailing if begin == 0 else 0)
            turned[begin:end] = count >= CANCELLED_PIECES
            if end == cancels.size and count:
                self._trailing[key] = count
        return turned


def _pairs(products: NDArray[np.float32]) -> tuple[NDArray[np.float32], Flags, Flags]:
    """Of each piece: the energy of its channels; whether two are opposed, or silent; whether the two cancel."""
    energy = products.diagonal(axis1=1, axis2=2)
    both = energy[:, :, None] + energy[:, None, :]
    has_sound = both > MIN_CHANNEL_ENERGY
    return energy, (products < 0) | ~has_sound, (both + 2 * products < CANCELLED_ENERGY_SHARE * both) & has_sound


def _any_cancels(products: NDArray[np.float32]) -> bool:
    energy, _, cancels = _pairs(products)
    whole = energy.sum(axis=1)
    together = (products.sum(axis=(1, 2)) < CANCELLED_ENERGY_SHARE * whole) & (whole > MIN_CHANNEL_ENERGY)
    return bool(cancels.any() or together.any())


def _products(block: Block, step: int, piece: int, every: int = 1) -> NDArray[np.float32]:
    """The products of each two channels, summed over the first half of every `every`-th piece.

    Shape (pieces, channels, channels).
    Some pieces at a time: arrays that a processor's cache does not hold, and that malloc gets from the kernel anew,
    take several times as long.
    """
    frames, channels = block.shape
    whole, length = max(1, frames // piece), min(frames, piece)
    judged = (piece // 2 if length == piece else length) // step  # samples at about 8 kHz
    if judged < 2:
        return np.zeros((-(-whole // every), channels, channels), np.float32)
    pieces = block[: whole * length].reshape(whole, length, channels)[::every, : judged * step]
    sums = _means_of(step, channels)
    at_once = max(1, _CACHED_SAMPLES // (judged * step * channels))
    found = []
    for first in range(0, len(pieces), at_once):
        part = pieces[first : first + at_once]
        lower = part.reshape(len(part), judged, step * channels) @ sums
        change = lower[:, 1:] - lower[:, :-1]
        found.append(change.transpose(0, 2, 1) @ change)
    return np.concatenate(found)


@functools.cache  # a block takes longer to make it than to multiply with it
def _means_of(step: int, channels: int) -> NDArray[np.float32]:
    """Multiplied with `step` samples of all channels, shape (step * channels,), gives each channel's mean."""
    return np.tile(np.eye(channels, dtype=np.float32) / np.float32(step), (step, 1))


def _runs_of_equal(weights: NDArray[np.float32]) -> list[tuple[int, int]]:
    """[first, last) of the runs of equal rows."""
    cuts = np.flatnonzero((weights[1:] != weights[:-1]).any(axis=1)) + 1
    return list(zip([0, *cuts.tolist()], [*cuts.tolist(), len(weights)], strict=True))
