"""The lane `live`: every recording is spoken to the running backend at its own pace, clean and in noise.

Beside it in the same run: the same sound as a file. Several recordings are spoken at once, because one alone takes as
long as it is. Then recordings with pauses put into them, and sounds without speech.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import soundfile
from numpy.typing import NDArray

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.eval import nonspeech
from devtools.eval.hypotheses import Hypothesis
from devtools.eval.live.pauses import ended, with_pauses
from devtools.eval.live.word_lag import of_deltas
from devtools.eval.manifest import Entry
from devtools.eval.passages import SAMPLE_RATE, in_noise
from devtools.eval.scoring import Count, score
from devtools.live.paced_client import UNLIMITED, LiveRun, speak, timed_messages
from devtools.live.request_log import log_of
from devtools.server_process import ServerFailed, ServerProcess

CONDITIONS = {"clean": math.inf, "10 dB": 10.0, "5 dB": 5.0}
_METHOD = "AudioTranscriptionLive"
_PROBES_AT_ONCE = 16
_LONGEST_WITH_PAUSES_S = 60.0
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Spoken:
    """One recording in one condition. `lags`: of its words, (true end, lag) in seconds; none without true times.

    `whole`: the stream ended with OK, and its deltas were its final text. `rewrites`, `utterances`: the server's own.
    """

    entry_id: str
    condition: str
    text: str
    file_text: str
    words: Count
    file_words: Count
    lags: tuple[tuple[float, float], ...]
    whole: bool
    failure: str = ""
    rewrites: int = 0
    utterances: int = 0


@dataclass(frozen=True)
class LiveLane:
    """`ends`, `inside`: pauses at sentences' ends and inside them: how many were taken for an end, of how many.

    `invented`: how many of `probes` sounds without speech were given a text.
    """

    spoken: tuple[Spoken, ...]
    ends: tuple[int, int]
    inside: tuple[int, int]
    invented: tuple[str, ...] = ()
    probes: int = 0

    def of(self, condition: str) -> list[Spoken]:
        return [each for each in self.spoken if each.condition == condition]


@dataclass(frozen=True)
class _Case:
    """A sound to be spoken."""

    entry: Entry
    condition: str
    sound: Sound


def run(
    entries: Sequence[Entry], options: pb.ModelOptions, at_once: int, levels: Sequence[float], languages: Sequence[str]
) -> LiveLane:
    """All in one server; `levels` and `languages` are those of the sounds without speech. Raises ServerFailed."""
    with ServerProcess(with_token=True) as server:
        server.load(options)
        spoken = _said(server, list(_cases(entries)), at_once)
        ends, inside = _judged(server, entries, at_once)
        probes = [(kind, level, language) for kind in nonspeech.KINDS for level in levels for language in languages]
        invented = [run.text for run in _spoken(server, [_probe(*each) for each in probes], _PROBES_AT_ONCE)]
    found = tuple(kind for (kind, *_), text in zip(probes, invented, strict=True) if text.strip())
    return LiveLane(tuple(spoken), ends, inside, found, len(probes))


def _cases(entries: Sequence[Entry]) -> Iterator[_Case]:
    """The longest first, so that the last ones do not wait for it alone. Noise has a level where words have times."""
    sounds = sorted(((entry, entry.samples()) for entry in entries), key=lambda each: -each[1].size)
    for entry, samples in sounds:
        for condition, snr_db in CONDITIONS.items():
            if entry.words or condition == "clean":
                noisy = in_noise(entry, samples, snr_db)
                # as the microphone of a sound card: beyond full scale there is nothing
                yield _Case(entry, condition, np.clip(noisy, -1, 1))


def _said(server: ServerProcess, cases: Sequence[_Case], at_once: int) -> list[Spoken]:
    with tempfile.TemporaryDirectory() as folder:
        files = [_as_file(server, case, Path(folder) / f"{number}.wav") for number, case in enumerate(cases)]
    runs = _spoken(server, [(case.sound, "") for case in cases], at_once)
    log = {line["request"]: line for line in log_of(server, _METHOD, len(runs))}
    return [_compared(case, run, text, log) for case, run, text in zip(cases, runs, files, strict=True)]


def _as_file(server: ServerProcess, case: _Case, path: Path) -> str:
    soundfile.write(path, case.sound, SAMPLE_RATE, subtype="FLOAT")
    return server.transcript(str(path)).text


def _compared(case: _Case, run: LiveRun, file_text: str, log: Mapping[str, Mapping[str, Any]]) -> Spoken:
    entry, line = case.entry, log.get(run.request, {})
    deltas = [(event.at_s, event.delta) for event in run.events]
    arrivals = of_deltas(deltas, entry.words, entry.language) if entry.is_speech else []
    return Spoken(
        entry_id=entry.id,
        condition=case.condition,
        text=run.text,
        file_text=file_text,
        words=score(entry, Hypothesis(run.text, failure=run.failure)).words,
        file_words=score(entry, Hypothesis(file_text)).words,
        lags=tuple((arrival.word.end_s, arrival.lag_s) for arrival in arrivals),
        whole=run.is_whole,
        failure=run.failure,
        rewrites=int(line.get("rewrites", 0)),
        utterances=int(line.get("utterances", 0)),
    )


def _judged(server: ServerProcess, entries: Sequence[Entry], at_once: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of the pauses at sentences' ends, then of those inside: how many were taken for an end, of how many."""
    short = [entry for entry in entries if entry.words and entry.words[-1].end_s <= _LONGEST_WITH_PAUSES_S]
    sounds = [with_pauses(entry, entry.samples()) for entry in short]
    runs = _spoken(server, [(sound, "") for sound, _ in sounds], at_once)
    found = [
        (pause.ends_sentence, was_ended)
        for (_, pauses), run in zip(sounds, runs, strict=True)
        for pause, was_ended in zip(pauses, ended(pauses, run.events), strict=True)
    ]
    at_ends, inside = ([was_ended for is_end, was_ended in found if is_end is wanted] for wanted in (True, False))
    return (sum(at_ends), len(at_ends)), (sum(inside), len(inside))


def _probe(kind: str, level: float, language: str) -> tuple[Sound, str]:
    return nonspeech.sound(kind, seconds=nonspeech.usual_length_s(kind), level=level), language


def _spoken(server: ServerProcess, sounds: Sequence[tuple[Sound, str]], at_once: int) -> list[LiveRun]:
    """Each sound with its language, `at_once` of them at a time. Raises ServerFailed where the server has ended."""

    async def say_all() -> list[LiveRun]:
        places = asyncio.Semaphore(at_once)
        async with grpc.aio.insecure_channel(server.address, options=UNLIMITED) as channel:
            stub = rpc.BackendStub(channel)  # type: ignore[no-untyped-call] # generated without types

            async def say(sound: Sound, language: str) -> LiveRun:
                async with places:
                    messages = await asyncio.to_thread(timed_messages, sound)
                    return await speak(stub, messages, language=language, metadata=server.metadata)

            return list(await asyncio.gather(*(say(*each) for each in sounds)))

    runs = asyncio.run(say_all())
    server.check_alive()
    if runs and all(run.failure for run in runs):
        raise ServerFailed(f"no stream ended with OK; the first: {runs[0].failure}")
    return runs
