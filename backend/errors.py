"""Every error that this backend raises on purpose.

- The class of an error makes its message: a fixed sentence that says what to do.
- A message repeats nothing that a client controls (file name, prompt, language), because the gateway acts on substrings
  of error messages. Option names and values come from the operator and may be quoted: shortened, on one line, and
  without the substrings that the gateway acts on (`named`).
- wire/status.py maps each class to its gRPC status.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

_MAX_QUOTED_CHARS = 200  # a status travels in HTTP/2 headers, which are limited to 16 KiB
# Substrings on which the gateway drops the model or the replica. Only the classes that mean the last two contain them.
_ACTED_ON = re.compile(
    "connection refused|connection reset|no such host|unavailable|model not loaded|model identity mismatch",
    re.IGNORECASE,
)


def named(text: str) -> str:
    """An operator's text, made safe to quote in a message."""
    shown = text if len(text) <= _MAX_QUOTED_CHARS else text[: _MAX_QUOTED_CHARS - 1] + "…"
    return _ACTED_ON.sub("[…]", "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown))


class AsrError(Exception):
    """Ends a request or a load with a cause that a person can act on."""


class InvalidRequest(AsrError):
    """The request cannot be served; sending it again unchanged will not help."""


class UndecodableAudio(InvalidRequest):
    """The file `dst` is not audio that can be decoded. `cause`: one of the fixed texts of audio/decoding/causes."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"qwen-asr: cannot read the audio: {cause}")
        self.cause = cause


class UnsupportedLanguage(InvalidRequest):
    """The language is none of the model's. `codes`: the codes that it knows."""

    def __init__(self, codes: Iterable[str]) -> None:
        super().__init__(f"qwen-asr: unknown language; leave it empty to detect it, or use one of: {', '.join(codes)}")


class RequestTooLarge(InvalidRequest):
    """The serialised request has more than `max_bytes` bytes."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"qwen-asr: the request is larger than {max_bytes} bytes; sound is sent as a file's path")


class TooManyGranularities(InvalidRequest):
    """More than `max_count` timestamp granularities."""

    def __init__(self, max_count: int) -> None:
        super().__init__(f"qwen-asr: more than {max_count} timestamp_granularities; send word, segment or both")


class TranslationUnsupported(InvalidRequest):
    """The request asks for a translation."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: this model transcribes and does not translate; send translate=false")


class PromptTooLong(InvalidRequest):
    """The prompt has `length` characters, tokens or bytes (`unit`), more than `max_length`."""

    def __init__(self, length: int, max_length: int, unit: Literal["characters", "tokens", "bytes"]) -> None:
        super().__init__(f"qwen-asr: the prompt is longer than {max_length} {unit}: it has {length}; shorten it")


class UnsupportedSampleRate(InvalidRequest):
    """A live stream of another sample rate than the model's, in Hz."""

    def __init__(self, rate: int) -> None:
        super().__init__(f"qwen-asr: live sound is taken at {rate} Hz only; resample it and send sample_rate {rate}")


class UnknownParameter(InvalidRequest):
    """A live stream's params hold a name that is not `known`."""

    def __init__(self, known: Iterable[str]) -> None:
        super().__init__(f"qwen-asr: params of a live stream may hold {' and '.join(known)}, and nothing else")


class ConfigMissing(InvalidRequest):
    """A live stream's first message is no config."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: the first message of a live stream must be its config")


class NonFiniteSound(InvalidRequest):
    """Live samples are NaN or inf."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: live sound must be finite numbers within [-1, 1]")


class LiveMessageTooLarge(InvalidRequest):
    """A message of a live stream holds more than `max_s` seconds of sound."""

    def __init__(self, max_s: float) -> None:
        super().__init__(f"qwen-asr: a live message holds more than {max_s:g} s of sound; send smaller ones")


class NoKnownText(InvalidRequest):
    """The model aligns known texts, and the request has none."""

    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: this model finds the times of a known text; send the text as `prompt`, or use a model without "
            "the option task:align to transcribe"
        )


class NothingHeard(InvalidRequest):
    """No line of the known text was heard in the recording."""

    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: nothing of the text was heard in the recording; send the text of this recording, and its "
            "language"
        )


class AlignmentLanguageUnknown(InvalidRequest):
    """A known text is in a language that the aligner does not know. `codes`: the codes that it knows."""

    def __init__(self, codes: Iterable[str]) -> None:
        super().__init__(
            "qwen-asr: the times of a text need one of the aligner's languages; set the language to one of: "
            f"{', '.join(codes)}"
        )


class AlignerMissing(AsrError):
    """A known text cannot be aligned, because the aligner does not load. `cause`: a text of serving/resident.py."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"qwen-asr: a known text cannot be aligned: {cause}; the backend's log has the details")


class LoadRefused(AsrError):
    """LoadModel fails; the message is its cause, for people."""


class InvalidOption(LoadRefused):
    """An option of LoadModel is unknown, or its value is out of range."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"option '{named(name)}' {problem}")


