"""An open file becomes mono float32 at 16 kHz, or UndecodableAudio with one of the causes in audio/causes.

- Foreign code in C does the work, so the backend runs this in a child process only (audio/child, behind audio/guard).
- Only the descriptor is read. No other file is opened, whatever it asks for.
- The content decides what it is (audio/formats): libsndfile reads what is plain, FFmpeg's libraries (PyAV) the rest.
- Headers are not believed. Seconds are counted while they are decoded, and each block is mixed down, resampled and
  written out before the next is read: memory holds one block.
- What was decoded before a file breaks off is kept, and `truncated` says so.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from backend.audio.causes import (
    BAD_RATE,
    DAMAGED,
    NO_SAMPLES,
    NO_SOUND_TRACK,
    NOT_FINITE,
    TOO_LONG,
    TOO_MANY_CHANNELS,
    UNKNOWN_CODEC,
    UNKNOWN_FORMAT,
)
from backend.audio.formats import CODECS, PLAIN_CODECS, Format, is_cut_short, sniff
from backend.audio.handover import DECODED, Answer, new_store, taken, write
from backend.audio.opening import opened
from backend.audio.waveform import SAMPLE_RATE, Decoded, Samples
from backend.errors import UndecodableAudio

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_RATES = range(4_000, 768_001)  # below, 64 KB of file become gigabytes of sound; above, nothing records
_MOST_CHANNELS = 32
_BLOCK = 1 << 18  # samples of all channels together, 1 MiB as float32
_LARGEST_PACKET = 1 << 24  # bytes; compressed packets have a few thousand, PCM in MOV and Matroska up to a second's
# What PyAV raises beside its own errors: unreadable bytes, a strange tag. One of its own means: out of memory; damaged
# headers ask for any amount.
_DAMAGE = (OSError, ValueError)
_SLACK_S = 0.2  # a header's duration may count what decoders drop: an encoder's delay, and padding


def decode_open(fd: int, store: int, max_seconds: float) -> Answer:
    """Write the sound of the file `fd` to `store`; UndecodableAudio if there is none, or more than `max_seconds`."""
    container = sniff(fd)
    if container is None:
        raise UndecodableAudio(UNKNOWN_FORMAT)
    recording = _Recording(store, max_seconds)
    whole = container.plain and _read_plain(fd, recording)
    if not recording.frames:
        whole = _read_any(fd, container, recording)
    if not recording.frames:
        raise UndecodableAudio(NO_SAMPLES if whole else DAMAGED)
    truncated = not whole or is_cut_short(fd, container, os.fstat(fd).st_size)
    return Answer(DECODED, truncated, recording.finished(), recording.duration_s)


def decode(path: str, *, max_seconds: float) -> Decoded:
    """The recording in the file `path`, decoded in this very process: for evaluation and tests, never for a request."""
    with opened(path) as fd, new_store() as store:
        answer = decode_open(fd, store, max_seconds)
        return Decoded(taken(store, answer, max_seconds), answer.duration_s, answer.truncated)


class _Recording:
    """What has been decoded so far, mixed down and resampled; refuses what no recording is, as soon as it shows."""

    def __init__(self, store: int, max_seconds: float) -> None:
        self.frames = 0
        self._max_seconds = max_seconds
        self._store = store
        self._kept = 0  # samples in the store
        self._peak = 0.0
        self._rate = 0
        self._rate_since = 0  # the first frame at this rate
        self._earlier_s = 0.0  # what lasted before it
        self._resampler: soxr.ResampleStream | None = None

    @property
    def duration_s(self) -> float:
        return self._earlier_s + ((self.frames - self._rate_since) / self._rate if self._rate else 0.0)

    def add(self, block: NDArray[np.float32], rate: int) -> None:
        """More sound, shape (frames, channels), frames >= 1."""
        frames, channels = block.shape
        if rate != self._rate:  # at the start, and where joined OGG or ADTS files change it
            self._begin(rate)
        if channels > _MOST_CHANNELS:
            raise UndecodableAudio(TOO_MANY_CHANNELS)
        self.frames += frames
        if self.duration_s > self._max_seconds:
            raise UndecodableAudio(TOO_LONG)
        if not np.isfinite(block).all():
            raise UndecodableAudio(NOT_FINITE)
        mono = block[:, 0] if channels == 1 else block @ np.full(channels, 1 / channels, np.float32)
        self._keep(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def finished(self) -> int:
        """The number of samples in the store, all within [-1, 1] now."""
        self._begin(SAMPLE_RATE)  # flushes the resampler
        if not self._kept:  # a sample or two at a high rate round to none
            self._keep(np.zeros(1, np.float32))
        if self._peak > 1:
            size = self._kept * np.dtype(np.float32).itemsize
            for begin in range(0, size, 4 * _BLOCK):
                loud = np.frombuffer(os.pread(self._store, 4 * _BLOCK, begin), np.float32)
                write(self._store, loud / np.float32(self._peak), begin)
        return self._kept

    def _begin(self, rate: int) -> None:
        if rate not in _RATES:
            raise UndecodableAudio(BAD_RATE)
        self._earlier_s, self._rate_since = self.duration_s, self.frames
        if self._resampler is not None:
            self._keep(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        # HQ is what the model's own loader resamples with (librosa's soxr_hq); out come round(n * 16000 / rate) samples
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
        self._rate = rate

    def _keep(self, mono: Samples) -> None:
        if not mono.size:
            return
        highest, lowest = float(mono.max()), float(mono.min())
        if not math.isfinite(highest - lowest):  # finite samples near the end of float32's range can add up to more
            raise UndecodableAudio(NOT_FINITE)
        self._peak = max(self._peak, highest, -lowest)
        write(self._store, mono, self._kept * mono.itemsize)
        self._kept += mono.size


def _read_plain(fd: int, recording: _Recording) -> bool:
    """By libsndfile, 10 s of WAV in about a millisecond. True if all is there; adds nothing if it cannot."""
    os.lseek(fd, 0, os.SEEK_SET)
    with contextlib.suppress(soundfile.SoundFileError), soundfile.SoundFile(fd, closefd=False) as file:
        if file.subtype not in PLAIN_CODECS.split():
            return False
        while (block := file.read(max(_BLOCK // file.channels, 1), "float32", always_2d=True)).size:
            recording.add(block, file.samplerate)
        return bool(recording.frames == file.frames)
    return False


def _read_any(fd: int, container: Format, recording: _Recording) -> bool:
    """By FFmpeg's libraries. True if nothing was damaged or missing on the way."""
    import av  # 0.2 s that a process pays once, and not for a WAV

    os.lseek(fd, 0, os.SEEK_SET)
    try:
        media = av.open(
            _Source(fd, closefd=False),
            mode="r",
            format=container.demuxer,  # never probed: a probe would find playlists
            io_open=_open_nothing,
            metadata_errors="replace",  # a tag in an old encoding is no reason to refuse the sound
            container_options={
                "format_whitelist": container.demuxer,
                "protocol_whitelist": "none",
                "codec_whitelist": CODECS,
                "enable_drefs": "0",
                "use_absolute_path": "0",
            },
        )
    except (av.FFmpegError, *_DAMAGE):
        raise UndecodableAudio(DAMAGED) from None
    with media:
        track = _sound_track(media)
        whole = _read_track(media, track, recording)
        stated_s = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
        return whole and not (container.tells_duration and recording.duration_s < stated_s - _SLACK_S)


