"""What precedes the sound is passed over; the list of containers and the list of codecs agree."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
import soundfile
from av.format import formats_available
from written_files import encoded, id3, packets_of, plain, words

from backend.audio.containers.formats import CODECS, PLAIN_CODECS
from backend.audio.containers.mpeg_frames import ADTS, MP3
from backend.audio.containers.signatures import _MPEG_TS, _SIGNATURES
from backend.audio.waveform import Flaw

WORDS = words()
TAGGED = {
    "wav": plain(WORDS), "aiff": plain(WORDS, container="AIFF"), "flac": plain(WORDS, container="FLAC"),
    "ogg": plain(WORDS, 44_100, "OGG", "VORBIS"), "opus": plain(WORDS, 48_000, "OGG", "OPUS"),
    "mp3": plain(WORDS, container="MP3", codec="MPEG_LAYER_III"), "aac": encoded("adts", [WORDS]),
    "m4a": encoded("ipod", [WORDS]), "wavpack": encoded("wv", [WORDS], "wavpack"),
}  # fmt: skip
BEFORE = {
    "a tag": id3(1000),
    "a tag with a footer": id3(1000, footer=True),
    "zeros behind the tag": id3(100) + bytes(20_000),
    "three tags": id3(1000) + id3(10) + id3(300, footer=True),
    "zeros between tags": id3(1000) + bytes(500) + id3(10) + bytes(60_000),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", TAGGED)
def test_tags_and_zeros_before_the_sound_are_passed_over(decoded, name: str, before: str) -> None:
    found, alone = decoded(BEFORE[before] + TAGGED[name]), decoded(TAGGED[name])
    assert (found.duration_s, found.flaws) == (pytest.approx(alone.duration_s, abs=0.03), Flaw.NONE)


@pytest.mark.parametrize("zeros", [1, 2, 3, 4, 100, 60_000])
def test_zeros_before_the_sound_are_passed_over(decoded, zeros: int) -> None:
    for content in (plain(WORDS), TAGGED["mp3"], TAGGED["m4a"]):
        assert decoded(bytes(zeros) + content).duration_s == pytest.approx(6, abs=0.1)


TS = encoded("mpegts", [WORDS])


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 16)], ids=["188", "192", "204"])
@pytest.mark.parametrize("begin", [0, 1, 4, 5, 100, 187, 191])
def test_a_transport_stream_of_any_packet_size_may_begin_inside_a_packet(decoded, before, after, begin) -> None:
    found = decoded(packets_of(TS, before, after)[begin:])
    assert (found.duration_s, found.flaws) == (pytest.approx(6.05, abs=0.08), Flaw.NONE)


@pytest.mark.parametrize(("tag", "frame_bytes", "frame_s"), [(0x42, 24, 0.03), (0x83, 10, 0.01)])
def test_older_telephone_codecs_are_read(decoded, tag: int, frame_bytes: int, frame_s: float) -> None:
    """G.723.1 and G.729: any bits are sound, so a few frames stand here without an encoder."""
    frames = np.random.default_rng(1).integers(0, 256, (50, frame_bytes), np.uint8)
    frames[:, 0] &= 0xFC  # the rate of a G.723.1 frame: 6.3 kbit/s
    wave = struct.pack("<HHIIHHH", tag, 1, 8000, round(frame_bytes / frame_s), frame_bytes, 0, 0)
    sound = frames.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(wave)) + wave + b"data" + struct.pack("<I", len(sound)) + sound
    found = decoded(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert found.duration_s == pytest.approx(50 * frame_s)
    assert np.abs(found.samples).max() > 0


def test_mxf_is_read_and_reported_where_it_ends_early(decoded) -> None:
    mxf = encoded("mxf_opatom", [WORDS], "pcm_s16le", rate=48_000)
    found = decoded(mxf)
    assert (found.duration_s, found.flaws) == (pytest.approx(6, abs=0.05), Flaw.NONE)
    assert decoded(mxf[: len(mxf) // 2]).flaws == Flaw.TRUNCATED
    film = encoded("mxf", [WORDS * 0, WORDS], "pcm_s24le", rate=48_000, picture="mpeg2video")
    assert (decoded(film).tracks, np.abs(decoded(film, attempt=1).samples).max() > 0.1) == (2, True)


# Which containers carry a codec, by the demuxers of the one list and the decoders of the other.
CARRIED = {
    "wav": "adpcm_g726 adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha g722 g723_1 g729 gsm_ms truespeech mp2 mp3"
    " pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le pcm_s32le pcm_u8 ac3 g726",
    "w64": "pcm_s16le", "aiff": "pcm_s16be pcm_s24be pcm_f32be pcm_f64be pcm_s8", "caf": "ilbc pcm_s32be alac",
    "au": "g722 g726 g726le adpcm_g726le pcm_mulaw", "nistsphere": "pcm_mulaw", "flac": "flac",
    "ogg": "opus libopus vorbis libvorbis speex libspeex flac",
    "mov": "aac alac adpcm_ima_qt qdm2 gsm pcm_s16be_planar pcm_s16le_planar pcm_s24le_planar pcm_s32le_planar"
    " pcm_s8_planar amrnb amrwb libopencore_amrnb libopencore_amrwb dca pcm_s16be",
    "matroska": "tta wavpack truehd mlp mp1 mp1float mp2float mp3float vorbis opus",
    "asf": "wmalossless wmapro wmav1 wmav2 wmavoice", "mxf": "pcm_s16le pcm_s24le", "avi": "mp3 ac3",
    "amr": "amrnb amrwb", "ilbc": "ilbc", "wv": "wavpack", "tta": "tta", "flv": "nellymoser speex aac",
    "mpeg": "mp2 pcm_dvd ac3", "mpegts": "aac_latm s302m pcm_bluray eac3 dca", "dts": "dca", "truehd": "truehd",
    "mlp": "mlp", "ac3": "ac3", "eac3": "eac3", "mp3": "mp3 mp2 mp1", "aac": "aac",
}  # fmt: skip


def test_the_lists_of_containers_and_of_codecs_agree() -> None:
    """Every container has a codec on the list, every codec a container; FFmpeg and libsndfile know them."""
    containers = {container.demuxer for _, container in _SIGNATURES} | {_MPEG_TS.demuxer, MP3.demuxer, ADTS.demuxer}
    codecs = set(CODECS.split(","))
    assert containers == set(CARRIED)
    assert codecs == {codec for carried in CARRIED.values() for codec in carried.split()}
    assert containers <= formats_available
    foreign = {"libspeex", "libvorbis"}  # other builds of FFmpeg have these decoders in place of its own
    assert {codec for codec in codecs if not _has_decoder(codec)} <= foreign
    assert set(PLAIN_CODECS.split()) <= set(soundfile.available_subtypes())


def _has_decoder(codec: str) -> bool:
    try:
        av.Codec(codec, "r")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