class CheckpointRefused(LoadRefused):
    """The folder or hub repository is no checkpoint that this backend can load."""


class NonFiniteCheckpoint(CheckpointRefused):
    """Weights or logits are NaN or inf in the load's dtype. In another one they may be finite."""


class HubFailure(CheckpointRefused):
    """The hub did not deliver the checkpoint. `cause`: one of the fixed texts of checkpoint/hub."""

    def __init__(self, repository: str, cause: str) -> None:
        super().__init__(f"the hub repository '{named(repository)}' {cause}")


class AlignerRefused(CheckpointRefused):
    """The option forced_aligner names nothing that can be an aligner. `cause`: for people."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"option 'forced_aligner': {cause}")


class ServersRefused(LoadRefused):
    """The servers that `engine_url` names cannot be used. `causes`: for each, its URL, what it does and what helps."""

    def __init__(self, causes: Iterable[tuple[str, str, str]]) -> None:
        shown = "; ".join(f"{named(url)} {cause} ({remedy})" for url, cause, remedy in causes)
        super().__init__(f"engine_url: {shown}")


class DeviceUnavailable(LoadRefused):
    """The device that the options name is not there. `requested`: its name; `present`: the devices that are there."""

    def __init__(self, requested: str, present: Iterable[str]) -> None:
        super().__init__(
            f"{requested} was asked for, but this machine's torch finds only {', '.join(present)}; "
            "name one of these, or none to have one chosen; a GPU needs its own install (BUILD_TYPE)"
        )


class GpuNotAnswering(LoadRefused):
    """torch is built for GPUs and finds none. `words`: the driver's; `build_type`: the install that fits the GPU."""

    def __init__(self, build: str, words: str, build_type: str) -> None:
        super().__init__(
            f"torch is built for {build}, but no GPU answers: {named(words)}; update the driver, install what fits it "
            f"by BUILD_TYPE={build_type} make install, or choose the CPU by the option device:cpu"
        )
        self.words = words


class NoKernelsForGpu(LoadRefused):
    """torch was not compiled for the GPU. `capability`: the GPU's; `older`: than all that torch was compiled for."""

    def __init__(self, build: str, capability: str, older: bool) -> None:
        super().__init__(
            f"torch for {build} has no kernels for this GPU, whose compute capability is {capability}; install by "
            f"CUDA={12 if older else 13} BUILD_TYPE=cublas make install, or choose another GPU (MainGPU) or device:cpu"
        )


class TooLittleMemory(LoadRefused):
    """The weights do not fit into the device's memory. `needed`, `free`: bytes; None where the memory ran out."""

    def __init__(self, needed: float | None = None, free: float | None = None) -> None:
        numbers = (
            "" if needed is None or free is None else f" (it needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free)"
        )
        super().__init__(
            f"the device has too little memory for this model{numbers}; choose a smaller one, another GPU (MainGPU), "
            "Quantization int8, or torch_dtype:bf16 or fp16"
        )


class DeviceLost(LoadRefused):
    """The GPU failed during a load; no later load can succeed in this process."""

    def __init__(self) -> None:
        super().__init__("the device was lost while a model was loaded; the backend ends and has to be started again")


class ModelNotLoaded(AsrError):
    """No model is loaded. The gateway acts on this message."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: model not loaded")


class IdentityMismatch(AsrError):
    """The request names a model other than the loaded one. The gateway acts on this message; both names are the
    operator's.
    """

    def __init__(self, loaded: str, requested: str) -> None:
        super().__init__(f"model identity mismatch: loaded '{named(loaded)}', requested '{named(requested)}'")


class Unauthenticated(AsrError):
    """The call lacks the operator's token."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: send the metadata `authorization: Bearer <token>` with the operator's token")


class CapabilityMissing(AsrError):
    """The method is part of the contract but not implemented."""

    def __init__(self, capability: str) -> None:
        super().__init__(f"qwen-asr: {capability} is not supported; use AudioTranscription")


class Overloaded(AsrError):
    """Admission control rejected the request."""

    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: too many requests, or too much audio, are being transcribed; send the request again later"
        )


class TooLittleAudioMemory(AsrError):
    """The recording's samples, and what they are searched for speech with, do not fit into the memory that is free."""

    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: there is too little memory for this recording now; send it in parts, or again later; the "
            "operator can give the server more memory, or raise max_audio_memory_mb"
        )


class TooManyStreams(Overloaded):
    """`live_max_streams` live streams are open."""

    def __init__(self, count: int) -> None:
        AsrError.__init__(self, f"qwen-asr: {count} live streams are open (live_max_streams); try again later")


