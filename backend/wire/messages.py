"""Conversion between protobuf messages and the backend's own values. Nanoseconds exist only here."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping

import numpy as np

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.errors import (
    LiveMessageTooLarge,
    LoadRefused,
    NonFiniteSound,
    TooManyGranularities,
    TranslationUnsupported,
    UnknownParameter,
    UnsupportedSampleRate,
)
from backend.languages import code_of
from backend.live.live_event import LiveEvent
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.options.option_parser import with_options
from backend.options.option_values import attention_of, dtype_of, quantization_of
from backend.pipeline.prompt import sanitized_prompt, sanitized_text
from backend.pipeline.transcript_builder import Transcript
from backend.transcript.segments import Segment
from backend.wire import backend_pb2 as pb

_log = logging.getLogger(__name__)

_NS = 1_000_000_000
_MAX_THREADS = 4 * (os.cpu_count() or 1)  # more are slower, and thousands crash the process
_LIVE_PARAMETERS = ("prompt", "timestamp_granularities")
MAX_LIVE_MESSAGE_S = 60
UNPARSED_LIVE_REQUEST = pb.TranscriptLiveRequest()  # in place of one that is too large to be parsed
_MAX_GRANULARITIES = 100  # two have a meaning; unknown ones are ignored


def load_options(request: pb.ModelOptions) -> LoadOptions:
    """The options of LoadModel. Raises InvalidOption or LoadRefused.

    Fields that the gateway fills with defaults of its own (see proto/backend.proto) are not read.
    """
    if request.LoraAdapter or request.LoraAdapters:
        raise LoadRefused("LoRA adapters are not supported; merge them into the checkpoint")
    if request.TrustRemoteCode:  # a permission, which may go unused
        _log.info("TrustRemoteCode is not needed: no checkpoint's code is ever run here")
    for field in ("SwapSpace", "GPUMemoryUtilization"):
        if getattr(request, field):
            _log.info("%s is another engine's; it changes nothing here", field)
    if request.TensorParallelSize > 1:
        raise LoadRefused("TensorParallelSize is not supported; run one backend for each GPU")
    options = LoadOptions(
        model=request.Model,
        model_file=request.ModelFile,
        model_path=request.ModelPath,
        cuda=request.CUDA,
        main_gpu=_gpu_index(request.MainGPU),
        threads=_threads(request.Threads),
        dtype=dtype_of(request.DType),
        attention=attention_of(request.FlashAttention),
        quantization=quantization_of(request.Quantization),
        batch_max_size=2 if request.LowVRAM else None,
        cuda_graphs=not request.EnforceEager,
    )
    return with_options(options, request.Options, request.EngineArgs)


def _threads(requested: int) -> int | None:
    if requested > _MAX_THREADS:
        _log.warning("Threads: %d are more than this machine has a use for; %d are used", requested, _MAX_THREADS)
    return min(requested, _MAX_THREADS) if requested > 0 else None


def _gpu_index(main_gpu: str) -> int | None:
    if not main_gpu:
        return None
    digits = main_gpu.removeprefix("cuda:")
    if not re.fullmatch("[0-9]{1,4}", digits):
        raise LoadRefused("MainGPU must be the index of a GPU, such as 0")
    return int(digits)


def transcribe_options(request: pb.TranscriptRequest, aligns: bool = False) -> TranscribeOptions:
    """The options of a transcription. `diarize`, `temperature` and `threads` have no effect with this model.

    `aligns`: the model finds the times of a known text, the prompt. Raises TranslationUnsupported,
    TooManyGranularities, UnsupportedLanguage, PromptTooLong or NoKnownText.
    """
    if request.translate:
        raise TranslationUnsupported
    if len(request.timestamp_granularities) > _MAX_GRANULARITIES:
        raise TooManyGranularities(_MAX_GRANULARITIES)
    if aligns:
        text = sanitized_text(request.prompt)
        return TranscribeOptions(language=code_of(request.language), times=True, words=True, known_text=text)
    granularities = {name.strip().lower() for name in request.timestamp_granularities}
    return TranscribeOptions(
        language=code_of(request.language),
        prompt=sanitized_prompt(request.prompt),
        times=bool(granularities & {"word", "segment"}),
        words="word" in granularities,
    )


def live_options(config: pb.TranscriptLiveConfig) -> TranscribeOptions:
    """The options of a live stream.

    Raises UnsupportedSampleRate, UnknownParameter, UnsupportedLanguage or PromptTooLong.
    """
    if config.sample_rate not in (0, SAMPLE_RATE):
        raise UnsupportedSampleRate(SAMPLE_RATE)
    if set(config.params) - set(_LIVE_PARAMETERS):
        raise UnknownParameter(_LIVE_PARAMETERS)
    granularities = re.split(r"[\s,]+", config.params["timestamp_granularities"].lower()) if config.params else []
    words = "word" in granularities
    return TranscribeOptions(
        language=code_of(config.language),
        prompt=sanitized_prompt(config.params["prompt"] if config.params else ""),
        times=words,
        words=words,
    )


def live_samples(audio: pb.TranscriptLiveAudio) -> Samples:
    """The samples of a live message, (n,), within [-1, 1]. Raises LiveMessageTooLarge or NonFiniteSound."""
    if len(audio.pcm) > MAX_LIVE_MESSAGE_S * SAMPLE_RATE:
        raise LiveMessageTooLarge(MAX_LIVE_MESSAGE_S)
    samples = np.asarray(audio.pcm, np.float32)
    if not np.isfinite(samples).all():
        raise NonFiniteSound
    return np.clip(samples, -1, 1)


def live_response(event: LiveEvent) -> pb.TranscriptLiveResponse:
    """The response with a piece of text, words, or the end of an utterance."""
    words = [
        pb.TranscriptWord(start=round(word.start_s * _NS), end=round(word.end_s * _NS), text=word.text)
        for word in event.words
    ]
    return pb.TranscriptLiveResponse(delta=event.delta, eou=event.eou, words=words)


def transcript_result(transcript: Transcript) -> pb.TranscriptResult:
    """The response. Times are whole nanoseconds and at most the duration, as the client sees it: a 32-bit float."""
    max_ns = math.floor(float(np.float32(transcript.duration_s)) * _NS)
    return pb.TranscriptResult(
        segments=[_segment(number, segment, transcript, max_ns) for number, segment in enumerate(transcript.segments)],
        text=transcript.text,
        language=transcript.language,
        duration=transcript.duration_s,
        eou=transcript.eou,
    )


def _segment(number: int, segment: Segment, transcript: Transcript, max_ns: int) -> pb.TranscriptSegment:
    return pb.TranscriptSegment(
        id=number,
        start=_ns(segment.start_s, max_ns),
        end=_ns(segment.end_s, max_ns),
        text=transcript.text[segment.begin : segment.end],
        tokens=transcript.tokens[number],
        words=[
            pb.TranscriptWord(
                start=_ns(word.start_s, max_ns),
                end=_ns(word.end_s, max_ns),
                text=transcript.text[word.begin : word.end],
            )
            for word in transcript.words[number]
        ],
    )


def _ns(seconds: float, max_ns: int) -> int:
    return min(max(round(seconds * _NS), 0), max_ns)


def status_response(state: pb.StatusResponse.State, weight_bytes: Mapping[str, int]) -> pb.StatusResponse:
    memory = pb.MemoryUsageData(total=sum(weight_bytes.values()), breakdown=weight_bytes)
    return pb.StatusResponse(state=state, memory=memory)
