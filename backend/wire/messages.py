"""Protobuf messages <-> the backend's own values. Nanoseconds exist only here."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping

import numpy as np

from backend.errors import LoadRefused, TooManyGranularities, TranslationUnsupported
from backend.languages import code_of
from backend.options import (
    LoadOptions,
    TranscribeOptions,
    attention_of,
    dtype_of,
    quantization_of,
    sanitized_prompt,
    with_options,
)
from backend.pipeline.transcriber import Transcript
from backend.transcript.segments import Segment
from backend.wire import backend_pb2 as pb

_log = logging.getLogger(__name__)

_NS = 1_000_000_000
_MOST_THREADS = 4 * (os.cpu_count() or 1)  # more slow each other down, and thousands end the process
_MOST_GRANULARITIES = 100  # two mean something; unknown ones are passed over


def load_options(request: pb.ModelOptions) -> LoadOptions:
    """What LoadModel asks for. Raises InvalidOption or LoadRefused; fields that carry no intent are not read."""
    if request.LoraAdapter or request.LoraAdapters:
        raise LoadRefused("LoRA adapters are not supported; merge them into the checkpoint")
    if request.TrustRemoteCode:  # a permission, not a demand
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
        batch_max_size=2 if request.LowVRAM else LoadOptions.batch_max_size,
        cuda_graphs=not request.EnforceEager,
    )
    return with_options(options, request.Options, request.EngineArgs)


def _threads(asked: int) -> int | None:
    if asked > _MOST_THREADS:
        _log.warning("Threads: %d are more than this machine has a use for; %d are used", asked, _MOST_THREADS)
    return min(asked, _MOST_THREADS) if asked > 0 else None


def _gpu_index(main_gpu: str) -> int | None:
    if not main_gpu:
        return None
    digits = main_gpu.removeprefix("cuda:")
    if not re.fullmatch("[0-9]{1,4}", digits):
        raise LoadRefused("MainGPU must be the index of a GPU, such as 0")
    return int(digits)


def transcribe_options(request: pb.TranscriptRequest) -> TranscribeOptions:
    """What a transcription asks for. `diarize`, `temperature` and `threads` carry no meaning for this model."""
    if request.translate:
        raise TranslationUnsupported
    if len(request.timestamp_granularities) > _MOST_GRANULARITIES:
        raise TooManyGranularities(_MOST_GRANULARITIES)
    granularities = {name.strip().lower() for name in request.timestamp_granularities}
    return TranscribeOptions(
        language=code_of(request.language),
        prompt=sanitized_prompt(request.prompt),
        times=bool(granularities & {"word", "segment"}),
        words="word" in granularities,
    )


def transcript_result(transcript: Transcript) -> pb.TranscriptResult:
    """The reply. Times are whole nanoseconds within the duration that the client sees, a float of 32 bits."""
    latest_ns = math.floor(float(np.float32(transcript.duration_s)) * _NS)
    return pb.TranscriptResult(
        segments=[
            _segment(number, segment, transcript, latest_ns) for number, segment in enumerate(transcript.segments)
        ],
        text=transcript.text,
        language=transcript.language,
        duration=transcript.duration_s,
    )


def _segment(number: int, segment: Segment, transcript: Transcript, latest_ns: int) -> pb.TranscriptSegment:
    return pb.TranscriptSegment(
        id=number,
        start=_ns(segment.start_s, latest_ns),
        end=_ns(segment.end_s, latest_ns),
        text=transcript.text[segment.begin : segment.end],
        tokens=transcript.tokens[number],
        words=[
            pb.TranscriptWord(
                start=_ns(word.start_s, latest_ns),
                end=_ns(word.end_s, latest_ns),
                text=transcript.text[word.begin : word.end],
            )
            for word in transcript.words[number]
        ],
    )


def _ns(seconds: float, latest_ns: int) -> int:
    return min(max(round(seconds * _NS), 0), latest_ns)


def status_response(state: pb.StatusResponse.State, weight_bytes: Mapping[str, int]) -> pb.StatusResponse:
    memory = pb.MemoryUsageData(total=sum(weight_bytes.values()), breakdown=weight_bytes)
    return pb.StatusResponse(state=state, memory=memory)
