"""Ogg sound lies where its page positions put it; damage in the middle of Ogg and WebM is silence and a warning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tones import sounding, tone
from written_files import damaged, encoded, ogg_pages, plain, with_edits, with_gap, words

from backend.audio.decoding.decode import decode
from backend.audio.waveform import Decoded, Flaw

WORDS = np.concatenate([words(), words()])
HISS = np.random.default_rng(1).normal(size=96_000).astype(np.float32)
TONE = tone(seconds=6.0)[:, 0] + HISS / 50  # fills several pages of Vorbis, too


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[[bytes], Decoded]:
    def decode_bytes(content: bytes) -> Decoded:
        (tmp_path / "upload").write_bytes(content)
        return decode(str(tmp_path / "upload"), max_seconds=20_000)

    return decode_bytes


def oggs(sound: np.ndarray) -> dict[str, tuple[bytes, int]]:
    """Ogg files, each with the rate of its positions."""
    short = {"page_duration": "200000"}
    return {
        "opus": (encoded("ogg", [sound], "libopus", options=short), 48_000),
        "opus of libsndfile": (plain(sound, 48_000, "OGG", "OPUS"), 48_000),
        "vorbis": (plain(sound, 44_100, "OGG", "VORBIS"), 44_100),
        "flac": (encoded("ogg", [sound], "flac", options=short), 16_000),
    }


OGGS, TONES = oggs(WORDS), oggs(TONE)


@pytest.mark.parametrize("name", OGGS)
def test_a_gap_in_the_positions_is_silence(decoded, name: str) -> None:
    ogg, rate = TONES[name]
    half = len(list(ogg_pages(ogg))) // 2
    found = decoded(with_gap(ogg, half, 2 * rate))
    assert (found.duration_s, found.flaws) == (pytest.approx(8, abs=0.05), Flaw.NONE)
    (_, paused), (resumed, _) = sounding(found)
    assert resumed - paused == pytest.approx(2, abs=0.11)
    assert decoded(with_gap(ogg, half, rate // 10)).duration_s == pytest.approx(6, abs=0.05)  # rounding


@pytest.mark.parametrize("name", OGGS)
def test_positions_that_begin_late_are_no_silence(decoded, name: str) -> None:
    ogg, rate = OGGS[name]
    found = decoded(with_gap(ogg, 0, 100 * rate))
    assert (found.duration_s, found.flaws) == (pytest.approx(12, abs=0.05), Flaw.NONE)


@pytest.mark.parametrize("name", OGGS)
def test_pages_that_are_missing_or_damaged_are_silence_and_a_warning(decoded, name: str) -> None:
    ogg, _ = OGGS[name]
    pages = list(ogg_pages(ogg))
    half = len(pages) // 2
    for content in (b"".join(pages[:half] + pages[half + 4 :]), damaged(ogg, 0.5, 1500)):
        found = decoded(content)
        assert (found.duration_s, found.flaws) == (pytest.approx(12, abs=0.05), Flaw.TRUNCATED)
        end = slice(-16_000, None)  # what follows is in its place
        assert np.corrcoef(found.samples[:192_000][end], WORDS[end])[0, 1] > 0.8


@pytest.mark.parametrize("codec", ["flac", "libopus"])
def test_late_sound_of_an_ogg_film_keeps_its_offset(decoded, codec: str) -> None:
    rate = {"flac": 44_100}.get(codec, 0)
    found = decoded(encoded("ogg", [TONE], codec, rate=rate, late_s=1.5, picture="vp8"))
    assert (found.duration_s, found.flaws) == (pytest.approx(7.5, abs=0.05), Flaw.NONE)
    assert sounding(found) == [pytest.approx((1.5, 7.5), abs=0.11)]


@pytest.mark.parametrize("options", [{"cluster_time_limit": "1000"}, {"live": "1"}], ids=["file", "browser"])
@pytest.mark.parametrize("at", [0.3, 0.5, 0.77])
def test_damage_in_a_webm_is_silence_and_a_warning(decoded, options: dict[str, str], at: float) -> None:
    webm = encoded("webm", [WORDS], "libopus", options=options)
    assert decoded(webm).flaws == Flaw.NONE
    cut = int(len(webm) * at)
    for content in (damaged(webm, at, 1500), webm[:cut] + webm[cut + 1500 :]):
        found = decoded(content)
        assert (found.duration_s, found.flaws) == (pytest.approx(12, abs=0.05), Flaw.TRUNCATED)


M4A = encoded("ipod", [TONE])  # 1024 samples of priming come before its sound


@pytest.mark.parametrize(
    ("edits", "spans"),
    [
        ([(6000, 1024)], [(0, 6)]),
        ([(5000, -1), (6000, 0)], [(5.05, 11)]),
        ([(5000, -1), (6000, 1024)], [(5, 11)]),
        ([(2000, -1), (3000, -1), (6000, 1024)], [(5, 11)]),
        ([(7_200_000, -1), (6000, 1024)], [(7200, 7206)]),
        ([(2000, 1024), (4000, 1024 + 32_000)], [(0, 6)]),
        ([(2000, 1024), (3000, -1), (4000, 1024 + 32_000)], [(0, 2), (5, 9)]),
        ([(1000, -1), (2000, 1024), (3000, -1), (4000, 1024 + 32_000)], [(1, 3), (6, 10)]),
        ([(2000, 1024), (2000, 1024 + 64_000)], [(0, 4)]),
    ],
)
def test_edits_say_where_the_sound_of_an_m4a_is(decoded, edits: list, spans: list) -> None:
    found = decoded(with_edits(M4A, *edits))
    assert sounding(found) == [pytest.approx(span, abs=0.13) for span in spans]
    assert found.duration_s == pytest.approx(spans[-1][1], abs=0.1)


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2", "libmp3lame"])
def test_the_start_that_an_avi_states_is_silence(decoded, codec: str) -> None:
    avi = bytearray(encoded("avi", [TONE], codec, picture="mpeg4"))
    at = avi.index(b"auds")
    scale, rate = (int.from_bytes(avi[at + offset : at + offset + 4], "little") for offset in (20, 24))
    avi[at + 28 : at + 32] = int(1.5 * rate / scale).to_bytes(4, "little")
    found = decoded(bytes(avi))
    assert (found.duration_s, found.flaws) == (pytest.approx(7.5, abs=0.1), Flaw.NONE)
    assert sounding(found) == [pytest.approx((1.5, 7.5), abs=0.15)]
