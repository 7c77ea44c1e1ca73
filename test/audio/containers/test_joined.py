"""Complete files that were joined byte by byte are read whole, whatever their formats."""

from __future__ import annotations

import numpy as np
import pytest
from written_files import RATE, encoded, id3, plain, words

from backend.audio.waveform import Flaw

WORDS = words()
STEREO = np.stack([WORDS, WORDS], axis=1)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}
MP3 = plain(WORDS, container="MP3", codec="MPEG_LAYER_III")

PAIRS = {
    "wav": (plain(WORDS), plain(WORDS)),
    "wav, 48 kHz stereo float": (plain(WORDS), plain(STEREO, 48_000, codec="FLOAT")),
    "wav, A-law": (plain(WORDS), plain(WORDS, 8_000, codec="ALAW")),
    "wav and mp3": (plain(WORDS), MP3),
    "wav and ogg": (plain(WORDS), plain(WORDS, container="OGG", codec="OPUS")),
    "aiff": (plain(WORDS, container="AIFF"), plain(WORDS, 8_000, "AIFF")),
    "caf": (plain(WORDS, container="CAF"), plain(WORDS, 48_000, "CAF")),
    "au": (plain(WORDS, container="AU"), plain(WORDS, 8_000, "AU")),
    "w64": (plain(WORDS, container="W64"), plain(WORDS, container="W64")),
    "rf64": (plain(WORDS, container="RF64"), plain(WORDS, container="RF64")),
    "flac, stereo": (plain(WORDS, container="FLAC"), plain(STEREO, 48_000, "FLAC")),
    "mp3": (MP3, plain(WORDS, 44_100, "MP3", "MPEG_LAYER_III")),
    "mp3, tagged": (MP3, id3(60_000) + MP3),
    "vorbis, other rate": (plain(WORDS, 44_100, "OGG", "VORBIS"), plain(WORDS, 22_050, "OGG", "VORBIS")),
    "vorbis and opus": (plain(WORDS, 44_100, "OGG", "VORBIS"), plain(WORDS, 48_000, "OGG", "OPUS")),
    "ogg flac and opus": (encoded("ogg", [WORDS], "flac"), plain(WORDS, 48_000, "OGG", "OPUS")),
    "adts": (encoded("adts", [WORDS]), encoded("adts", [WORDS], rate=44_100)),
    "m4a": (encoded("ipod", [WORDS]), encoded("ipod", [WORDS], "alac")),
    "mp4 of fragments": (encoded("mp4", [WORDS], options=FRAGMENTS), encoded("mp4", [WORDS], options=FRAGMENTS)),
    "matroska": (encoded("matroska", [WORDS]), encoded("matroska", [WORDS], "libopus")),
    "webm of a browser": (encoded("webm", [WORDS], "libopus", options={"live": "1"}),) * 2,
    "avi": (encoded("avi", [WORDS], "pcm_s16le"), encoded("avi", [WORDS], "mp2")),
    "wma": (encoded("asf", [WORDS], "wmav2"), encoded("asf", [WORDS], "wmav2")),
    "amr": (encoded("amr", [WORDS], "libopencore_amrnb"), encoded("amr", [WORDS], "libopencore_amrnb")),
    "flv": (encoded("flv", [WORDS], rate=44_100), encoded("flv", [WORDS], rate=44_100)),
    "m4a and wav": (encoded("ipod", [WORDS]), plain(WORDS)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_joined_files_are_read_whole_and_without_a_warning(decoded, name: str) -> None:
    first, second = PAIRS[name]
    found = decoded(first + second)
    alone = [decoded(content) for content in (first, second)]
    assert found.duration_s == pytest.approx(sum(part.duration_s for part in alone), abs=0.01)
    assert found.flaws == Flaw.NONE
    for at, part in zip((0, alone[0].samples.size), alone, strict=True):
        loudness = np.abs(found.samples[at : at + part.samples.size]).mean()
        assert loudness == pytest.approx(np.abs(part.samples).mean(), rel=0.05)


def test_many_joined_files_are_one_recording(decoded) -> None:
    short = words(2.0)
    assert decoded(plain(short) * 40).duration_s == pytest.approx(80)
    assert decoded(plain(short, container="OGG", codec="OPUS") * 20).duration_s == pytest.approx(40, abs=0.05)


@pytest.mark.parametrize(
    "content",
    [
        encoded("ipod", [WORDS]),
        plain(WORDS, container="AIFF"),
        plain(WORDS, container="CAF"),
        plain(WORDS, container="FLAC"),
        plain(WORDS, container="OGG", codec="VORBIS"),
        encoded("avi", [WORDS]),
        encoded("matroska", [WORDS]),
        encoded("webm", [WORDS], "libopus", options={"live": "1"}),
        encoded("mpegts", [WORDS]),
        encoded("flv", [WORDS], rate=44_100),
        encoded("mpeg", [WORDS], "mp2"),
    ],
)
def test_much_more_file_than_its_headers_account_for_is_reported(decoded, content: bytes) -> None:
    found = decoded(content + np.random.default_rng(1).bytes(60_000))
    assert found.flaws == Flaw.UNREAD
    assert found.duration_s == pytest.approx(6, abs=0.1)
    assert decoded(content).flaws == Flaw.NONE
    assert decoded(content + b"TAG" + b"x" * 125).flaws == Flaw.NONE


def test_zeros_behind_the_sound_are_nothing(decoded) -> None:
    for content in (encoded("ipod", [WORDS]), plain(WORDS), plain(WORDS, container="FLAC"), encoded("avi", [WORDS])):
        found = decoded(content + bytes(60_000))
        assert (found.duration_s, found.flaws) == (pytest.approx(6, abs=0.1), Flaw.NONE)


def test_sound_of_a_film_that_no_track_has_is_reported(decoded) -> None:
    """As a recorder leaves it whose list of samples was not brought up to date."""
    m4a = encoded("ipod", [WORDS])
    at = m4a.index(b"mdat") - 4
    lost = np.random.default_rng(2).bytes(60_000)
    size = int.from_bytes(m4a[at : at + 4], "big")
    grown = m4a[:at] + (size + len(lost)).to_bytes(4, "big") + m4a[at + 4 : at + size] + lost + m4a[at + size :]
    assert decoded(grown).flaws == Flaw.UNREAD


def test_a_part_without_sound_costs_only_itself(decoded) -> None:
    found = decoded(plain(WORDS) + b"fLaC\0\0\0\x22" + bytes(50_000) + plain(WORDS))
    assert found.duration_s >= 6
    assert found.flaws & (Flaw.UNREAD | Flaw.TRUNCATED)


def test_joined_samples_are_the_samples(decoded) -> None:
    found = decoded(plain(WORDS, codec="FLOAT") * 2)
    np.testing.assert_array_equal(found.samples, np.concatenate([WORDS, WORDS]))
    assert found.samples.size == 12 * RATE
