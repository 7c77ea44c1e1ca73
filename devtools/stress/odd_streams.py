"""Live streams of any messages in any order, and what each must be answered with.

A message is a config or sound, right or wrong. The first wrong one ends the stream with INVALID_ARGUMENT; without one
the stream has one final result, whose text is that of the sound since the last config.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from backend.audio.silero import FRAME
from backend.audio.vad import SpeechRules, min_speech_frames
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.options.load_options import LoadOptions
from backend.wire import backend_pb2 as pb
from devtools.stress.client import OK
from devtools.stress.fakes import text_of

REFUSED = "INVALID_ARGUMENT"
_LONGEST_S = 2  # of a message: a stream of eight is shorter than a passage, so its text is a hash of all its sound


@dataclass(frozen=True)
class Config:
    language: str = ""
    sample_rate: int = SAMPLE_RATE
    prompt: str = ""
    odd_param: str = ""

    @property
    def is_right(self) -> bool:
        return self.sample_rate in (0, SAMPLE_RATE) and self.language in ("", "en", "English") and not self.odd_param

    @property
    def message(self) -> pb.TranscriptLiveRequest:
        params = {"prompt": self.prompt} if self.prompt else {}
        params |= {self.odd_param: "x"} if self.odd_param else {}
        config = pb.TranscriptLiveConfig(language=self.language, sample_rate=self.sample_rate, params=params)
        return pb.TranscriptLiveRequest(config=config)


@dataclass(frozen=True)
class Sound:
    """`size` samples of noise; `flaw`: a value in their middle that is no sound, or far beyond full scale."""

    seed: int
    size: int
    level: float = 0.5
    flaw: float | None = None

    @property
    def samples(self) -> Samples:
        samples = np.random.default_rng(self.seed).uniform(-self.level, self.level, self.size).astype(np.float32)
        if self.flaw is not None:
            samples[self.size // 2 : self.size // 2 + 1] = self.flaw
        return samples

    @property
    def is_right(self) -> bool:
        return bool(np.isfinite(self.samples).all())

    @property
    def message(self) -> pb.TranscriptLiveRequest:
        return pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=self.samples.tolist()))


# of speech that counts, also where no detector runs
_LEAST_FRAMES = min_speech_frames(SpeechRules.of(LoadOptions(model="")))
Message = Config | Sound
_configs = st.builds(
    Config,
    language=st.sampled_from(["", "", "en", "English", "klingon", "\0"]),
    sample_rate=st.sampled_from([0, SAMPLE_RATE, SAMPLE_RATE, 8_000, -1]),
    prompt=st.sampled_from(["", "names"]),
    odd_param=st.sampled_from(["", "", "", "temperature", "\n"]),
)
_sounds = st.builds(
    Sound,
    seed=st.integers(0, 1 << 30),
    size=st.sampled_from([0, 1, 2, 511, 512, 4_800, _LONGEST_S * SAMPLE_RATE]),
    level=st.sampled_from([0.5, 0.0, 1e-6, 1.0, 1e30]),
    flaw=st.sampled_from([None] * 12 + [float("nan"), float("inf"), -float("inf"), 3e38]),
)
_right_configs = st.builds(Config, language=st.sampled_from(["", "en"]), prompt=st.sampled_from(["", "names"]))
streams = st.one_of(
    st.lists(st.one_of(_configs, _sounds), max_size=7),
    st.tuples(_right_configs, st.lists(st.one_of(_sounds, _right_configs), max_size=6)).map(
        lambda each: [each[0], *each[1]]
    ),
)


def expected(messages: Sequence[Message]) -> tuple[str, str | None]:
    """The status, and the text of the final result; None for no final result."""
    if not messages:
        return OK, None
    if not isinstance(messages[0], Config) or not all(message.is_right for message in messages):
        return REFUSED, None
    last = max(number for number, message in enumerate(messages) if isinstance(message, Config))
    config = messages[last]
    assert isinstance(config, Config)
    sound = [message.samples for message in messages[last + 1 :] if isinstance(message, Sound)]
    heard = np.clip(np.concatenate(sound), -1, 1) if sound else np.zeros(0, np.float32)
    if -(-heard.size // FRAME) < _LEAST_FRAMES:
        return OK, ""
    return OK, text_of(heard, config.prompt, "en" if config.language else None)
