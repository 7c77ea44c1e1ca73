"""The values of LoadModel's request and of a transcription's, frozen. option_table.py says how operators set them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from backend.options.option_values import Attention, Device, DType, EndOfUtterance, Quantization, Task

MIN_CHUNK_S, MAX_CHUNK_S = 2.0, 180.0  # the range of max_chunk_seconds, and of a checkpoint's own chunk length

# Read by requests, or when the aligner is loaded: with any of their values the recogniser in memory is the same.
_NOT_THE_RECOGNIZERS = {
    "forced_aligner", "forced_aligner_revision", "aligner_retry_s", "batch_wait_s", "max_new_tokens", "max_audio_s",
    "max_audio_memory_mb", "segment_gap_s", "max_segment_s", "max_segment_chars", "vad", "vad_threshold",
    "vad_min_speech_s", "vad_min_silence_s", "vad_margin_s", "aligner_idle_s", "idle_unload_s", "idle_exit_s",
    "subtitles", "subtitle_line_chars", "subtitle_wide_line_chars", "subtitle_lines", "subtitle_min_s",
    "subtitle_max_s", "subtitle_max_chars_per_s", "subtitle_gap_s", "live_step_s", "live_endpoint_s",
    "live_hold_words", "live_quiet_s", "live_max_streams", "live_eou", "live_words",
}  # fmt: skip


@dataclass(frozen=True)
class LoadOptions:
    """LoadModel's request. Names that end in `_s` are seconds. None: the backend chooses."""

    model: str
    model_file: str = ""
    model_path: str = ""
    forced_aligner: str = ""
    revision: str = "main"  # of the hub id: a branch, a tag or a commit
    forced_aligner_revision: str = "main"
    task: Task = ""
    device: Device = "auto"
    cuda: bool = False
    main_gpu: int | None = None
    threads: int | None = None
    dtype: DType = "auto"
    attention: Attention = "auto"
    quantization: Quantization = ""
    batch_max_size: int | None = None
    batch_wait_s: float = 0.0
    cuda_graphs: bool = True
    max_new_tokens: int | None = None
    max_chunk_s: float | None = None  # None: the checkpoint's own, see serving/protocols.Recognizer
    max_audio_s: float = 6 * 3600.0
    max_audio_memory_mb: int | None = None
    aligner_retry_s: float = 60.0
    aligner_idle_s: float = 0.0  # 0: never, in all three
    idle_unload_s: float = 0.0
    idle_exit_s: float = 0.0
    segment_gap_s: float | None = None
    max_segment_s: float | None = None
    max_segment_chars: int | None = None
    subtitles: bool = False
    subtitle_line_chars: int = 42
    subtitle_wide_line_chars: int = 16
    subtitle_lines: int = 2
    subtitle_min_s: float = 0.84
    subtitle_max_s: float = 7.0
    subtitle_max_chars_per_s: float = 20.0
    subtitle_gap_s: float = 0.08
    engine_urls: tuple[str, ...] = ()  # of vLLM servers that recognise in place of a model here, see remote/
    engine_model: str = ""
    engine_api_key_env: str = ""
    engine_api_key_file: str = ""
    engine_concurrency: int = 16
    engine_timeout_s: float = 60.0
    vad: bool = True
    vad_threshold: float = 0.5
    vad_min_speech_s: float = 0.1
    vad_min_silence_s: float = 0.1
    vad_margin_s: float = 1.0
    live_step_s: float = 1.0
    live_endpoint_s: float = 0.6
    live_hold_words: int = 2
    live_quiet_s: float = 30.0
    live_max_streams: int = 32
    live_eou: EndOfUtterance = "sentence"
    live_words: bool = False

    @property
    def max_audio_memory_bytes(self) -> float | None:
        return None if self.max_audio_memory_mb is None else self.max_audio_memory_mb * 1e6

    @property
    def aligner(self) -> tuple[str, str]:
        """Which aligner: its name and its revision."""
        return self.forced_aligner, self.forced_aligner_revision

    def has_recognizer_of(self, other: LoadOptions) -> bool:
        """Whether a load of `other` would bring the recogniser that a load of these options has brought."""
        names = (field.name for field in fields(self) if field.name not in _NOT_THE_RECOGNIZERS)
        return all(getattr(self, name) == getattr(other, name) for name in names)


@dataclass(frozen=True)
class TranscribeOptions:
    """The options of one transcription. `language`: a code, or None to detect it.

    `times`: `word` or `segment` was requested, so the aligner runs if there is one. `words`: `word` was requested.
    `known_text`: the text whose times are wanted, as the client gave it; None: the recording is transcribed.
    """

    language: str | None = None
    prompt: str = ""
    times: bool = False
    words: bool = False
    known_text: str | None = None