class _Source(io.FileIO):
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Damaged files send FFmpeg to before their start. It takes -1 for a no; PyAV loses track of exceptions."""
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> Any:
    """FFmpeg asks here for every file but the first. There is none."""
    raise PermissionError


def _sound_track(media: InputContainer) -> AudioStream:
    """The first sound track that has a known codec."""
    if not media.streams.audio:
        raise UndecodableAudio(NO_SOUND_TRACK)
    for track in media.streams.audio:
        # PyAV leaves codec_context out where FFmpeg has no decoder, whatever its types say
        if getattr(track.codec_context, "name", None) in CODECS.split(","):
            return track
    raise UndecodableAudio(UNKNOWN_CODEC)


def _read_track(media: InputContainer, track: AudioStream, recording: _Recording) -> bool:
    """Adds the track's sound. A packet that cannot be decoded is left out; False if there was one.

    Frames become packed float32 before to_ndarray(): PyAV 18.1 reads past the planes of a frame with 8 planar channels
    (AAC 7.1) and crashes the process; a packed frame has one plane.
    """
    import av

    track.codec_context.thread_count = 1  # a thread's stack counts against the child's memory, and none is faster
    whole = True
    packer, packs = av.AudioResampler(format="flt"), None
    try:
        for packet in media.demux(track):
            if packet.size > _LARGEST_PACKET:
                raise UndecodableAudio(DAMAGED)
            try:
                frames = packet.decode()
            except (av.FFmpegError, *_DAMAGE):
                whole = False
                continue
            for frame in frames:
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                if kind != packs:
                    packer, packs = av.AudioResampler(format="flt"), kind
                for packed in packer.resample(frame):
                    sound = np.asarray(packed.to_ndarray(), np.float32)
                    recording.add(sound.reshape(-1, packed.layout.nb_channels), packed.sample_rate)
    except (av.FFmpegError, *_DAMAGE):
        return False
    return whole
