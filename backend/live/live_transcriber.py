"""All live streams: which are admitted, and that they end when their model is freed or the process stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from backend.errors import CapabilityMissing, ModelNotLoaded, TooManyStreams
from backend.live.live_setup import LiveSetup, lean_of
from backend.live.live_stream import MAX_BACKLOG_S, LiveStream
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.admission import Admission
from backend.pipeline.prompt import check_token_limit
from backend.process.request_stats import RequestStats
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler


class LiveTranscriber:
    """Transcribes sound that is still arriving, with the resident model. For the event loop's thread."""

    def __init__(self, resident: Resident, scheduler: Scheduler, admission: Admission) -> None:
        self._resident = resident
        self._scheduler = scheduler
        self._admission = admission
        self._streams: set[LiveStream] = set()

    @property
    def streams(self) -> int:
        """How many streams are open. From any thread, as all that counts them."""
        return len(self._streams)

    @property
    def speaking(self) -> int:
        """In how many of them somebody speaks."""
        return sum(stream.is_speaking for stream in self._streams.copy())

    @property
    def behind_s(self) -> float:
        """How many seconds of sound the stream is behind that is most behind."""
        return max((stream.behind_s for stream in self._streams.copy()), default=0.0)

    @property
    def quiet_s(self) -> float:
        """After so many seconds without sound a stream ends. Raises ModelNotLoaded."""
        load = self._resident.options
        if load is None:
            raise ModelNotLoaded
        return load.live_quiet_s

    @asynccontextmanager
    async def opened(self, options: TranscribeOptions, stats: RequestStats) -> AsyncIterator[LiveStream]:
        """A stream, for the time spent inside. It keeps the model that it began with.

        A model that was released for idleness is loaded again meanwhile. Raises ModelNotLoaded, CapabilityMissing,
        TooManyStreams, Overloaded or PromptTooLong.
        """
        load = self._resident.options
        if load is None:
            raise ModelNotLoaded
        if self._resident.aligns:  # also where it is not in memory: `ready` would be too late for a refusal
            raise CapabilityMissing("AudioTranscriptionLive")
        if len(self._streams) >= load.live_max_streams:
            raise TooManyStreams(len(self._streams))
        with self._admission.admitted(stats), self._resident.usage.model():
            self._admission.reserve(stats, MAX_BACKLOG_S)
            model = None if self._resident.state != "loaded" else lean_of(self._resident.current())
            if model is not None:
                await check_token_limit(options.prompt, model.recognizer)
            options = _with_defaults(options, load)
            stream = LiveStream(LiveSetup(self._resident, self._scheduler, model, load, options, stats))
            self._streams.add(stream)
            try:
                yield stream
            finally:
                self._streams.discard(stream)
                await stream.close()

    async def start_over(self, stream: LiveStream, options: TranscribeOptions) -> None:
        """A second config of the stream. Raises PromptTooLong."""
        if stream.setup.model is not None:
            await check_token_limit(options.prompt, stream.setup.model.recognizer)
        await stream.start_over(_with_defaults(options, stream.setup.load))

    def finish_all(self) -> None:
        """End all streams with what they have: their model is freed or replaced, or the process stops."""
        for stream in self._streams:
            stream.finish()


def _with_defaults(options: TranscribeOptions, load: LoadOptions) -> TranscribeOptions:
    return replace(options, times=True, words=True) if load.live_words else options
