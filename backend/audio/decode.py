"""A file becomes mono float32 at 16 kHz, or UndecodableAudio with one of the fixed causes below.

- One way in: the path is opened once, as a regular file of bounded size and nothing else, and everything after that
  works on the descriptor (the gateway may delete the file meanwhile). No other file is opened, whatever it asks for.
- The content decides what it is (audio/formats): libsndfile reads what is plain, FFmpeg's libraries (PyAV) the rest.
- Headers are not believed. Seconds are counted while they are decoded, and each block is mixed down and resampled
  before the next is read: memory holds the result and one block.
- What was decoded before a file breaks off is kept, and `truncated` says so.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from backend.audio.formats import CODECS, PLAIN_CODECS, Format, is_cut_short, sniff
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.errors import UndecodableAudio

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MISSING = "there is no such file"
UNREADABLE = "the file cannot be opened; check its permissions"
NOT_A_FILE = "it is not a regular file; folders, links, pipes and devices are not read"
EMPTY_FILE = "the file is empty"
TOO_LARGE = "the file is larger than 4 GiB; send it in parts or compressed"
UNKNOWN_FORMAT = "its content is no known audio or video format; send WAV, FLAC, MP3, OGG, M4A or WebM"
UNKNOWN_CODEC = "its sound track is coded in a way that is not known here; send WAV, FLAC, MP3, OGG, M4A or WebM"
NO_SOUND_TRACK = "the file has no sound track"
NO_SAMPLES = "the file has a header but no sound after it"
DAMAGED = "the file is damaged: no sound in it can be decoded"
BAD_RATE = "its sample rate is not between 4 and 768 kHz; resample it, to 16 kHz for example"
TOO_MANY_CHANNELS = "it has more than 32 channels; mix it down"
NOT_FINITE = "it holds samples that are not numbers or are infinite; export it again"
TOO_LONG = "it is longer than this server's max_audio_seconds; send it in parts"

_CAUSE_OF = {  # what os.open says; anything else (no descriptors left, say) is not the file's fault
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.ENAMETOOLONG: MISSING,  # a data: string
    errno.EACCES: UNREADABLE,
    errno.EPERM: UNREADABLE,
    errno.EIO: UNREADABLE,
    errno.ESTALE: UNREADABLE,
    errno.ELOOP: NOT_A_FILE,  # a link
    errno.ENXIO: NOT_A_FILE,  # a socket
    errno.ENODEV: NOT_A_FILE,
}
_LARGEST_FILE = 1 << 32  # bytes: 6 h of 48 kHz 16 bit stereo, and as much as a WAV header can state
_RATES = range(4_000, 768_001)  # below, 64 KB of file become gigabytes of sound; above, nothing records
_MOST_CHANNELS = 32
_BLOCK = 1 << 18  # samples of all channels together, 1 MiB as float32
_LARGEST_PACKET = 1 << 24  # bytes; compressed packets have a few thousand, PCM in MOV and Matroska up to a second's
_DAMAGE = (OSError, ValueError)  # what PyAV raises beside its own errors: unreadable bytes, a strange tag
_SLACK_S = 0.2  # a header's duration may count what decoders drop: an encoder's delay, and padding


@dataclass(frozen=True)
class Decoded:
    """A recording: `samples` of shape (n,), n >= 1, within [-1, 1], 16 kHz; `duration_s` is that of the source."""

    samples: Samples
    duration_s: float
    truncated: bool  # the file is cut short or damaged; this is what could be decoded


def decode(path: str, *, max_seconds: float) -> Decoded:
    """The recording in the file `path`; UndecodableAudio if there is none, or one of more than `max_seconds`."""
    with _opened(path) as (fd, size):
        container = sniff(fd)
        if container is None:
            raise UndecodableAudio(UNKNOWN_FORMAT)
        recording = _Recording(max_seconds)
        whole = container.plain and _read_plain(fd, recording)
        if not recording.frames:
            whole = _read_any(fd, container, recording)
        if not recording.frames:
            raise UndecodableAudio(NO_SAMPLES if whole else DAMAGED)
        truncated = not whole or is_cut_short(fd, container, size)
        return Decoded(recording.finished(), recording.duration_s, truncated)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, int]]:
    """The file's descriptor and size. Never waits (a FIFO would), never follows a link in the last place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError:  # a NUL in it, or what no file name can hold
        raise UndecodableAudio(MISSING) from None
    except OSError as error:
        if error.errno not in _CAUSE_OF:
            raise
        raise UndecodableAudio(_CAUSE_OF[error.errno]) from None  # the error's own text names the path
    try:
        status = os.fstat(fd)
        for refused, cause in (
            (not stat.S_ISREG(status.st_mode), NOT_A_FILE),
            (status.st_size == 0, EMPTY_FILE),
            (status.st_size > _LARGEST_FILE, TOO_LARGE),
        ):
            if refused:
                raise UndecodableAudio(cause)
        yield fd, status.st_size
    finally:
        os.close(fd)


class _Recording:
    """What has been decoded so far, mixed down and resampled; refuses what no recording is, as soon as it shows."""

    def __init__(self, max_seconds: float) -> None:
        self.frames = 0
        self._max_seconds = max_seconds
        self._sound = bytearray()  # float32; grows by realloc, which moves pages and copies nothing
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
        self._sound += (mono if self._resampler is None else self._resampler.resample_chunk(mono)).data

    def finished(self) -> Samples:
        self._begin(SAMPLE_RATE)  # flushes the resampler
        if not self._sound:  # a sample or two at a high rate round to none
            self._sound += bytes(np.float32().itemsize)
        samples = np.frombuffer(self._sound, np.float32)
        peak = max(float(samples.max()), -float(samples.min()))
        if not np.isfinite(peak):  # finite samples near the end of float32's range can add up to more
            raise UndecodableAudio(NOT_FINITE)
        if peak > 1:
            samples /= peak
        return samples

    def _begin(self, rate: int) -> None:
        if rate not in _RATES:
            raise UndecodableAudio(BAD_RATE)
        self._earlier_s, self._rate_since = self.duration_s, self.frames
        if self._resampler is not None:
            self._sound += self._resampler.resample_chunk(np.empty(0, np.float32), last=True).data
        # HQ is what the model's own loader resamples with (librosa's soxr_hq); out come round(n * 16000 / rate) samples
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
        self._rate = rate


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
        opened = av.open(
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
    with opened:
        track = _sound_track(opened)
        whole = _read_track(opened, track, recording)
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


def _sound_track(opened: InputContainer) -> AudioStream:
    """The first sound track that has a known codec."""
    if not opened.streams.audio:
        raise UndecodableAudio(NO_SOUND_TRACK)
    for track in opened.streams.audio:
        # PyAV leaves codec_context out where FFmpeg has no decoder, whatever its types say
        if getattr(track.codec_context, "name", None) in CODECS.split(","):
            return track
    raise UndecodableAudio(UNKNOWN_CODEC)


def _read_track(opened: InputContainer, track: AudioStream, recording: _Recording) -> bool:
    """Adds the track's sound. A packet that cannot be decoded is left out; False if there was one.

    Frames become packed float32 before to_ndarray(): PyAV 18.1 reads past the planes of a frame with 8 planar channels
    (AAC 7.1) and crashes the process; a packed frame has one plane.
    """
    import av

    whole = True
    packer, packs = av.AudioResampler(format="flt"), None
    try:
        for packet in opened.demux(track):
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
