"""Reads a file's first sound track with FFmpeg's libraries (PyAV), placed where the file's own timestamps put it."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.audio.decoding.causes import DAMAGED, NO_SOUND_TRACK, UNKNOWN_CODEC
from backend.audio.decoding.sample_writer import SampleWriter
from backend.audio.decoding.sniff import CODECS, Format
from backend.errors import UndecodableAudio

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_MAX_PACKET_BYTES = 1 << 24  # compressed packets have a few thousand, PCM in MOV and Matroska up to a second's
# What PyAV raises for damage beside FFmpegError: unreadable bytes, an invalid tag. PyAV's own MemoryError is an
# FFmpegError and means damage, too: damaged headers ask for any amount of memory.
_DAMAGE = (OSError, ValueError)
_MIN_GAP_S = (
    0.2  # frames that are less late show rounding, an encoder's delay or a lost packet: silence would cut words
)
_MIN_JUMP_S = 0.01  # between two frames; less is a drifting clock, however late it has made the frames
_DURATION_SLACK_S = 0.2  # a header's duration may count what decoders drop: an encoder's delay, and padding


def read_track(fd: int, container: Format, writer: SampleWriter) -> bool:
    """Decode the first known sound track. True if nothing of it was damaged or missing."""
    import av  # takes 0.2 s, once per process; not needed for a WAV

    os.lseek(fd, 0, os.SEEK_SET)
    try:
        media = av.open(
            _Source(fd, closefd=False),
            mode="r",
            format=container.demuxer,  # never probed: a probe would find playlists
            io_open=_refuse_open,
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
        is_complete = _write_track(media, track, writer, _GapFinder(_start_us(media), container.max_gap_s))
        stated_s = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
        return is_complete and not (container.has_exact_duration and writer.duration_s < stated_s - _DURATION_SLACK_S)


class _GapFinder:
    """Finds the silence before each frame from the frames' timestamps.

    `start_us`: the file's start on its own clock, in microseconds; None: the file starts with its first frame.
    `max_gap_s`: see Format. A jump by more, or backwards, is a change of clock and not a gap. After a single frame with
    a late timestamp (a recorder that stalled) the earlier clock may go on, so the origin before a jump is remembered.
    """

    def __init__(self, start_us: int | None, max_gap_s: float) -> None:
        self._origin_s = None if start_us is None else start_us / 1_000_000
        self._previous_origin_s: float | None = None  # the origin before the clock jumped
        self._max_gap_s = max_gap_s
        self._last_start_s, self._last_end_s = -math.inf, -math.inf  # of the frame before, on the file's clock

    def silence_before_s(self, frame: AudioFrame, written_s: float) -> float:
        """Seconds of silence to insert before the frame, after `written_s` seconds have been written."""
        if not self._max_gap_s or frame.pts is None or frame.time_base is None:
            return 0.0
        start_s = float(frame.pts * frame.time_base)
        if self._origin_s is None:
            self._origin_s = start_s
        jump_s, is_backwards = start_s - self._last_end_s, start_s < self._last_start_s - _MIN_GAP_S
        self._last_start_s, self._last_end_s = start_s, start_s + frame.samples / max(frame.sample_rate, 1)
        late_s = start_s - self._origin_s - written_s
        if is_backwards or late_s > self._max_gap_s:  # another clock
            self._origin_s, self._previous_origin_s = start_s - written_s, self._origin_s
            return 0.0
        if late_s < _MIN_GAP_S or jump_s < _MIN_JUMP_S:
            return 0.0
        if self._previous_origin_s is not None and abs(start_s - self._previous_origin_s - written_s) < _MIN_GAP_S:
            self._origin_s, self._previous_origin_s = self._previous_origin_s, None  # the earlier clock goes on
            return 0.0
        return late_s


class _Source(io.FileIO):
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """-1 for a seek that fails, as FFmpeg expects: damaged files send it to before their start.

        PyAV does not pass on an exception that is raised here.
        """
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> Any:
    """FFmpeg calls this for every file but the first. No other file is ever opened."""
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


def _start_us(media: InputContainer) -> int | None:
    """A film's start on its own clock, in microseconds; None for sound alone, which starts with its first frame."""
    from av.stream import Disposition

    is_film = any(not picture.disposition & Disposition.attached_pic for picture in media.streams.video)
    return media.start_time if is_film else None


def _write_track(media: InputContainer, track: AudioStream, writer: SampleWriter, gaps: _GapFinder) -> bool:
    """Write the track's sound. A packet that cannot be decoded is left out, or is silence; False if there was one.

    Frames are converted to packed float32 before to_ndarray(): PyAV 18.1 reads past the planes of a frame with 8 planar
    channels (AAC 7.1) and crashes the process. A packed frame has one plane.
    """
    import av

    track.codec_context.thread_count = 1  # a thread's stack counts against the process's memory, and none is faster
    is_complete = True
    converter, converter_kind = av.AudioResampler(format="flt"), None
    try:
        for packet in media.demux(track):
            if packet.size > _MAX_PACKET_BYTES:
                raise UndecodableAudio(DAMAGED)
            try:
                frames = packet.decode()
            except (av.FFmpegError, *_DAMAGE):
                is_complete = False
                continue
            for frame in frames:
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                if kind != converter_kind:
                    converter, converter_kind = av.AudioResampler(format="flt"), kind
                writer.add_silence(gaps.silence_before_s(frame, writer.duration_s), frame.sample_rate)
                for packed in converter.resample(frame):
                    sound = np.asarray(packed.to_ndarray(), np.float32)
                    writer.add(sound.reshape(-1, packed.layout.nb_channels), packed.sample_rate)
    except (av.FFmpegError, *_DAMAGE):
        return False
    return is_complete
