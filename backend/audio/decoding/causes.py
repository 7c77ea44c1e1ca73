"""The causes that UndecodableAudio is raised with: fixed sentences that say what to do about the file.

No cause repeats anything from the file. A decoder process names a cause by its index in CAUSES, so nothing that the
process writes reaches a client.
"""

from __future__ import annotations

MISSING = "there is no such file"
UNREADABLE = "the file cannot be opened; check its permissions"
UNREACHABLE = "the file does not open in time; check the disk or the network share that it is on"
NOT_A_FILE = "it is not a regular file; folders, pipes, sockets and devices are not read"
LINK = "it is a symbolic link, which is not followed; send the file itself"
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
CRASHED = "the decoder failed on it; export it again, as WAV for example"
TOO_SLOW = "decoding it took too long; export it again, as WAV for example"
TOO_MUCH_MEMORY = "decoding it takes more memory than a recording needs; export it again, as WAV for example"

CAUSES = (
    MISSING, UNREADABLE, NOT_A_FILE, EMPTY_FILE, TOO_LARGE, UNKNOWN_FORMAT, UNKNOWN_CODEC, NO_SOUND_TRACK, NO_SAMPLES,
    DAMAGED, BAD_RATE, TOO_MANY_CHANNELS, NOT_FINITE, TOO_LONG, CRASHED, TOO_SLOW, TOO_MUCH_MEMORY, UNREACHABLE,
    LINK,
)  # fmt: skip

# The short name of each cause: in the request's log line and of the metric qwen_asr_refused_recordings_total.
KINDS = {
    MISSING: "missing", UNREADABLE: "unreadable", UNREACHABLE: "unreachable", NOT_A_FILE: "not_a_file", LINK: "link",
    EMPTY_FILE: "empty", TOO_LARGE: "too_large", UNKNOWN_FORMAT: "not_audio", UNKNOWN_CODEC: "unknown_codec",
    NO_SOUND_TRACK: "no_sound_track", NO_SAMPLES: "no_samples", DAMAGED: "damaged", BAD_RATE: "bad_rate",
    TOO_MANY_CHANNELS: "too_many_channels", NOT_FINITE: "not_finite", TOO_LONG: "too_long", CRASHED: "crashed",
    TOO_SLOW: "too_slow", TOO_MUCH_MEMORY: "too_much_memory",
}  # fmt: skip


def kind_of(cause: str) -> str:
    """The short name of a cause; "other" of a text that is none."""
    return KINDS.get(cause, "other")
