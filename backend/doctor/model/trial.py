"""The operator's model in a server of its own: load time, speed on two lengths of speech, peak memory."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.doctor.child_process import run
from backend.doctor.findings import Finding, fail, ok, warn
from backend.doctor.places import DEMO_AUDIO
from backend.process.machine.available_memory import PROC, read_lines

if TYPE_CHECKING:
    from backend.doctor.server_process import ServerProcess

LENGTHS_S = (11.0, 60.0)
_LOAD_TIMEOUT_S, _ANSWER_TIMEOUT_S = 4 * 3600.0, 3600.0  # a load may download gigabytes
_LOG_TIMEOUT_S, _SMI_TIMEOUT_S = 2.0, 10.0


@dataclass(frozen=True)
class Timing:
    """One recording. `tokens` of the text and the seconds `infer_s` that the recogniser took for it; 0: not known."""

    audio_s: float
    took_s: float
    tokens: int = 0
    infer_s: float = 0.0

    @property
    def factor(self) -> float:
        """Times real time."""
        return self.audio_s / self.took_s


@dataclass(frozen=True)
class Trial:
    """A load and the requests after it, as far as they came. Bytes: the server's peak, on the GPU 0 if not known."""

    failure: str = ""
    load_s: float | None = None
    timings: tuple[Timing, ...] = ()
    peak_bytes: int = 0
    gpu_bytes: int = 0
    text: str | None = None


def try_out(model: str, local: bool, aligner: str, quantization: str, pairs: Sequence[str]) -> Trial:
    """Loads the model in a server of its own, and transcribes. What fails is in the trial.

    `local`: the model is a folder. `aligner`: "" for none, else what was found. `pairs`: the options, `name:value`.
    """
    trial = Trial()
    try:
        from backend.doctor.server_process import ServerProcess
        from backend.wire.backend_pb2 import ModelOptions

        request = ModelOptions(
            Model=model,
            ModelFile=model if local else "",
            Options=[*pairs, "task:transcribe", *([f"forced_aligner:{aligner}"] if aligner else [])],  # the last counts
            Quantization=quantization,
        )
        with ServerProcess(environment={"QWEN_ASR_METRICS": ""}) as server, tempfile.TemporaryDirectory() as folder:
            trial = replace(trial, load_s=server.load(request, _LOAD_TIMEOUT_S))
            recordings = [_recording(Path(folder), length_s) for length_s in LENGTHS_S]
            first = server.transcript(str(recordings[0]), words=bool(aligner), timeout_s=_ANSWER_TIMEOUT_S)
            trial = replace(trial, text=first.text)  # not timed: the aligner joins, and caches fill
            for number, recording in enumerate(recordings):
                timing = _timed(server, recording, LENGTHS_S[number], bool(aligner), number + 1)
                trial = replace(trial, timings=(*trial.timings, timing))
            trial = replace(trial, peak_bytes=_peak_bytes(server.pid), gpu_bytes=_gpu_bytes(server.pid))
    except Exception as error:  # noqa: BLE001 - ServerFailed with the server's cause, stubs that are missing, a full disk
        return replace(trial, failure=" ".join(str(error).split()) or type(error).__name__)
    return trial


def _recording(folder: Path, length_s: float) -> Path:
    """The demo's recording, as often as needed, cut to the length."""
    with wave.open(str(DEMO_AUDIO)) as source:
        form, frames = source.getparams(), source.readframes(source.getnframes())
    size = int(length_s * form.framerate) * form.sampwidth * form.nchannels
    path = folder / f"{length_s:.0f}.wav"
    with wave.open(str(path), "wb") as target:
        target.setparams(form)
        target.writeframes((frames * (size // len(frames) + 1))[:size])
    return path


def _timed(server: ServerProcess, recording: Path, length_s: float, words: bool, earlier: int) -> Timing:
    """`earlier`: how many requests the server has answered before."""
    began = time.monotonic()
    result = server.transcript(str(recording), words=words, timeout_s=_ANSWER_TIMEOUT_S)
    took_s = time.monotonic() - began
    while len(lines := _request_lines(server)) <= earlier and time.monotonic() < began + took_s + _LOG_TIMEOUT_S:
        time.sleep(0.02)  # the log's line follows the reply
    infer_s = lines[earlier].get("infer_ms", 0) / 1000 if len(lines) > earlier else 0.0
    return Timing(length_s, took_s, sum(len(segment.tokens) for segment in result.segments), infer_s)


def _request_lines(server: ServerProcess) -> list[dict[str, Any]]:
    found = []
    for line in server.log_lines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [line for line in found if line.get("method") == "AudioTranscription"]


def _peak_bytes(pid: int) -> int:
    """The largest resident memory so far; 0 where the system does not say."""
    found = re.search(r"VmHWM:\s+(\d+) kB", " ".join(read_lines(PROC / str(pid) / "status")))
    return int(found[1]) * 1024 if found else 0


def _gpu_bytes(pid: int) -> int:
    """What the process holds on NVIDIA's cards now; its allocator gives nothing back in between."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    held = re.findall(rf"^{pid}, (\d+)", run(command, _SMI_TIMEOUT_S).stdout, re.MULTILINE)
    return sum(map(int, held)) << 20


def judge_trial(trial: Trial) -> list[Finding]:
    if trial.load_s is None:
        return [
            fail(
                "load",
                trial.failure,
                "follow the cause; if it names nothing: device:cpu, torch_dtype:fp32, batch_max_size:1",
            )
        ]
    found = [ok("load", f"{trial.load_s:.1f} s")]
    found += [_speed(timing) for timing in trial.timings]
    if trial.failure:
        return [
            *found,
            fail(
                "transcription",
                trial.failure,
                "follow the cause; if it names nothing: device:cpu, torch_dtype:fp32, batch_max_size:1",
            ),
        ]
    if not trial.text:
        found.append(warn("text", "none of an English recording", "another MODEL; torch_dtype:fp32 shows an overflow"))
    gpu = f", {trial.gpu_bytes / 1e9:.1f} GB on the GPU" if trial.gpu_bytes else ""
    return [*found, ok("peak memory", f"{trial.peak_bytes / 1e9:.1f} GB{gpu}")]


def _speed(timing: Timing) -> Finding:
    tokens = f", {timing.tokens / timing.infer_s:.0f} tokens a second" if timing.tokens and timing.infer_s else ""
    value = f"in {timing.took_s:.2f} s, {timing.factor:.1f} × real time{tokens}"
    name = f"{timing.audio_s:.0f} s of speech"
    return (
        ok(name, value)
        if timing.factor >= 1
        else warn(name, value, "quantization: int8; the 0.6B instead of the 1.7B; a GPU")
    )
