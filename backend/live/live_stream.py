"""One live stream: sound comes in whatever the model does, events leave as fast as the client reads them.

- `feed` never waits. Sound that the model has not caught up with waits here, at most MAX_BACKLOG_S of it.
- While the client does not read, deltas merge into one, so what waits for it is bounded by its text.
- A second config forgets everything. The end of the sound, a model that is freed, a stop of the process and a client
  that sends nothing for a while end a stream alike: what was said is committed, as far as there is time before the
  deadline, and the transcript is the last event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace

from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.errors import FallingBehind, StillLoading
from backend.live.captioning import Captioning, new_detector
from backend.live.final_deadline import FinalDeadline
from backend.live.live_event import LiveEvent
from backend.live.live_setup import LiveSetup
from backend.live.sound_window import SoundWindow
from backend.live.utterance_pieces import UtterancePieces
from backend.options.load_options import TranscribeOptions
from backend.pipeline.transcript_builder import Transcript
from backend.process.request_stats import QUIET
from backend.thresholds import LIVE_FINAL_S

MAX_BACKLOG_S = 60
_SLICE = SAMPLE_RATE // 2  # samples that are heard at a time: the event loop serves others between two


class LiveStream:
    """For the event loop's thread."""

    def __init__(self, setup: LiveSetup) -> None:
        self._setup = setup
        self._inbox: deque[tuple[Samples, float]] = deque()  # sound, and when it arrived
        self._backlog = 0  # samples in it
        self._outbox: deque[LiveEvent | Transcript] = deque()
        self._heard = asyncio.Event()  # the inbox or the end has changed
        self._said = asyncio.Event()  # the outbox or the failure has changed
        self._is_finishing = False
        self._deadline = FinalDeadline()
        self._failure: BaseException | None = None
        self._captioning: Captioning | None = None
        self._worker: asyncio.Task[None] | None = None
        self._last_sound = asyncio.get_running_loop().time()
        self._end_if_quiet()

    @property
    def setup(self) -> LiveSetup:
        return self._setup

    @property
    def is_speaking(self) -> bool:
        return self._captioning is not None and self._captioning.is_speaking

    @property
    def behind_s(self) -> float:
        """Seconds of sound that came after what was decoded last; of silence only those that wait."""
        undecoded_s = 0.0 if self._captioning is None else self._captioning.undecoded_s
        return self._backlog / SAMPLE_RATE + undecoded_s

    def feed(self, samples: Samples) -> None:
        """Take sound, (n,). After the end it is ignored. Raises FallingBehind."""
        if not samples.size or self._is_finishing:
            return
        if self._backlog + samples.size > MAX_BACKLOG_S * SAMPLE_RATE and self._backlog:
            raise FallingBehind(MAX_BACKLOG_S)
        self._last_sound = asyncio.get_running_loop().time()
        self._inbox.append((samples, self._last_sound))
        self._backlog += samples.size
        self._setup.stats.audio_s += samples.size / SAMPLE_RATE
        self._setup.stats.behind_s = max(self._setup.stats.behind_s, self.behind_s)
        self._heard.set()

    async def start_over(self, options: TranscribeOptions) -> None:
        """Forget everything, and what the client has not read: a second config has come."""
        if self._is_finishing:
            return
        await self._stop_worker()
        self._captioning = None
        self._inbox.clear()
        self._outbox.clear()
        self._backlog = 0
        self._setup.stats.audio_s = 0.0
        self._setup = replace(self._setup, options=options)
        self._worker = asyncio.create_task(self._caption())

    def finish(self) -> None:
        """No sound follows: commit what was said, and end with the transcript, before the deadline."""
        self._is_finishing = True
        self._deadline.begin()
        self._heard.set()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error."""
        self._failure = self._failure or error
        self._said.set()

    async def events(self) -> AsyncGenerator[LiveEvent | Transcript]:
        """The events; the last is the transcript.

        Raises what `fail` was called with, OutOfMemory, EngineFailure, NothingInTime, StillLoading or as LiveSetup.
        """
        self._worker = asyncio.create_task(self._caption())
        while True:
            await self._said.wait()
            self._said.clear()
            while self._outbox:
                event = self._outbox.popleft()
                yield event
                if isinstance(event, Transcript):
                    return
            if self._failure is not None:
                raise self._failure

    async def close(self) -> None:
        """Cancel what runs."""
        self._is_finishing = True
        self._quiet_timer.cancel()
        self._deadline.cancel()
        await self._stop_worker()
        self._inbox.clear()

    async def _caption(self) -> None:
        try:
            if await self._is_loaded():  # meanwhile sound waits in the inbox
                await self._caption_with_model()
            else:
                self._end(await self._transcript_without_model())
        except Exception as error:  # noqa: BLE001 - whatever ends the captions ends the stream
            self.fail(error)

    async def _is_loaded(self) -> bool:
        """Wait for the model. Whether it is in memory before the deadline."""
        if self._setup.model is None:
            loading = asyncio.ensure_future(self._setup.loaded())
            try:
                if not await self._deadline.meets(loading):
                    return False
                self._setup = loading.result()
            finally:
                loading.cancel()
        return True

    async def _caption_with_model(self) -> None:
        self._captioning = captioning = Captioning(self._setup, self._say, self.fail, self._deadline)
        try:
            while self._inbox or not self._is_finishing:
                if self._inbox:
                    await captioning.hear(*self._next_slice())
                    await asyncio.sleep(0)
                else:
                    self._heard.clear()
                    await self._heard.wait()
            self._end(await captioning.finish())
        finally:
            await captioning.close()

    async def _transcript_without_model(self) -> Transcript:
        """The transcript of a stream whose sound ended before its model was loaded.

        Raises StillLoading, or ModelNotLoaded after Free.
        """
        detector, window = new_detector(self._setup.load), SoundWindow(self._setup.load)
        while self._inbox:
            samples, _ = self._next_slice()
            window.add(samples)
            for likelihood in detector.likelihoods(samples):
                window.judge(float(likelihood))
            await asyncio.sleep(0)
        for likelihood in detector.last_likelihoods():
            window.judge(float(likelihood))
        if window.piece(window.end).speech_s():
            self._setup.resident.check_loaded()
            raise StillLoading(LIVE_FINAL_S)
        pieces = UtterancePieces(self._setup, self._say, self._deadline)
        return await pieces.transcript(window.received / SAMPLE_RATE)

    def _end(self, transcript: Transcript) -> None:
        self._outbox.append(transcript)
        self._said.set()

    def _next_slice(self) -> tuple[Samples, float]:
        samples, arrived = self._inbox.popleft()
        if samples.size > _SLICE:
            self._inbox.appendleft((samples[_SLICE:], arrived))
            samples = samples[:_SLICE]
        self._backlog -= samples.size
        return samples, arrived

    def _say(self, event: LiveEvent) -> None:
        last = self._outbox[-1] if self._outbox else None
        merged = last.then(event) if isinstance(last, LiveEvent) else None
        if merged is None:
            self._outbox.append(event)
        else:
            self._outbox[-1] = merged
        self._said.set()

    async def _stop_worker(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    def _end_if_quiet(self) -> None:
        """End the stream if no sound has come for so long; look again when that may be so."""
        loop, limit_s = asyncio.get_running_loop(), self._setup.load.live_quiet_s
        if (left_s := self._last_sound + limit_s - loop.time()) > 0:
            self._quiet_timer = loop.call_later(left_s, self._end_if_quiet)
        elif not self._is_finishing:
            self._setup.stats.finish = QUIET
            self.finish()
