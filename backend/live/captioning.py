"""The state machine of a live stream: the sound since its config in, settled text out.

    quiet --onset--> speaking --pause, or the end of the sound--> commit --> quiet
                     speaking --the window is full--> commit of its first part --> speaking

- Speaking: the window, which begins before the onset, is decoded again about every second (GrowingAnswer). What two
  decodes agree on leaves, but for the last words.
- Commit: the piece is recognised for good, with every fallback of a recording's passage, and the rest of its text
  leaves. If the growing window was decoded with all of its speech, that answer is the first. Sound before it is
  forgotten, and nothing of it is known to the next window, but for the language.
- A window that is full is cut in a pause. Text that was sent of the sound behind the cut begins the next window's.
- Once the sound has ended, windows are only committed. At the deadline the last answer stands, and the transcript says
  how much speech follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backend.audio.causal_vad import CausalDetector, NoDetector
from backend.audio.silero import FRAME
from backend.audio.waveform import SAMPLE_RATE, Samples
from backend.live.cadence import Cadence, whole_speech
from backend.live.endpointing import Endpointing
from backend.live.final_deadline import FinalDeadline
from backend.live.growing_answer import GrowingAnswer
from backend.live.lag import Arrivals
from backend.live.live_event import LiveEvent
from backend.live.live_setup import LiveSetup
from backend.live.sound_window import Piece, SoundWindow
from backend.live.utterance_pieces import UtterancePieces
from backend.live.utterance_recognition import Recognized, UtteranceRecognition
from backend.options.load_options import LoadOptions
from backend.pipeline.end_of_utterance import ends_utterance
from backend.pipeline.transcript_builder import Transcript
from backend.thresholds import (
    LIVE_CUT_PAUSE_S,
    LIVE_FINAL_S,
    LIVE_LEAD_S,
    LIVE_MAX_WINDOW_S,
    LIVE_REST_SHARE,
    LIVE_SOFT_WINDOW_SHARE,
    LIVE_TAIL_S,
)
from backend.transcript.joining import separator_between

Say = Callable[[LiveEvent], None]
Fail = Callable[[BaseException], None]

_LEAD, _TAIL = round(LIVE_LEAD_S * SAMPLE_RATE), round(LIVE_TAIL_S * SAMPLE_RATE)
_FRAME_S = FRAME / SAMPLE_RATE


def new_detector(load: LoadOptions) -> CausalDetector | NoDetector:
    """The detector of one stream, by the operator's options."""
    return CausalDetector() if load.vad else NoDetector()


