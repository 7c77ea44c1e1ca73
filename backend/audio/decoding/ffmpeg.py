"""Reads one sound track of a file with FFmpeg's libraries (PyAV), placed where the file's own timestamps put it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from backend.audio.containers.boxes import edits, media_bytes, pauses
from backend.audio.containers.formats import CODECS
from backend.audio.containers.parts import Part, is_much
from backend.audio.containers.pieces import Pieces
from backend.audio.decoding.causes import DAMAGED, NO_SOUND_TRACK, TOO_LONG, UNKNOWN_CODEC
from backend.audio.decoding.placement import FrameWriter, GapFinder, PagePlacement, TimestampPlacement
from backend.audio.decoding.sample_writer import SampleWriter
from backend.errors import UndecodableAudio

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

Placement: TypeAlias = TimestampPlacement | PagePlacement

_MAX_PACKET_BYTES = 1 << 24  # compressed packets have a few thousand, PCM in MOV and Matroska up to a second's
# What PyAV raises for damage beside FFmpegError: unreadable bytes, an invalid tag. PyAV's own MemoryError is an
# FFmpegError and means damage, too: damaged headers ask for any amount of memory.
_DAMAGE = (OSError, ValueError)
_DURATION_SLACK_S = 0.2  # a header's duration may count what decoders drop: an encoder's delay, and padding
_LOG_NAMES = {"matroska": "matroska,webm", "ogg": "ogg"}  # demuxers that tell only the log what damage they left out
_STREAMS = {"flac", "flv", "matroska", "mpeg"}  # packet by packet, and no header says where they end
_MAX_TRACKS = 8  # of which one is chosen
_MIN_UNREAD_BYTES, _MIN_UNREAD_SHARE = 1 << 14, 0.25  # of a film's sound and pictures: its edits leave out less


@dataclass(frozen=True)
class Track:
    """The track that was read: `number` of the `count` sound tracks of the file, from 1.

    `attempt`: its place in the order in which tracks are tried, from 0. `is_complete`: nothing was damaged or missing.
    `has_unread`: much of the file belongs to no track.
    """

    count: int
    number: int
    attempt: int
    is_complete: bool
    has_unread: bool


def read_track(fd: int, part: Part, writer: SampleWriter, attempt: int) -> Track:
    """Decode one sound track: the container's default for `attempt` 0, then the others in their order.

    A track without a sample is passed over for the next one. Raises UndecodableAudio, if there is no such track, too.
    """
    before, is_searched = writer.frames, False
    while True:
        with _opened(fd, part) as media:
            tracks = _tracks_in_order(media)
            if attempt >= len(tracks):
                raise UndecodableAudio(NO_SOUND_TRACK)
            if not is_searched and _states_more(part, tracks[attempt], writer.left_s):
                if _reaches(media, tracks[attempt], writer.left_s):
                    raise UndecodableAudio(TOO_LONG)
                is_searched = True
                continue  # opened again: a search may lose packets
            found = _write_track(fd, part, media, tracks[attempt], writer, attempt)
        if writer.frames > before or attempt + 1 == len(tracks):
            return found
        attempt += 1


def _states_more(part: Part, track: AudioStream, longest_s: float) -> bool:
    """Whether the headers count more than so many seconds of sound in the track. A gap between packets is no sound."""
    if part.container.has_exact_duration:
        return _stated_s(track) > longest_s
    counted = track.frames * (track.codec_context.frame_size or 0)  # MOV and MP4 have a table of all frames
    return part.container.demuxer == "mov" and counted > longest_s * track.codec_context.sample_rate


def _stated_s(track: AudioStream) -> float:
    return float(track.duration * track.time_base) if track.duration and track.time_base else 0.0


def _reaches(media: InputContainer, track: AudioStream, second: float) -> bool:
    """Whether the file has a packet of the track behind this second: headers alone are not believed."""
    import av

    try:
        media.seek(round((second + 1) * av.time_base))
        packet = next(packet for packet in media.demux(track) if packet.size)
    except (av.FFmpegError, StopIteration, *_DAMAGE):
        return False
    at_s = float((packet.pts or 0) - (track.start_time or 0)) * float(packet.time_base or 0)
    return at_s >= second


@contextmanager
def _opened(fd: int, part: Part) -> Iterator[InputContainer]:
    import av  # takes 0.2 s, once per process; not needed for a WAV

    demuxer = part.container.demuxer
    source = part.pieces or Pieces(fd, [(0, os.fstat(fd).st_size)])
    source.seek(0)
    try:
        media = av.open(
            source,
            mode="r",
            format=demuxer,  # never probed: a probe would find playlists
            io_open=_refuse_open,
            metadata_errors="replace",  # a tag in an old encoding is no reason to refuse the sound
            container_options={
                "format_whitelist": demuxer,
                "protocol_whitelist": "none",
                "codec_whitelist": CODECS,
                "enable_drefs": "0",
                "use_absolute_path": "0",
            },
        )
    except (av.FFmpegError, *_DAMAGE):
        raise UndecodableAudio(DAMAGED) from None
    with media:
        yield media


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> Any:
    """FFmpeg calls this for every file but the first. No other file is ever opened."""
    raise PermissionError


def _tracks_in_order(media: InputContainer) -> list[AudioStream]:
    """The sound tracks that have a known codec: the container's default, then the others."""
    from av.stream import Disposition

    if not media.streams.audio:
        raise UndecodableAudio(NO_SOUND_TRACK)
    # PyAV leaves codec_context out where FFmpeg has no decoder, whatever its types say
    known = [track for track in media.streams.audio if getattr(track.codec_context, "name", None) in CODECS.split(",")]
    if not known:
        raise UndecodableAudio(UNKNOWN_CODEC)
    default = next((track for track in known if track.disposition & Disposition.default), known[0])
    return [default, *(track for track in known if track is not default)][:_MAX_TRACKS]


