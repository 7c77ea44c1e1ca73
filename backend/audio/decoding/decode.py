"""Decodes an open file to mono float32 at 16 kHz, or raises UndecodableAudio with one of the causes.

- Foreign C code does the decoding, so the backend runs this module in a decoder process only (main.py, behind pool.py).
- Only the descriptor is read. No other file is opened, whatever the content refers to.
- The content decides the format (containers/), not the name: libsndfile reads plain formats, FFmpeg's libraries the
  rest (ffmpeg.py). Files that were joined are read one after the other.
- Headers are not trusted. The duration is counted while decoding, and each block is mixed down, resampled and written
  out before the next one is read (sample_writer.py), so memory holds one block.
- What was decoded before a file breaks off is kept, and `Flaw.TRUNCATED` is set.
- Sound is placed where the file's own timestamps put it; gaps that a recorder or damage left become silence.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable

import soundfile

from backend.audio.containers.formats import PLAIN_CODECS
from backend.audio.containers.parts import Part, split
from backend.audio.decoding.causes import (
    BAD_RATE,
    DAMAGED,
    NO_SAMPLES,
    NO_SOUND_TRACK,
    TOO_LONG,
    TOO_MANY_CHANNELS,
    UNKNOWN_CODEC,
    UNKNOWN_FORMAT,
)
from backend.audio.decoding.ffmpeg import Track, read_track
from backend.audio.decoding.protocol import DECODED, Reply, new_store, validated_samples
from backend.audio.decoding.safe_open import open_regular_file
from backend.audio.decoding.sample_writer import BLOCK, SampleWriter
from backend.audio.waveform import Decoded, Flaw
from backend.errors import UndecodableAudio

_NO_SOUND = {BAD_RATE, DAMAGED, NO_SOUND_TRACK, TOO_MANY_CHANNELS, UNKNOWN_CODEC}  # of a part; others may have some


def decode_fd(
    fd: int, store: int, max_seconds: float, attempt: int = 0, more: Callable[[], None] = lambda: None
) -> Reply:
    """Decode the file `fd` into `store`. Raises UndecodableAudio if it has no sound, or more than `max_seconds`.

    `attempt`: see DecoderPool.decode; `more`: see SampleWriter.
    """
    writer = SampleWriter(store, max_seconds, more)
    flaws, first = Flaw.NONE, None
    refusal = UndecodableAudio(UNKNOWN_FORMAT)
    for part in split(fd):
        try:
            track = _read_part(fd, part, writer, attempt if first is None else first.attempt)
        except UndecodableAudio as error:
            if error.cause not in _NO_SOUND:
                raise
            refusal = refusal if refusal.cause in _NO_SOUND else error
            flaws |= Flaw.UNREAD
            continue
        first = first or track
        if part.is_cut_short or not track.is_complete:
            flaws |= Flaw.TRUNCATED
        if part.has_unread or track.has_unread:
            flaws |= Flaw.UNREAD
    if first is None:
        raise refusal
    if not writer.frames:
        raise UndecodableAudio(DAMAGED if Flaw.TRUNCATED in flaws else NO_SAMPLES)
    count = writer.finish()
    if writer.cancelled_s:
        flaws |= Flaw.CANCELLED
    return Reply(DECODED, flaws, count, writer.duration_s, first.count, first.number, first.attempt)


def decode(path: str, *, max_seconds: float, attempt: int = 0) -> Decoded:
    """The recording in the file `path`, decoded in this process: for evaluation and tests, never for a request."""
    with open_regular_file(path) as fd, new_store() as store:
        reply = decode_fd(fd, store, max_seconds, attempt)
        return reply.decoded(validated_samples(store, reply, max_seconds))


def _read_part(fd: int, part: Part, writer: SampleWriter, attempt: int) -> Track:
    before = writer.frames
    if part.container.is_plain:
        is_complete = _read_plain(fd, part, writer)
        if writer.frames > before:
            return Track(1, 1, 0, is_complete, has_unread=False)
    return read_track(fd, part, writer, attempt)


def _read_plain(fd: int, part: Part, writer: SampleWriter) -> bool:
    """Read by libsndfile, 10 s of WAV in about 1 ms. True if nothing is missing; writes nothing if it cannot read."""
    os.lseek(fd, 0, os.SEEK_SET)
    before = writer.frames
    source = fd if part.pieces is None else part.pieces
    with contextlib.suppress(soundfile.SoundFileError), soundfile.SoundFile(source, closefd=False) as file:
        if file.subtype not in PLAIN_CODECS.split():
            return False
        _refuse_if_too_long(file, writer)
        while (block := file.read(max(BLOCK // file.channels, 1), "float32", always_2d=True)).size:
            writer.add(block, file.samplerate)
        return bool(writer.frames - before == file.frames)
    return False


def _refuse_if_too_long(file: soundfile.SoundFile, writer: SampleWriter) -> None:
    """Raises UndecodableAudio, before anything is decoded, if the header says so and the file does reach so far."""
    last = math.ceil(writer.left_s * file.samplerate)
    if file.frames > last and file.seekable():
        file.seek(last)
        if file.read(1, "float32").size:
            raise UndecodableAudio(TOO_LONG)
        file.seek(0)
