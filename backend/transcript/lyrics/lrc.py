"""One line of a lyrics file: what is sung, and what stands beside it.

Not sung are the time tags of LRC ([01:23.45], and <01:23.45> before words), its metadata ([ar:...]), headings and marks
of repetition ([Chorus], (x2)). Of the rest nothing is changed: backing vocals stand in parentheses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TIME = r"(\d{1,3}):(\d{1,2})(?:[.:,](\d{1,3}))?"
_TIME_TAG = re.compile(rf"\s*\[{_TIME}\]")
_WORD_TAG = re.compile(rf"<{_TIME}>")
_SECTIONS = (
    "pre-?chorus|post-?chorus|chorus|choir|verse|refrain|hook|bridge|intro|outro|interlude|instrumental|breakdown|break"
    "|solo|(?:guitar|piano|drum|sax) solo|coda|music|strophe|zwischenspiel|couplet|pont|estribillo|coro|estrofa|verso"
    "|puente|refrão|ponte|strofa|ritornello|куплет|припев|проигрыш|вступление|主歌|副歌|前奏|间奏|間奏|尾奏|桥段|サビ"
    "|[abc]メロ|후렴|간주"
)
_REPEATS = r"[x×✕*]\s*\d{1,2}|\d{1,2}\s*[x×✕]|\d{1,2}\s+times|repeat(?:\s*[x×]?\s*\d{1,2})?|bis"
_MARK = re.compile(
    rf"[(（\[［【]\s*(?:(?:{_SECTIONS})(?:\s*\d{{1,2}})?(?:\s*(?:{_REPEATS}))?|{_REPEATS})\s*[:：]?\s*[)）\]］】]"
    rf"|[\[［【]\s*(?:{_SECTIONS})\b[^\[\]［］【】]*[\]］】]",
    re.IGNORECASE,
)
_MARK_AND_SPACES = re.compile(rf"\s*(?:{_MARK.pattern})", re.IGNORECASE)
_MAX_MARK_CHARS = 100
# A line that is nothing but brackets is a heading or metadata, whatever they hold.
_HEADING = re.compile(r"(?:\s*(?:\[[^\[\]]*\]|［[^［］]*］|【[^【】]*】))+\s*")


@dataclass(frozen=True)
class LyricLine:
    """`times_s`: its time tags, in seconds. `before` and `after`: marks that are not sung, around `text`, which is."""

    times_s: tuple[float, ...]
    before: str
    text: str
    after: str


def parse_line(line: str) -> LyricLine:
    """The parts of a line, without its line break. `text` is "" where nothing is sung."""
    times_s = []
    at = 0
    while tag := _TIME_TAG.match(line, at):
        times_s.append(_seconds(tag))
        at = tag.end()
    rest = line[at:]
    words = _without_word_tags(rest)
    if _HEADING.fullmatch(words):
        return LyricLine(tuple(times_s), words.strip(), "", "")
    begin, end = 0, len(words)
    while mark := _MARK_AND_SPACES.match(words, begin):
        begin = mark.end()
    while mark := _mark_at_end(words, begin, end):
        end = mark.start()
    if begin == 0 and end == len(words):
        return LyricLine(tuple(times_s), "", words.strip() if times_s or words != rest else words, "")
    return LyricLine(tuple(times_s), words[:begin].strip(), words[begin:end].strip(), words[end:].strip())


def _without_word_tags(text: str) -> str:
    """The text without <01:23.45>, and without the space after a tag that has one before it, too."""
    parts = []
    at = 0
    for tag in _WORD_TAG.finditer(text):
        parts.append(text[at : tag.start()])
        at = tag.end()
        if (not "".join(parts[-1:]) or parts[-1][-1:].isspace()) and text[at : at + 1].isspace():
            at += 1
    return "".join(parts) + text[at:]


def _mark_at_end(words: str, begin: int, end: int) -> re.Match[str] | None:
    """The mark that ends words[begin:end], spaces aside."""
    while end > begin and words[end - 1].isspace():
        end -= 1
    earliest = max(begin, end - _MAX_MARK_CHARS)
    start = max(words.rfind(bracket, earliest, end) for bracket in "(（[［【")
    mark = _MARK.match(words, start) if start >= 0 else None
    return mark if mark and mark.end() == end else None


def _seconds(tag: re.Match[str]) -> float:
    minutes, seconds, fraction = tag.groups()
    return int(minutes) * 60 + int(seconds) + (int(fraction) / 10 ** len(fraction) if fraction else 0.0)
