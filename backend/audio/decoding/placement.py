"""Places decoded frames where the timestamps of their file put them; gaps of a recorder, or of damage, are silence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.audio.containers.ogg_pages import Page, page_at
from backend.audio.decoding.sample_writer import SampleWriter

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.packet import Packet

_MIN_GAP_S = (
    0.2  # frames that are less late show rounding, an encoder's delay or a lost packet: silence would cut words
)
_MIN_JUMP_S = 0.01  # between two frames; less is a drifting clock, however late it has made the frames
_MAX_PAUSE_S = 3600.0  # a page that is later has another clock
_MAX_WAITING = 1 << 22  # samples of frames that wait for the position of their page, 16 MiB
_OPUS_RATE = 48_000  # of its positions, whatever the rate of its frames


class FrameWriter:
    """Writes frames as packed float32.

    PyAV 18.1 reads past the planes of a frame with 8 planar channels (AAC 7.1) and crashes the process. A packed frame
    has one plane.
    """

    def __init__(self, writer: SampleWriter) -> None:
        self._writer = writer
        self._begin_s = writer.duration_s  # another file may come before this one
        self._converter: Any = None
        self._kind: tuple[str, str, int] | None = None

    @property
    def written_s(self) -> float:
        """Seconds of this file that have been written."""
        return self._writer.duration_s - self._begin_s

    def write(self, frame: AudioFrame, silence_s: float = 0.0) -> None:
        """Write so many seconds of silence, and the frame."""
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._converter, self._kind = av.AudioResampler(format="flt"), kind
        if silence_s > 0:
            self._writer.add_silence(silence_s, frame.sample_rate)
        for packed in self._converter.resample(frame):
            sound = np.asarray(packed.to_ndarray(), np.float32)
            self._writer.add(sound.reshape(-1, packed.layout.nb_channels), packed.sample_rate)


class TimestampPlacement:
    """Places frames by their own timestamps. Those in one of the `pauses`, [begin, end) in seconds, are not played."""

    def __init__(self, frames: FrameWriter, gaps: GapFinder, pauses: Sequence[tuple[float, float]] = ()) -> None:
        self._frames = frames
        self._gaps = gaps
        self._pauses = pauses

    def place(self, _packet: Packet[Any], frames: Sequence[AudioFrame]) -> None:
        for frame in frames:
            if not self._is_in_pause(frame):
                self._frames.write(frame, self._gaps.silence_before_s(frame, self._frames.written_s))

    def finish(self) -> bool:
        """Nothing waits."""
        return True

    def _is_in_pause(self, frame: AudioFrame) -> bool:
        if not self._pauses or frame.pts is None or frame.time_base is None:
            return False
        at_s = float(frame.pts * frame.time_base)
        return any(begin <= at_s < end for begin, end in self._pauses)


class GapFinder:
    """Finds the silence before each frame from the frames' timestamps.

    `start_s`: the file's start on its own clock; None: the file starts with its first frame. `is_start_stated`: the
    header itself says when the first frame comes, however late that is.
    `max_gap_s`: see Format. A jump by more, or backwards, is a change of clock and not a gap. After a single frame with
    a late timestamp (a recorder that stalled) the earlier clock may go on, so the origin before a jump is remembered.
    """

    def __init__(self, start_s: float | None, max_gap_s: float, *, is_start_stated: bool = False) -> None:
        self._origin_s = start_s
        self._previous_origin_s: float | None = None  # the origin before the clock jumped
        self._max_gap_s = max_gap_s
        self._is_stated = is_start_stated  # of the next frame only
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
        max_gap_s, self._is_stated = math.inf if self._is_stated else self._max_gap_s, False
        if is_backwards or late_s > max_gap_s:  # another clock
            self._origin_s, self._previous_origin_s = start_s - written_s, self._origin_s
            return 0.0
        if late_s < _MIN_GAP_S or jump_s < _MIN_JUMP_S:
            return 0.0
        if self._previous_origin_s is not None and abs(start_s - self._previous_origin_s - written_s) < _MIN_GAP_S:
            self._origin_s, self._previous_origin_s = self._previous_origin_s, None  # the earlier clock goes on
            return 0.0
        return late_s


class PagePlacement:
    """Places the frames of an Ogg stream by the positions of its pages, which FFmpeg passes on late or not at all.

    A page has the position of its end in samples. What its packets decode to is kept until they are complete, and
    comes behind the silence that the position leaves before it.

    `begin`: where the Ogg file begins in `fd`. `start_s`: see GapFinder; of a film, its start.
    """

    def __init__(self, frames: FrameWriter, fd: int, begin: int, *, is_opus: bool, start_s: float | None) -> None:
        self._frames, self._fd, self._begin = frames, fd, begin
        self._is_opus = is_opus
        self._origin_s = start_s
        self._page: Page | None = None
        self._page_position: int | None = None
        self._last: Page | None = None  # the page before
        self._last_end_s = -math.inf  # its end by its position
        self._waiting: list[AudioFrame] = []
        self._waiting_samples = 0
        self._is_whole = True  # no page is missing

    def place(self, packet: Packet[Any], frames: Sequence[AudioFrame]) -> None:
        position = packet.pos
        if position is not None and position != self._page_position:
            self._write_page()
            self._page_position, self._page = position, page_at(self._fd, self._begin + position)
            self._note_missing()
        self._waiting += frames
        self._waiting_samples += sum(frame.samples * frame.layout.nb_channels for frame in frames)
        if self._waiting_samples > _MAX_WAITING:
            self._write_page()

    def finish(self) -> bool:
        """Write what waits. False if pages were missing."""
        self._write_page()
        return self._is_whole

    def _note_missing(self) -> None:
        last, page = self._last, self._page
        if last is not None and page is not None and page.serial == last.serial and not last.is_open:
            self._is_whole = self._is_whole and page.number in {last.number, last.number + 1 & 0xFFFFFFFF}
        self._last = page

    def _write_page(self) -> None:
        waiting, self._waiting, self._waiting_samples = self._waiting, [], 0
        page = self._page
        if not waiting:
            return
        silence_s = 0.0
        if page is not None and page.granule >= 0:
            silence_s = self._silence_before_s(page, waiting)
        for frame in waiting:
            self._frames.write(frame, silence_s)
            silence_s = 0.0

    def _silence_before_s(self, page: Page, waiting: Sequence[AudioFrame]) -> float:
        rate = max(waiting[0].sample_rate, 1)
        end_s = page.granule / (_OPUS_RATE if self._is_opus else rate)
        sound_s = sum(frame.samples / max(frame.sample_rate, 1) for frame in waiting)
        start_s, written_s = end_s - sound_s, self._frames.written_s
        if self._origin_s is None:
            self._origin_s = start_s
        jump_s, self._last_end_s = start_s - self._last_end_s, end_s
        late_s = start_s - self._origin_s - written_s
        if (
            late_s < -_MIN_GAP_S - sound_s or late_s > _MAX_PAUSE_S
        ):  # another clock; an end that is cut off is less early
            self._origin_s = start_s - written_s
            return 0.0
        return late_s if late_s >= _MIN_GAP_S and jump_s >= _MIN_JUMP_S else 0.0