class Captioning:
    """One config's captions. For the event loop's thread; `hear` and `finish` are awaited one at a time."""

    def __init__(self, setup: LiveSetup, say: Say, fail: Fail, deadline: FinalDeadline) -> None:
        """`say` is called with each event; `fail` with an error of a decode that nobody awaits."""
        self._setup = setup
        self._load = load = setup.instance.options
        self._say = say
        self._fail = fail
        self._deadline = deadline
        self._detector, self._window = new_detector(load), SoundWindow(load)
        self._arrivals = Arrivals()
        self._endpointing = Endpointing(self._window.rules)
        self._cadence = Cadence(load.live_step_s)
        self._recognition = UtteranceRecognition(setup, deadline)
        self._growing = GrowingAnswer(setup.instance.recognizer, setup.options.language, load.live_hold_words)
        self._pieces = UtterancePieces(setup, say, deadline)
        self._max_window = round(min(setup.instance.max_chunk_s, LIVE_MAX_WINDOW_S) * SAMPLE_RATE)
        self._before = ""  # the text of the last piece that has any
        self._utterance = ""  # the text of the last piece of this utterance
        self._is_speaking = False
        self._speech_end = 0  # the frame behind the last one of speech
        self._decoding: asyncio.Task[None] | None = None
        self._settling: asyncio.Future[str] | None = None  # the decode that runs

    @property
    def is_speaking(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return self._is_speaking

    @property
    def undecoded_s(self) -> float:
        """Seconds of sound since the last decode, while somebody speaks."""
        return (self._window.received - self._cadence.decoded_to) / SAMPLE_RATE if self._is_speaking else 0.0

    async def hear(self, samples: Samples, arrived: float) -> None:
        """Take sound, (n,), that arrived at that time of the event loop, and commit what ends in it.

        Raises OutOfMemory or EngineFailure.
        """
        self._window.add(samples)
        self._arrivals.note(self._window.received, arrived)
        for likelihood in self._detector.likelihoods(samples):
            await self._hear_frame(float(likelihood))

    async def finish(self) -> Transcript:
        """The transcript, when no sound follows. Raises as `hear`, or NothingInTime."""
        for likelihood in self._detector.last_likelihoods():
            await self._hear_frame(float(likelihood))
        if self._is_speaking:
            await self._end_utterance(is_pause=False)
        return await self._pieces.transcript(self._window.received / SAMPLE_RATE)

    async def close(self) -> None:
        """Cancel what runs. After that nothing is said."""
        self._set_speaking(False)
        await self._stop_decoding()
        await self._pieces.close()

    async def _hear_frame(self, likelihood: float) -> None:
        self._window.judge(likelihood)
        heard = self._endpointing
        heard.hear(likelihood)
        if heard.speech_begin is None:
            self._window.forget_before(heard.onset * FRAME - _LEAD)
            self._arrivals.forget_before(self._window.begin)
        else:
            self._speech_end = heard.speech_end
            self._set_speaking(True)
        if not self._is_speaking:
            return
        if self._pause_s >= self._load.live_endpoint_s:
            await self._end_utterance(is_pause=True)
        elif (cut := self._cut()) is not None:
            await self._commit(cut, is_cut=True)
        elif self._decoding is None and self._is_due():
            self._cadence.note_due(self._window.end)
            self._decoding = asyncio.create_task(self._decode())

    @property
    def _pause_s(self) -> float:
        return (self._endpointing.frames - self._speech_end) * _FRAME_S

    def _set_speaking(self, speaking: bool) -> None:
        if speaking and not self._is_speaking:
            self._cadence.begin_window(self._window.begin)
            self._setup.scheduler.utterance_began()
        elif self._is_speaking and not speaking:
            self._setup.scheduler.utterance_ended()
        self._is_speaking = speaking

    def _speech_piece_end(self) -> int:
        """Where the piece ends that holds the speech so far."""
        return min(self._speech_end * FRAME + _TAIL, self._window.end)

    def _cut(self) -> int | None:
        """Where the window has to be cut, or None."""
        length = self._window.end - self._window.begin
        if self._endpointing.speech_begin is None or length < LIVE_SOFT_WINDOW_SHARE * self._max_window:
            return None
        if self._pause_s >= LIVE_CUT_PAUSE_S:
            return self._window.end - round(self._pause_s / 2 * SAMPLE_RATE)
        if length < self._max_window:
            return None
        return self._window.deepest_pause(self._max_window)

    def _is_due(self) -> bool:
        return not self._deadline.has_begun and self._cadence.is_due(self._endpointing, self._window.end)

    async def _decode(self) -> None:
        """Decode the growing window while there is new sound, with a rest after each time."""
        loop, stats = asyncio.get_running_loop(), self._setup.stats
        try:
            while self._is_due():
                began = loop.time()
                piece = self._window.piece(end := self._speech_piece_end())
                self._cadence.note_decoded(self._window.end, end)
                is_whole = end == whole_speech(self._endpointing)
                with stats.measure("infer"):
                    settling = self._recognition.settle(piece, self._growing, is_whole=is_whole)
                    self._settling = asyncio.ensure_future(settling)
                    text = await self._settling
                stats.record_step(took_s := loop.time() - began)
                self._cadence.note_took(took_s)
                if text:
                    self._send(piece, text)
                await asyncio.sleep(LIVE_REST_SHARE * took_s)
        except Exception as error:  # noqa: BLE001 - whatever ends a decode ends the stream
            self._fail(error)
        self._decoding = None

    async def _stop_decoding(self) -> None:
        decoding, self._decoding = self._decoding, None
        if decoding is not None:
            decoding.cancel()
            await asyncio.wait({decoding})

    def _send(self, piece: Piece, text: str) -> None:
        """Send what of the window's settled text has not been sent."""
        self._say(LiveEvent(self._unsent(text)))
        self._record_lags(piece, text)
        self._growing.record_sent(text)

    def _unsent(self, text: str) -> str:
        """What of the window's text has not been sent, with the separator before it."""
        sent = self._growing.sent
        return text[len(sent) :] if sent else separator_between(self._before, text) + text

    def _record_lags(self, piece: Piece, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self._setup.stats.lags_s.extend(self._arrivals.lags(piece, text, len(self._growing.sent), now))

    async def _end_utterance(self, *, is_pause: bool) -> None:
        """Commit what the window holds; the next speech begins another utterance."""
        await self._commit(self._speech_piece_end(), is_pause=is_pause)
        self._setup.stats.utterances += bool(self._utterance)
        self._utterance = ""
        self._set_speaking(False)

    async def _commit(self, end: int, *, is_cut: bool = False, is_pause: bool = False) -> None:
        """Recognise the window up to `end` for good, and forget it."""
        end = max(end, self._window.begin)
        if self._settling is not None and self._is_wanted(end):
            await self._deadline.meets(self._settling)
        await self._stop_decoding()
        piece = self._window.piece(end)
        recognized = await self._recognition.finish(piece, self._growing, is_cut=is_cut)
        if recognized is None:
            is_pause = False  # nobody knows how the utterance ends
            piece, recognized = self._as_heard(piece)
            end = max(end, piece.place[1])
        self._utterance = recognized.text or self._utterance
        eou = is_pause and ends_utterance(self._utterance, self._load.live_eou)
        delta = self._unsent(recognized.text)
        if delta or eou:
            self._say(LiveEvent(delta, eou=eou))
        self._record_lags(piece, recognized.text)
        self._before = recognized.text or self._before
        self._pieces.add(piece, recognized.parts)
        self._growing = self._growing.carried_to(recognized.carried)
        self._window.forget_before(end)
        self._arrivals.forget_before(end)
        self._cadence.begin_window(end)
        self._endpointing = Endpointing(self._window.rules, end // FRAME)
        for likelihood in self._window.likelihoods_from(end // FRAME):
            self._endpointing.hear(likelihood)

    def _is_wanted(self, end: int) -> bool:
        """Whether the decode that runs is waited for before the commit of the window up to `end`.

        It is where its answer is that of this piece. At the end of the sound it is where the window has no answer yet,
        and where decodes take so long that a commit would not be done before the deadline either.
        """
        is_needed = self._growing.last is None or self._cadence.took_s > LIVE_FINAL_S
        return self._cadence.piece_end == end or (self._deadline.has_begun and is_needed)

    def _as_heard(self, piece: Piece) -> tuple[Piece, Recognized]:
        """What has text of a piece that is late, and that text. The speech behind it is skipped."""
        heard_to = self._growing.heard_to
        heard = self._window.piece(heard_to) if heard_to > self._window.begin else piece
        recognized = self._recognition.as_heard(heard, self._growing)
        self._pieces.skip(piece.speech_s(heard_to if recognized.text else self._window.begin))
        return heard if recognized.text else piece, recognized
