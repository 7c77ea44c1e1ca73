"""What a user of the gateway sees for each response_format. Pure functions: a TranscriptResult in, text out.

The timed formats show segments alone, as the gateway does; `words` in verbose_json are those of all segments, in order.
Times come as nanoseconds and are rounded to the format's own unit, never cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from backend.wire.backend_pb2 import TranscriptResult

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_CS = 10_000_000


def as_json(result: TranscriptResult) -> str:
    return json.dumps({"text": result.text}, ensure_ascii=False, indent=2)


def as_verbose_json(result: TranscriptResult) -> str:
    shown = {
        "task": "transcribe",
        "language": result.language,
        "duration": round(result.duration, 3),  # float32 on the wire: 1.2 arrives as 1.2000000476837158
        "text": result.text,
        "segments": [
            {
                "id": segment.id,
                "start": segment.start / NS_PER_S,
                "end": segment.end / NS_PER_S,
                "text": segment.text,
                "tokens": list(segment.tokens),
            }
            for segment in result.segments
        ],
        "words": [
            {"word": word.text, "start": word.start / NS_PER_S, "end": word.end / NS_PER_S}
            for segment in result.segments
            for word in segment.words
        ],
    }
    return on_short_lines(shown)


def as_srt(result: TranscriptResult) -> str:
    cues = (
        f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n{segment.text.strip()}\n"
        for number, segment in enumerate(result.segments, start=1)
    )
    return "\n".join(cues)


def as_vtt(result: TranscriptResult) -> str:
    cues = (
        f"\n{clock(segment.start, '.')} --> {clock(segment.end, '.')}\n{segment.text.strip()}\n"
        for segment in result.segments
    )
    return "WEBVTT\n" + "".join(cues)


def as_lrc(result: TranscriptResult) -> str:
    return "".join(f"[{minutes(segment.start)}] {segment.text.strip()}\n" for segment in result.segments)


def as_txt(result: TranscriptResult) -> str:
    return "".join(f"{segment.text.strip()}\n" for segment in result.segments)


FORMATS: dict[str, Callable[[TranscriptResult], str]] = {
    "json": as_json,
    "verbose_json": as_verbose_json,
    "srt": as_srt,
    "vtt": as_vtt,
    "lrc": as_lrc,
    "txt": as_txt,
}


def clock(ns: int, mark: str) -> str:
    """HH:MM:SS and milliseconds behind `mark`: a comma for SubRip, a point for WebVTT."""
    seconds, ms = divmod(rounded(ns, NS_PER_MS), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{ms:03d}"


def minutes(ns: int) -> str:
    """MM:SS.xx as lyrics have it: minutes go on past 59, there are no hours."""
    seconds, cs = divmod(rounded(ns, NS_PER_CS), 100)
    return f"{seconds // 60:02d}:{seconds % 60:02d}.{cs:02d}"


def rounded(ns: int, unit: int) -> int:
    """`ns` in whole units, halves up; in integers, because a float holds no hour of nanoseconds exactly."""
    return (ns + unit // 2) // unit


def on_short_lines(shown: dict[str, object]) -> str:
    """JSON for eyes: a line for each segment and each word, where indent=2 would take one for every token id."""
    lines = []
    for key, value in shown.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            items = ",\n    ".join(json.dumps(item, ensure_ascii=False) for item in value)
            text = f"[\n    {items}\n  ]"
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}"
