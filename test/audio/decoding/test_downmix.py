"""Channels that cancel each other out are noticed piece by piece; everything else stays the mean, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tones import tone
from written_files import RATE, Sound, at_rate, encoded, plain, words

from backend.audio.decoding.decode import decode
from backend.audio.decoding.downmix import Downmix
from backend.audio.waveform import Decoded, Flaw

WORDS = words()
SILENCE = WORDS * 0
FIRST, SECOND = WORDS.copy(), WORDS.copy()  # two speakers, one after the other
FIRST[3 * RATE :], SECOND[: 3 * RATE] = 0, 0


def noise(below_db: float, seed: int = 1) -> Sound:
    level = np.sqrt(np.mean(WORDS**2)) * 10 ** (-below_db / 20)
    return (np.random.default_rng(seed).normal(size=WORDS.size) * level).astype(np.float32)


def channels(*sounds: Sound) -> Sound:
    return np.stack(sounds, axis=1)


def decoded(path: Path, content: bytes) -> Decoded:
    path.write_bytes(content)
    return decode(str(path), max_seconds=60)


INVERTED = {
    "all of it": channels(WORDS, -WORDS),
    "at another level": channels(WORDS, -0.7 * WORDS),
    "one of two speakers": channels(FIRST + SECOND, FIRST - SECOND),
    "one of two, in noise": channels(FIRST + SECOND + noise(15), FIRST - SECOND + noise(15, 2)),
    "in noise that both share": channels(WORDS + noise(20), -WORDS + noise(20)),
}
SURROUND: dict[str, tuple[Sound, Sound]] = {
    "surround pair": (channels(SILENCE, SILENCE, SILENCE, SILENCE, WORDS, -WORDS), WORDS / 3),
    "front pair": (channels(WORDS, -WORDS, SILENCE, SILENCE, SILENCE, SILENCE), WORDS / 3),
    "both pairs": (channels(WORDS, -WORDS, SILENCE, SILENCE, WORDS, -WORDS), WORDS * 2 / 3),
    "one speaker in front, one in a pair": (
        channels(SILENCE, SILENCE, FIRST, SILENCE, SECOND, -SECOND), FIRST / 6 + SECOND / 3,
    ),
    "three that cancel together": (channels(WORDS, -WORDS / 2, -WORDS / 2, SILENCE, SILENCE, SILENCE), WORDS),
}  # fmt: skip


@pytest.mark.parametrize("name", INVERTED)
@pytest.mark.parametrize(("container", "codec", "rate"), [("WAV", "FLOAT", RATE), ("OGG", "OPUS", 48_000)])
def test_an_inverted_channel_is_turned_over_where_it_is_inverted(tmp_path, name, container, codec, rate) -> None:
    found = decoded(tmp_path / "a", plain(INVERTED[name], rate, container, codec))
    assert found.flaws == Flaw.CANCELLED
    loud = np.abs(WORDS) > 0.05  # in every part of the words, not on average
    for begin in range(0, WORDS.size, RATE // 4):
        part = slice(begin, begin + RATE // 4)
        if loud[part].sum() > 100:
            share = np.abs(found.samples[part][loud[part]]).mean() / np.abs(WORDS[part][loud[part]]).mean()
            assert share > 0.6, begin / RATE


@pytest.mark.parametrize("name", SURROUND)
def test_pairs_of_a_surround_recording_are_turned_over(tmp_path, name: str) -> None:
    sound, expected = SURROUND[name]
    found = decoded(tmp_path / "a", plain(sound, codec="FLOAT"))
    assert found.flaws == Flaw.CANCELLED
    difference = np.abs(found.samples - expected)
    assert difference.max() < 0.2 * np.abs(expected).max()
    assert difference.mean() < 0.02 * np.abs(expected).mean()


def test_surround_through_a_lossy_codec_is_turned_over(tmp_path) -> None:
    for container, codec, rate in (("ipod", "aac", RATE), ("ac3", "ac3", 48_000)):
        found = decoded(tmp_path / "a", encoded(container, [SURROUND["surround pair"][0]], codec, rate=rate))
        assert found.flaws == Flaw.CANCELLED
        assert np.abs(found.samples).mean() == pytest.approx(np.abs(WORDS).mean() / 3, rel=0.1)


def spaced(sound: Sound, milliseconds: float) -> Sound:
    """Two microphones at a distance."""
    late = max(1, round(RATE * milliseconds / 1000))
    return channels(sound, np.concatenate([np.zeros(late, np.float32), sound[:-late]]))


def reverberant(sound: Sound, seconds: float) -> Sound:
    """Each channel has its own reflections, and no direct sound."""
    chance, length = np.random.default_rng(1), round(seconds * RATE)
    decay = 10 ** (-3 * np.arange(length) / length)
    heard = [np.convolve(sound, chance.normal(size=length) * decay)[: sound.size] for _ in range(2)]
    return (channels(*[each.astype(np.float32) for each in heard]) / np.abs(heard).max()).astype(np.float32)


ORDINARY = {
    "mono in both": channels(WORDS, WORDS),
    "left only": channels(WORDS, SILENCE),
    "panned": channels(WORDS, 0.3 * WORDS),
    "partly inverted": channels(WORDS, -0.3 * WORDS),
    "noise of its own": channels(WORDS + noise(0), WORDS + noise(0, 2)),
    "nothing in common": channels(noise(0), noise(0, 2)),
    "pseudo stereo": channels(WORDS + 0.8 * spaced(WORDS, 15)[:, 1], WORDS - 0.8 * spaced(WORDS, 15)[:, 1]),
    "reverberant": reverberant(WORDS, 0.3),
    **{f"{ms} ms apart": spaced(WORDS, ms) for ms in (0.1, 0.5, 1, 2, 4, 8)},
    "5.1": channels(WORDS, WORDS, WORDS, SILENCE, noise(10), noise(10, 2)),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_channels_stay_their_mean_bit_by_bit(tmp_path, name: str) -> None:
    sound = ORDINARY[name]
    found = decoded(tmp_path / "a", plain(sound, codec="FLOAT"))
    assert found.flaws == Flaw.NONE
    mean = sound @ np.full(sound.shape[1], 1 / sound.shape[1], np.float32)
    if sound.shape[1] == 2:
        np.testing.assert_array_equal(found.samples, mean / max(1, np.abs(mean).max()))
    np.testing.assert_allclose(found.samples, mean / max(1, np.abs(mean).max()), atol=1e-7)  # products of any length


def mixed(sound: NDArray[np.float32], block: int) -> tuple[Sound, float]:
    downmix = Downmix()
    parts = [downmix.mix(sound[at : at + block], RATE) for at in range(0, len(sound), block)]
    return np.concatenate(parts), downmix.cancelled_s


def test_no_block_is_too_short_to_be_judged() -> None:
    whole, _ = mixed(INVERTED["one of two speakers"], WORDS.size)
    for block in (160, 512, 1000, 20_000):
        found, cancelled_s = mixed(INVERTED["one of two speakers"], block)
        assert cancelled_s > 1
        assert np.abs(found).mean() == pytest.approx(np.abs(whole).mean(), rel=0.1)


def test_huge_samples_are_no_fault_of_the_judgement() -> None:
    sound = np.repeat(tone(), 2, axis=1) * np.float32(1e30) * np.array([1, -1], np.float32)
    with np.errstate(all="raise"):
        found, _ = mixed(sound, 10_000)
    assert found.size == len(sound)


def test_the_store_gets_all_channels_at_any_rate(tmp_path) -> None:
    sound = at_rate(channels(WORDS, -WORDS), 192_000)
    found = decoded(tmp_path / "a", plain(channels(WORDS, -WORDS), 192_000, codec="FLOAT"))
    assert found.samples.size == pytest.approx(len(sound) / 12, abs=1)
    assert np.abs(found.samples).mean() == pytest.approx(np.abs(WORDS).mean(), rel=0.05)
