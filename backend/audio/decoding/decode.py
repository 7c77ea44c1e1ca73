"""Decodes an open file to mono float32 at 16 kHz, or raises UndecodableAudio with one of the causes.

- Foreign C code does the decoding, so the backend runs this module in a decoder process only (main.py, behind pool.py).
- Only the descriptor is read. No other file is opened, whatever the content refers to.
- The content decides the format (sniff.py), not the name: libsndfile reads plain formats, FFmpeg's libraries the rest
  (ffmpeg.py).
- Headers are not trusted. The duration is counted while decoding, and each block is mixed down, resampled and written
  out before the next one is read (sample_writer.py), so memory holds one block.
- What was decoded before a file breaks off is kept, and `truncated` is set.
- Sound is placed where the file's own timestamps put it; gaps that a recorder or damage left become silence.
"""

from __future__ import annotations

import contextlib
import os

import soundfile

from backend.audio.decoding.causes import DAMAGED, NO_SAMPLES, UNKNOWN_FORMAT
from backend.audio.decoding.ffmpeg import read_track
from backend.audio.decoding.protocol import DECODED, Reply, new_store, validated_samples
from backend.audio.decoding.safe_open import open_regular_file
from backend.audio.decoding.sample_writer import BLOCK, SampleWriter
from backend.audio.decoding.sniff import PLAIN_CODECS, is_truncated, sniff
from backend.audio.waveform import Decoded
from backend.errors import UndecodableAudio


def decode_fd(fd: int, store: int, max_seconds: float) -> Reply:
    """Decode the file `fd` into `store`. Raises UndecodableAudio if it has no sound, or more than `max_seconds`."""
    container = sniff(fd)
    if container is None:
        raise UndecodableAudio(UNKNOWN_FORMAT)
    writer = SampleWriter(store, max_seconds)
    is_complete = container.is_plain and _read_plain(fd, writer)
    if not writer.frames:
        is_complete = read_track(fd, container, writer)
    if not writer.frames:
        raise UndecodableAudio(NO_SAMPLES if is_complete else DAMAGED)
    truncated = not is_complete or is_truncated(fd, container, os.fstat(fd).st_size)
    return Reply(DECODED, truncated, writer.finish(), writer.duration_s)


def decode(path: str, *, max_seconds: float) -> Decoded:
    """The recording in the file `path`, decoded in this process: for evaluation and tests, never for a request."""
    with open_regular_file(path) as fd, new_store() as store:
        reply = decode_fd(fd, store, max_seconds)
        return Decoded(validated_samples(store, reply, max_seconds), reply.duration_s, reply.truncated)


def _read_plain(fd: int, writer: SampleWriter) -> bool:
    """Read by libsndfile, 10 s of WAV in about 1 ms. True if nothing is missing; writes nothing if it cannot read."""
    os.lseek(fd, 0, os.SEEK_SET)
    with contextlib.suppress(soundfile.SoundFileError), soundfile.SoundFile(fd, closefd=False) as file:
        if file.subtype not in PLAIN_CODECS.split():
            return False
        while (block := file.read(max(BLOCK // file.channels, 1), "float32", always_2d=True)).size:
            writer.add(block, file.samplerate)
        return bool(writer.frames == file.frames)
    return False