def _write_track(
    fd: int, part: Part, media: InputContainer, track: AudioStream, writer: SampleWriter, attempt: int
) -> Track:
    frames, container = FrameWriter(writer), part.container
    packets = _Packets()
    is_complete = _write_packets(media, track, _placement(fd, part, media, track, frames), part, packets)
    if container.has_exact_duration and frames.written_s < _stated_s(track) - _DURATION_SLACK_S:
        is_complete = False
    number = [each.index for each in media.streams.audio].index(track.index) + 1
    return Track(len(media.streams.audio), number, attempt, is_complete, packets.leave_much(fd, part))


def _placement(fd: int, part: Part, media: InputContainer, track: AudioStream, frames: FrameWriter) -> Placement:
    start_s, container = _start_s(media), part.container
    if container.demuxer == "ogg":
        is_opus = track.codec_context.name in {"opus", "libopus"}
        return PagePlacement(frames, fd, part.begin, is_opus=is_opus, start_s=start_s)
    edited = edits(fd, part.begin, part.end, track.id) if container.demuxer == "mov" else []
    is_late = bool(edited) and edited[0].is_empty
    gaps = GapFinder(0.0 if is_late and start_s is None else start_s, container.max_gap_s, is_start_stated=is_late)
    return TimestampPlacement(frames, gaps, pauses(edited))


def _start_s(media: InputContainer) -> float | None:
    """The start of a film, or of several tracks, on their clock; None for one track, which starts with its sound."""
    from av.stream import Disposition

    is_film = any(not picture.disposition & Disposition.attached_pic for picture in media.streams.video)
    if media.start_time is None or not (is_film or len(media.streams.audio) > 1):
        return None
    return media.start_time / 1_000_000


@dataclass
class _Packets:
    """The packets of all tracks: how many bytes they have, and where the last of them ends in its part."""

    bytes: int = 0
    end: int = 0
    largest: int = 0

    def count(self, packet: Packet[Any]) -> None:
        self.bytes += packet.size
        if packet.pos is not None:  # a FLAC's last packet has all that follows it
            self.end = max(self.end, packet.pos + min(packet.size, 2 * self.largest or packet.size))
        self.largest = max(self.largest, packet.size)

    def leave_much(self, fd: int, part: Part) -> bool:
        """Whether much of the part belongs to no track."""
        if part.container.demuxer == "mov":
            held = media_bytes(fd, part.begin, part.end)
            return held - self.bytes > max(_MIN_UNREAD_BYTES, _MIN_UNREAD_SHARE * held)
        is_stream = part.container.demuxer in _STREAMS and not part.states_end
        return is_stream and self.end > 0 and is_much(fd, min(part.begin + self.end, part.end), part.end)


def _write_packets(
    media: InputContainer, track: AudioStream, placement: Placement, part: Part, packets: _Packets
) -> bool:
    """Write the track's sound, and count the packets. True if nothing was damaged or missing.

    A packet that cannot be decoded is left out, or is silence.
    """
    import av

    track.codec_context.thread_count = 1  # a thread's stack counts against the process's memory, and none is faster
    is_complete = True
    with _logged_errors(_LOG_NAMES.get(part.container.demuxer)) as errors:
        try:
            for packet in media.demux():
                packets.count(packet)
                if packet.stream_index != track.index:
                    continue
                if packet.size > _MAX_PACKET_BYTES:
                    raise UndecodableAudio(DAMAGED)
                try:
                    decoded: list[Any] = packet.decode()
                except (av.FFmpegError, *_DAMAGE):
                    is_complete = False
                    continue
                placement.place(packet, decoded)
                is_complete = is_complete and not errors()
        except (av.FFmpegError, *_DAMAGE):
            is_complete = False
        is_complete = is_complete and not errors()
    return placement.finish() and is_complete


@contextmanager
def _logged_errors(name: str | None) -> Iterator[Callable[[], bool]]:
    """A function that tells whether `name` has logged an error since it was asked. Nothing is logged without a name."""
    import av.logging

    if name is None:
        yield lambda: False
        return
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture(local=True) as logged:

        def has_error() -> bool:
            found = any(source == name for _, source, _ in logged)
            logged.clear()
            return found

        try:
            yield has_error
        finally:
            av.logging.set_level(None)
