"""AudioTranscriptionLive on the wire: requests in, responses out, and nothing else.

The gateway's microphone waits for `ready`, for each of its sends, and for the final result. So `ready` is the first
thing that is sent, and a task of its own reads requests as they come, whatever the model and the client's reads do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from backend.errors import ConfigMissing, LiveMessageTooLarge
from backend.live.live_stream import LiveStream
from backend.live.live_transcriber import LiveTranscriber
from backend.pipeline.transcript_builder import Transcript, in_thread_if_long
from backend.process.request_stats import QUIET, RequestStats
from backend.wire import backend_pb2 as pb
from backend.wire import messages

Requests = AsyncIterator[pb.TranscriptLiveRequest]


async def live_responses(
    requests: Requests, transcriber: LiveTranscriber, stats: RequestStats
) -> AsyncGenerator[pb.TranscriptLiveResponse]:
    """The responses of a call: ready, events, one final result; none for a client that sends nothing.

    The first message is waited for as long as for sound. Raises any AsrError but LoadRefused.
    """
    reading = asyncio.ensure_future(_next(requests))
    try:
        await asyncio.wait({reading}, timeout=transcriber.quiet_s)
        if not reading.done():
            stats.finish = QUIET
            return
        first = reading.result()
    finally:
        reading.cancel()
    if first is None:
        return
    if _checked(first).WhichOneof("payload") != "config":
        raise ConfigMissing
    async with transcriber.opened(messages.live_options(first.config), stats) as stream:
        yield pb.TranscriptLiveResponse(ready=True)
        reader = asyncio.create_task(_read(requests, stream, transcriber))
        try:
            async with aclosing(stream.events()) as events:
                async for event in events:
                    if isinstance(event, Transcript):
                        yield await _final(event, stats)
                    else:
                        if event.delta:
                            stats.record_delta()
                        yield messages.live_response(event)
        finally:
            reader.cancel()
            await asyncio.wait({reader})


async def _read(requests: Requests, stream: LiveStream, transcriber: LiveTranscriber) -> None:
    """Feed the stream with what comes; what is wrong with it ends the stream."""
    try:
        while (request := await _next(requests)) is not None:
            payload = _checked(request).WhichOneof("payload")
            if payload == "audio":
                stream.feed(messages.live_samples(request.audio))
            elif payload == "config":
                await transcriber.start_over(stream, messages.live_options(request.config))
        stream.finish()
    except Exception as error:  # noqa: BLE001 - raised again by the stream's events
        stream.fail(error)


async def _next(requests: Requests) -> pb.TranscriptLiveRequest | None:
    """The next request; None when the client has closed its side."""
    try:
        return await anext(requests)
    except StopAsyncIteration:
        return None


def _checked(request: pb.TranscriptLiveRequest) -> pb.TranscriptLiveRequest:
    """The request, if wire/auth.py has let it be parsed."""
    if request is messages.UNPARSED_LIVE_REQUEST:
        raise LiveMessageTooLarge(messages.MAX_LIVE_MESSAGE_S)
    return request


async def _final(transcript: Transcript, stats: RequestStats) -> pb.TranscriptLiveResponse:
    stats.language, stats.segments = transcript.language, len(transcript.segments)
    stats.warnings = transcript.warnings
    result = await in_thread_if_long(transcript.duration_s, lambda: messages.transcript_result(transcript))
    return pb.TranscriptLiveResponse(final_result=result)
