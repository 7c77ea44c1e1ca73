"""Every error this backend raises on purpose, on one page.

Rules: a message is made here, in its class; it is a fixed sentence that says what to do, and it repeats nothing a
client controls (file name, prompt, language), because the gateway acts on substrings of error texts. Option names
and values may be named: they come from the operator's own configuration; but short, on one line, and never in the
words that the gateway acts on. wire/status.py gives each its status.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

_LONGEST_NAMED = 200  # characters; a status travels in HTTP/2 headers, of which there may be 16 KiB
# On these the gateway drops the model or the replica; the last two are for the classes that mean them.
_ACTED_ON = re.compile(
    "connection refused|connection reset|no such host|unavailable|model not loaded|model identity mismatch",
    re.IGNORECASE,
)


def named(text: str) -> str:
    """An operator's text as part of a message."""
    shown = text if len(text) <= _LONGEST_NAMED else text[: _LONGEST_NAMED - 1] + "…"
    return _ACTED_ON.sub("[…]", "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown))


class AsrError(Exception):
    """Anything that ends a request or a load with a cause that a person can act on."""


class InvalidRequest(AsrError):
    """The request itself cannot be served; sending it again unchanged will not help."""


class UndecodableAudio(InvalidRequest):
    """The file behind `dst` is not audio that can be transcribed. `cause` is one of the fixed texts of audio/causes."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"qwen-asr: cannot read the audio: {cause}")
        self.cause = cause


class UnsupportedLanguage(InvalidRequest):
    def __init__(self, codes: Iterable[str]) -> None:
        super().__init__(f"qwen-asr: unknown language; leave it empty to detect it, or use one of: {', '.join(codes)}")


class RequestTooLarge(InvalidRequest):
    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"qwen-asr: the request is larger than {most_bytes} bytes; sound is sent as a file's path")


class TooManyGranularities(InvalidRequest):
    def __init__(self, most: int) -> None:
        super().__init__(f"qwen-asr: more than {most} timestamp_granularities; send word, segment or both")


class TranslationUnsupported(InvalidRequest):
    def __init__(self) -> None:
        super().__init__("qwen-asr: this model transcribes and does not translate; send translate=false")


class PromptTooLong(InvalidRequest):
    def __init__(self, length: int, longest: int, unit: Literal["characters", "tokens"]) -> None:
        super().__init__(f"qwen-asr: the prompt is longer than {longest} {unit}: it has {length}; shorten it")


class LoadRefused(AsrError):
    """LoadModel cannot do what it was asked; the message is the human cause."""


class InvalidOption(LoadRefused):
    """An option of LoadModel is unknown, or its value is not what it may be."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"option '{named(name)}' {problem}")


class CheckpointRefused(LoadRefused):
    """The folder or hub repository is not a checkpoint that this backend serves."""


class HubFailure(CheckpointRefused):
    """`cause` is one of the fixed texts of engine/hub."""

    def __init__(self, repository: str, cause: str) -> None:
        super().__init__(f"the hub repository '{named(repository)}' {cause}")


class DeviceUnavailable(LoadRefused):
    def __init__(self, wanted: str) -> None:
        super().__init__(
            f"{wanted} was asked for, but this machine's torch finds none; unset it to choose a device itself"
        )


class TooLittleMemory(LoadRefused):
    def __init__(self) -> None:
        super().__init__(
            "the device has too little memory for this model; choose a smaller one, another GPU (MainGPU), "
            "Quantization int8, or torch_dtype:bf16 or fp16"
        )


class DeviceLost(LoadRefused):
    def __init__(self) -> None:
        super().__init__("the device was lost while a model was loaded; the backend ends and has to be started again")


class ModelNotLoaded(AsrError):
    def __init__(self) -> None:
        super().__init__("qwen-asr: model not loaded")


class IdentityMismatch(AsrError):
    """The request names another model than the one that is loaded. Both names are the operator's."""

    def __init__(self, loaded: str, requested: str) -> None:
        super().__init__(f"model identity mismatch: loaded '{named(loaded)}', requested '{named(requested)}'")


class Unauthenticated(AsrError):
    def __init__(self) -> None:
        super().__init__("qwen-asr: send the metadata `authorization: Bearer <token>` with the operator's token")


class CapabilityMissing(AsrError):
    def __init__(self, capability: str) -> None:
        super().__init__(f"qwen-asr: {capability} is not supported; use AudioTranscription")


class Overloaded(AsrError):
    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: too many requests, or too much audio, are being transcribed; send the request again later"
        )


class Stopping(AsrError):
    def __init__(self) -> None:
        super().__init__("qwen-asr: the backend is stopping; send the request again")


class OutOfMemory(AsrError):
    def __init__(self) -> None:
        super().__init__("qwen-asr: out of memory for this request; lower max_chunk_seconds or batch_max_size")


class Cancelled(AsrError):
    def __init__(self) -> None:
        super().__init__("qwen-asr: the request was cancelled")


class DeadlineTooShort(AsrError):
    """The client will have gone before its recording can have been heard."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: the deadline is too short for this recording; allow more time or send it in parts")


class EngineFailure(AsrError):
    """A fault of ours, or of a library under us; the trace is in the log."""

    def __init__(self, message: str = "qwen-asr: internal error; the backend's log has the details") -> None:
        super().__init__(message)


class NonFiniteLogits(EngineFailure):
    """The model produced NaN or inf logits. Their argmax is a token that the model never chose."""

    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: the model produced NaN or inf logits; set torch_dtype:fp32, or fetch the checkpoint again"
        )


class AlignerUnavailable(AsrError):
    """The aligner cannot serve this request. Never a status: the transcript goes out with coarse times."""


class Fatal(Exception):
    """The process cannot serve; the message is the last line that it logs."""


class CannotListen(Fatal):
    """`cause`: the human one. The address is the operator's own."""

    def __init__(self, address: str, cause: str = "the address is taken or not this machine's") -> None:
        super().__init__(f"cannot listen on {named(address)}: {cause}")


class StallSecondsRefused(Fatal):
    def __init__(self, least: float) -> None:
        super().__init__(f"QWEN_ASR_STALL_SECONDS must be a number of seconds, at least {least:g}")


class EngineDead(Fatal):
    """`cause`: one of the fixed ones of serving/scheduler and server."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the engine cannot go on: {cause}; the backend has to be started again")


class MetricsAddressRefused(Fatal):
    def __init__(self) -> None:
        super().__init__(
            "QWEN_ASR_METRICS must be a port, or a loopback address with one, such as 9109 or 127.0.0.1:9109"
        )