class FallingBehind(AsrError):
    """A live stream sends sound faster than the model can follow; `max_s` seconds of it wait."""

    def __init__(self, max_s: float) -> None:
        super().__init__(
            f"qwen-asr: falling behind: {max_s:g} s of sound wait for the model; send it no faster than it is spoken, "
            "use a smaller model, or fewer streams"
        )


class NothingInTime(FallingBehind):
    """Within `limit_s` seconds of a live stream's end nothing of its speech was recognised."""

    def __init__(self, limit_s: float) -> None:
        AsrError.__init__(
            self,
            f"qwen-asr: falling behind: no speech was recognised within {limit_s:g} s of the sound's end; use a "
            "smaller model, quantization int8, a longer live_step_seconds, or fewer streams",
        )


class StillLoading(FallingBehind):
    """`limit_s` seconds after a live stream's end its model, which had been released while idle, is still loaded."""

    def __init__(self, limit_s: float) -> None:
        AsrError.__init__(
            self,
            f"qwen-asr: falling behind: the model was released while idle, and its load was not done {limit_s:g} s "
            "after the sound's end; send the sound again, or the operator can raise idle_unload_seconds",
        )


class Stopping(AsrError):
    """The call came during the graceful shutdown, or was cancelled by it."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: the backend is stopping; send the request again")


class OutOfMemory(AsrError):
    """Memory ran out for this request, even without others beside it."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: out of memory for this request; lower max_chunk_seconds or batch_max_size")


class Cancelled(AsrError):
    """The request was cancelled while its recording was decoded."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: the request was cancelled")


class DeadlineTooShort(AsrError):
    """The recording cannot be transcribed before the client's deadline, not even at the best known speed."""

    def __init__(self) -> None:
        super().__init__("qwen-asr: the deadline is too short for this recording; allow more time or send it in parts")


class EngineFailure(AsrError):
    """A fault of this backend or of a library; the log has the traceback."""

    def __init__(self, message: str = "qwen-asr: internal error; the backend's log has the details") -> None:
        super().__init__(message)


class RecognitionServersFailed(EngineFailure):
    """No server that `engine_url` names recognised a passage. `cause`: one of the fixed texts of remote/."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"qwen-asr: a passage was not recognised: the server of engine_url {cause}; see the log")


class NonFiniteLogits(EngineFailure):
    """The model produced NaN or inf logits. Their argmax is a token that the model never chose."""

    def __init__(self) -> None:
        super().__init__(
            "qwen-asr: the model produced NaN or inf logits; set torch_dtype:fp32, or fetch the checkpoint again"
        )


class ReloadFailed(EngineFailure):
    """A model that was released for idleness cannot be loaded again. `cause`: that of the load."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"qwen-asr: the model was released while idle and cannot be loaded again: {cause}")


class AlignerUnavailable(AsrError):
    """The aligner cannot serve this request. It never becomes a status: the transcript is sent with coarse times.

    `kind`: of the warning that says so, see process/request_warning.py.
    """

    def __init__(self, cause: str, kind: str = "aligner_unavailable") -> None:
        super().__init__(cause)
        self.kind = kind


class Fatal(Exception):
    """The process has to exit; the message is the last line of its log."""


class CannotListen(Fatal):
    """Listening failed. `cause`: for people. The address is the operator's own."""

    def __init__(self, address: str, cause: str = "the address is taken or not this machine's") -> None:
        super().__init__(f"cannot listen on {named(address)}: {cause}")


class StallSecondsRefused(Fatal):
    """QWEN_ASR_STALL_SECONDS is not a number of at least `min_s` seconds."""

    def __init__(self, min_s: float) -> None:
        super().__init__(f"QWEN_ASR_STALL_SECONDS must be a number of seconds, at least {min_s:g}")


class TokenRefused(Fatal):
    """LOCALAI_GRPC_AUTH_TOKEN is set to what no call can carry."""

    def __init__(self) -> None:
        super().__init__(
            "LOCALAI_GRPC_AUTH_TOKEN is set but holds no token that a call can carry: printable ASCII in one line; "
            "unset it to serve without a token"
        )


class NoThreads(Fatal):
    """The system starts no thread for this process."""

    def __init__(self) -> None:
        super().__init__(
            "no thread can be started: raise the limit on processes (ulimit -u, the container's pids limit), or update "
            "the container runtime if its seccomp profile forbids clone3"
        )


class EngineDead(Fatal):
    """The engine will not answer again. `cause`: one of the fixed texts of serving/scheduler.py and server.py."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the engine cannot go on: {cause}; the backend has to be started again")


class MetricsAddressRefused(Fatal):
    """QWEN_ASR_METRICS is not a port or a loopback address."""

    def __init__(self) -> None:
        super().__init__(
            "QWEN_ASR_METRICS must be a port, or a loopback address with one, such as 9109 or 127.0.0.1:9109"
        )
