"""What a user of the gateway sees for each response_format. Pure functions: a TranscriptResult in, text out.

The timed formats show segments alone, as the gateway does; `words` in verbose_json are those of all segments, in order.
elrc, with the times of words, is none of the gateway's. Times come as nanoseconds and are rounded to the format's own
unit, never cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from backend.wire.backend_pb2 import TranscriptResult, TranscriptSegment

_NS_PER_S, _NS_PER_MS, _NS_PER_CS = 1_000_000_000, 1_000_000, 10_000_000


def as_json(result: TranscriptResult) -> str:
    return json.dumps({"text": result.text}, ensure_ascii=False, indent=2)


def as_verbose_json(result: TranscriptResult) -> str:
    words = [word for segment in result.segments for word in segment.words]
    fields = {
        "task": "transcribe",
        "language": result.language,
        "duration": round(result.duration, 3),  # float32 on the wire: 1.2 arrives as 1.2000000476837158
        "text": result.text,
        "segments": [
            {"id": s.id, "start": s.start / _NS_PER_S, "end": s.end / _NS_PER_S, "text": s.text, "tokens": [*s.tokens]}
            for s in result.segments
        ],
        "words": [{"word": w.text, "start": w.start / _NS_PER_S, "end": w.end / _NS_PER_S} for w in words],
    }
    return (
        "{\n" + ",\n".join(f"  {json.dumps(key)}: {_one_item_a_line(value)}" for key, value in fields.items()) + "\n}"
    )


def as_srt(result: TranscriptResult) -> str:
    cues = enumerate(_cues(result, ","), start=1)
    return "\n".join(f"{number}\n{cue}" for number, cue in cues)


def as_vtt(result: TranscriptResult) -> str:
    return "WEBVTT\n" + "".join(f"\n{cue}" for cue in _cues(result, "."))


def as_lrc(result: TranscriptResult) -> str:
    return "".join(f"[{minutes(segment.start)}] {segment.text.strip()}\n" for segment in result.segments)


def as_elrc(result: TranscriptResult) -> str:
    """Enhanced LRC (A2): the time of each word before it, and that of the line's end after the last."""
    return "".join(f"[{minutes(segment.start)}] {word_tagged(segment)}\n" for segment in result.segments)


def word_tagged(segment: TranscriptSegment) -> str:
    """The segment's text with <MM:SS.xx> before each word; as it is where it has no words."""
    text = segment.text.strip()
    if not segment.words:
        return text
    parts = []
    at = 0
    for word in segment.words:
        begin = text.index(word.text, at)
        parts.append(f"{text[at:begin]}<{minutes(word.start)}>{word.text}")
        at = begin + len(word.text)
    return f"{''.join(parts)}{text[at:]} <{minutes(segment.words[-1].end)}>"


def as_txt(result: TranscriptResult) -> str:
    return "".join(f"{segment.text.strip()}\n" for segment in result.segments)


FORMATS: dict[str, Callable[[TranscriptResult], str]] = {
    "json": as_json,
    "verbose_json": as_verbose_json,
    "srt": as_srt,
    "vtt": as_vtt,
    "lrc": as_lrc,
    "elrc": as_elrc,
    "txt": as_txt,
}


def _cues(result: TranscriptResult, mark: str) -> list[str]:
    """Times and text of each segment; `mark` stands before the milliseconds."""
    return [f"{_clock(s.start, mark)} --> {_clock(s.end, mark)}\n{s.text.strip()}\n" for s in result.segments]


def _clock(ns: int, mark: str) -> str:
    seconds, ms = divmod(_rounded(ns, _NS_PER_MS), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{ms:03d}"


def minutes(ns: int) -> str:
    """MM:SS.xx as in lyrics: minutes go on past 59, there are no hours."""
    seconds, cs = divmod(_rounded(ns, _NS_PER_CS), 100)
    return f"{seconds // 60:02d}:{seconds % 60:02d}.{cs:02d}"


def _rounded(ns: int, unit: int) -> int:
    """`ns` in whole units, halves up; in integers, because a float holds no hour of nanoseconds exactly."""
    return (ns + unit // 2) // unit


def _one_item_a_line(value: object) -> str:
    """JSON with a line for each segment and each word, where indent=2 would take one for every token id."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, ensure_ascii=False)
    return "[\n    " + ",\n    ".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n  ]"
