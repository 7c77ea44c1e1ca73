"""What a user of the gateway sees for each response_format, and what only this client writes. Pure functions.

- The timed formats of the gateway show segments alone, as it does; `words` in verbose_json are those of all segments,
  in order. Given the rules of a caption's lines, srt, vtt and vtt_karaoke wrap each segment into lines.
- Only here: `timed`, text with times for eyes; `elrc`, lrc with the times of words; `srt_words`, a caption for each
  word; `vtt_karaoke`, captions in which each word is highlighted at its time. Segments without words keep their times.
- Times come as nanoseconds and are rounded to the format's own unit, never cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from backend.transcript.subtitles.line_breaks import LineRules, wrapped
from backend.wire.backend_pb2 import TranscriptResult, TranscriptSegment

_NS_PER_S, _NS_PER_MS, _NS_PER_CS = 1_000_000_000, 1_000_000, 10_000_000

_KARAOKE = "WEBVTT\n\nSTYLE\n::cue(:future) { color: gray; }\n"  # without a style no player highlights anything


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


def as_srt(result: TranscriptResult, lines: LineRules | None = None) -> str:
    return _numbered(_cues(result, ",", lines))


def as_vtt(result: TranscriptResult, lines: LineRules | None = None) -> str:
    return "WEBVTT\n" + "".join(f"\n{cue}" for cue in _cues(result, ".", lines))


def as_srt_words(result: TranscriptResult) -> str:
    return _numbered(
        f"{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for segment in result.segments
        for start, end, text in _words(segment)
    )


def as_vtt_karaoke(result: TranscriptResult, lines: LineRules | None = None) -> str:
    return _KARAOKE + "".join(
        f"\n{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n"
        f"{_with_times(segment, _in_lines(segment, result.language, lines))}\n"
        for segment in result.segments
    )


def as_timed(result: TranscriptResult) -> str:
    """Each segment behind the time of its begin: for eyes."""
    is_long = result.duration >= 3600
    return "".join(
        f"{_clock(segment.start, '.')[0 if is_long else 3 : -2]}  {segment.text.strip()}\n"
        for segment in result.segments
    )


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
    "timed": as_timed,
    "srt_words": as_srt_words,
    "vtt_karaoke": as_vtt_karaoke,
}
_IN_LINES = {"srt": as_srt, "vtt": as_vtt, "vtt_karaoke": as_vtt_karaoke}
CAPTIONS = tuple(_IN_LINES)  # formats whose segments are to be read while they are shown
SUFFIXES = {"verbose_json": "json", "timed": "txt", "srt_words": "srt", "vtt_karaoke": "vtt"}  # others: their own name


def rendered(result: TranscriptResult, name: str, lines: LineRules | None) -> str:
    """The result in a format of FORMATS, with one newline at its end. `lines`: how captions are wrapped."""
    in_lines = _IN_LINES.get(name) if lines is not None else None
    text = in_lines(result, lines) if in_lines else FORMATS[name](result)
    return text.rstrip("\n") + "\n" if text else ""


def _numbered(cues: Iterator[str]) -> str:
    return "\n".join(f"{number}\n{cue}" for number, cue in enumerate(cues, start=1))


def _words(segment: TranscriptSegment) -> Iterator[tuple[int, int, str]]:
    """Start, end and text of each word; of the segment, if it has none."""
    if not segment.words:
        yield segment.start, segment.end, segment.text.strip()
    for word in segment.words:
        yield word.start, word.end, word.text


def _with_times(segment: TranscriptSegment, text: str) -> str:
    """The segment's `text` with a time before each word but the first, which players highlight as it passes."""
    marked, shown = "", 0
    for number, word in enumerate(segment.words):
        at = text.find(word.text, shown)
        if at < 0:
            return _escaped(text)
        mark = f"<{_clock(word.start, '.')}>" if number else ""
        marked += f"{_escaped(text[shown:at])}{mark}<c>{_escaped(word.text)}</c>"
        shown = at + len(word.text)
    return marked + _escaped(text[shown:])


def _in_lines(segment: TranscriptSegment, language: str, lines: LineRules | None) -> str:
    """The segment's text, wrapped if there are rules for it; a word is never cut."""
    text = segment.text.strip()
    return text if lines is None else "\n".join(wrapped(text, language, lines))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cues(result: TranscriptResult, mark: str, lines: LineRules | None) -> Iterator[str]:
    """Times and text of each segment; `mark` stands before the milliseconds."""
    for segment in result.segments:
        text = _in_lines(segment, result.language, lines)
        if lines is not None and mark == ".":
            text = _escaped(text)  # a player takes < and & for marks; the gateway writes them as they are
        yield f"{_clock(segment.start, mark)} --> {_clock(segment.end, mark)}\n{text}\n"


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
