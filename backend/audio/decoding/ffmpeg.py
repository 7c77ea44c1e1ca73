"""What FFmpeg's libraries (PyAV) read of a file: its first sound track, where the file's own times put it."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.audio.decoding.causes import DAMAGED, NO_SOUND_TRACK, UNKNOWN_CODEC
from backend.audio.decoding.sample_writer import Recording
from backend.audio.decoding.sniff import CODECS, Format
from backend.errors import UndecodableAudio

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_LARGEST_PACKET = 1 << 24  # bytes; compressed packets have a few thousand, PCM in MOV and Matroska up to a second's
# What PyAV raises beside its own errors: unreadable bytes, a strange tag. One of its own means: out of memory; damaged
# headers ask for any amount.
_DAMAGE = (OSError, ValueError)
_GAP_S = 0.2  # that frames are late; less is rounding, an encoder's delay or a lost packet: no place to cut a word
_PACKET_S = 0.01  # between two frames; less is a clock that drifts, however late that made the frames
_SLACK_S = 0.2  # a header's duration may count what decoders drop: an encoder's delay, and padding


def read_track(fd: int, container: Format, recording: Recording) -> bool:
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
        whole = _add_track(media, track, recording, _Times(_start(media), container.longest_gap_s))
        stated_s = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
        return whole and not (container.tells_duration and recording.duration_s < stated_s - _SLACK_S)


class _Times:
    """Where a track's frames belong. `start`: of the file, by its clock, in microseconds; None: with the first frame.

    See Format for `longest_gap_s`. Frames behind one that was stamped late, by a recorder that stalled, may make up for
    it: then what was put before it counts for them, too.
    """

    def __init__(self, start: int | None, longest_gap_s: float) -> None:
        self._origin_s = None if start is None else start / 1_000_000
        self._before_s: float | None = None  # the same, before the clock jumped
        self._longest_gap_s = longest_gap_s
        self._last_s, self._end_s = -math.inf, -math.inf  # of the frame before, by the file's clock

    def missing_s(self, frame: AudioFrame, recorded_s: float) -> float:
        """The silence before the frame, if so much was recorded before it."""
        if not self._longest_gap_s or frame.pts is None or frame.time_base is None:
            return 0.0
        at_s = float(frame.pts * frame.time_base)
        if self._origin_s is None:
            self._origin_s = at_s
        gap_s, is_earlier = at_s - self._end_s, at_s < self._last_s - _GAP_S
        self._last_s, self._end_s = at_s, at_s + frame.samples / max(frame.sample_rate, 1)
        ahead_s = at_s - self._origin_s - recorded_s
        if is_earlier or ahead_s > self._longest_gap_s:  # another clock
            self._origin_s, self._before_s = at_s - recorded_s, self._origin_s
            return 0.0
        if ahead_s < _GAP_S or gap_s < _PACKET_S:
            return 0.0
        if self._before_s is not None and abs(at_s - self._before_s - recorded_s) < _GAP_S:  # the one before goes on
            self._origin_s, self._before_s = self._before_s, None
            return 0.0
        return ahead_s


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


def _start(media: InputContainer) -> int | None:
    """Where a film begins, in microseconds of its own clock; None for sound alone, which begins with itself."""
    from av.stream import Disposition

    is_film = any(not picture.disposition & Disposition.attached_pic for picture in media.streams.video)
    return media.start_time if is_film else None


def _add_track(media: InputContainer, track: AudioStream, recording: Recording, times: _Times) -> bool:
    """Adds the track's sound. A packet that cannot be decoded is left out, or silent; False if there was one.

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
                recording.add_silence(times.missing_s(frame, recording.duration_s), frame.sample_rate)
                for packed in packer.resample(frame):
                    sound = np.asarray(packed.to_ndarray(), np.float32)
                    recording.add(sound.reshape(-1, packed.layout.nb_channels), packed.sample_rate)
    except (av.FFmpegError, *_DAMAGE):
        return False
    return whole
