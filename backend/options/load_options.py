"""The values of LoadModel's request and of a transcription's, frozen. option_table.py says how operators set them."""

from __future__ import annotations

from dataclasses import dataclass

from backend.options.option_values import Attention, Device, DType, EndOfUtterance, Quantization

MIN_CHUNK_S, MAX_CHUNK_S = 2.0, 180.0  # the range of max_chunk_seconds, and of a checkpoint's own chunk length


@dataclass(frozen=True)
class LoadOptions:
    """LoadModel's request. Names that end in `_s` are seconds. None: the backend chooses."""

    model: str
    model_file: str = ""
    model_path: str = ""
    forced_aligner: str = ""
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
    aligner_retry_s: float = 60.0
    segment_gap_s: float | None = None
    max_segment_s: float | None = None
    max_segment_chars: int | None = None
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


@dataclass(frozen=True)
class TranscribeOptions:
    """The options of one transcription. `language`: a code, or None to detect it.

    `times`: `word` or `segment` was requested, so the aligner runs if there is one. `words`: `word` was requested.
    """

    language: str | None = None
    prompt: str = ""
    times: bool = False
    words: bool = False
