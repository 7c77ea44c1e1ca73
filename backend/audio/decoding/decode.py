"""An open file becomes mono float32 at 16 kHz, or UndecodableAudio with one of the causes in audio/causes.

- Foreign code in C does the work, so the backend runs this in a child process only (main, behind pool).
- Only the descriptor is read. No other file is opened, whatever it asks for.
- The content decides what it is (audio/decoding/sniff): libsndfile reads what is plain, FFmpeg's libraries the rest
  (audio/decoding/ffmpeg).
- Headers are not believed. Seconds are counted while they are decoded, and each block is mixed down, resampled and
  written out before the next is read (audio/decoding/sample_writer): memory holds one block.
- What was decoded before a file breaks off is kept, and `truncated` says so.
- Sound is where the file's own times put it: what a recorder, or damage, has left out is silence.
"""

from __future__ import annotations

import contextlib
import os

import soundfile

from backend.audio.decoding.causes import DAMAGED, NO_SAMPLES, UNKNOWN_FORMAT
from backend.audio.decoding.ffmpeg import read_track
from backend.audio.decoding.protocol import DECODED, Answer, new_store, taken
from backend.audio.decoding.safe_open import opened
from backend.audio.decoding.sample_writer import BLOCK, Recording
from backend.audio.decoding.sniff import PLAIN_CODECS, is_cut_short, sniff
from backend.audio.waveform import Decoded
from backend.errors import UndecodableAudio


def decode_open(fd: int, store: int, max_seconds: float) -> Answer:
    """Write the sound of the file `fd` to `store`; UndecodableAudio if there is none, or more than `max_seconds`."""
    container = sniff(fd)
    if container is None:
        raise UndecodableAudio(UNKNOWN_FORMAT)
    recording = Recording(store, max_seconds)
    whole = container.plain and _read_plain(fd, recording)
    if not recording.frames:
        whole = read_track(fd, container, recording)
    if not recording.frames:
        raise UndecodableAudio(NO_SAMPLES if whole else DAMAGED)
    truncated = not whole or is_cut_short(fd, container, os.fstat(fd).st_size)
    return Answer(DECODED, truncated, recording.finished(), recording.duration_s)


def decode(path: str, *, max_seconds: float) -> Decoded:
    """The recording in the file `path`, decoded in this very process: for evaluation and tests, never for a request."""
    with opened(path) as fd, new_store() as store:
        answer = decode_open(fd, store, max_seconds)
        return Decoded(taken(store, answer, max_seconds), answer.duration_s, answer.truncated)


def _read_plain(fd: int, recording: Recording) -> bool:
    """By libsndfile, 10 s of WAV in about a millisecond. True if all is there; adds nothing if it cannot."""
    os.lseek(fd, 0, os.SEEK_SET)
    with contextlib.suppress(soundfile.SoundFileError), soundfile.SoundFile(fd, closefd=False) as file:
        if file.subtype not in PLAIN_CODECS.split():
            return False
        while (block := file.read(max(BLOCK // file.channels, 1), "float32", always_2d=True)).size:
            recording.add(block, file.samplerate)
        return bool(recording.frames == file.frames)
    return False
