"""Each response_format, to the letter."""

from __future__ import annotations

import json

import pytest

from backend.transcript.subtitles.line_breaks import LineRules
from backend.wire.backend_pb2 import TranscriptResult, TranscriptSegment, TranscriptWord
from devtools.transcribe.formats import FORMATS, rendered

MS = 1_000_000
HOUR = 3_600_000 * MS


@pytest.fixture
def result() -> TranscriptResult:
    """Two sentences: one with words, one in another script and past the first hour."""
    return TranscriptResult(
        text="Hello world. 一二。",
        language="en",
        duration=3725.5,
        segments=[
            TranscriptSegment(
                id=0,
                start=250 * MS,
                end=1_500 * MS,
                text="Hello world.",
                tokens=[3, 4],
                words=[
                    TranscriptWord(start=250 * MS, end=700 * MS, text="Hello"),
                    TranscriptWord(start=700 * MS, end=1_500 * MS, text="world."),
                ],
            ),
            TranscriptSegment(id=1, start=HOUR + 61_005 * MS, end=HOUR + 62_000 * MS, text=" 一二。", tokens=[5]),
        ],
    )


def test_json_is_the_text_alone(result: TranscriptResult) -> None:
    assert FORMATS["json"](result) == '{\n  "text": "Hello world. 一二。"\n}'


def test_verbose_json_has_a_line_for_each_segment_and_word(result: TranscriptResult) -> None:
    assert FORMATS["verbose_json"](result) == (
        "{\n"
        '  "task": "transcribe",\n'
        '  "language": "en",\n'
        '  "duration": 3725.5,\n'
        '  "text": "Hello world. 一二。",\n'
        '  "segments": [\n'
        '    {"id": 0, "start": 0.25, "end": 1.5, "text": "Hello world.", "tokens": [3, 4]},\n'
        '    {"id": 1, "start": 3661.005, "end": 3662.0, "text": " 一二。", "tokens": [5]}\n'
        "  ],\n"
        '  "words": [\n'
        '    {"word": "Hello", "start": 0.25, "end": 0.7},\n'
        '    {"word": "world.", "start": 0.7, "end": 1.5}\n'
        "  ]\n"
        "}"
    )


def test_srt(result: TranscriptResult) -> None:
    assert FORMATS["srt"](result) == (
        "1\n00:00:00,250 --> 00:00:01,500\nHello world.\n\n2\n01:01:01,005 --> 01:01:02,000\n一二。\n"
    )


def test_vtt(result: TranscriptResult) -> None:
    assert FORMATS["vtt"](result) == (
        "WEBVTT\n\n00:00:00.250 --> 00:00:01.500\nHello world.\n\n01:01:01.005 --> 01:01:02.000\n一二。\n"
    )


def test_lrc_counts_minutes_past_the_hour(result: TranscriptResult) -> None:
    assert FORMATS["lrc"](result) == "[00:00.25] Hello world.\n[61:01.01] 一二。\n"


def test_txt_is_a_line_for_each_segment(result: TranscriptResult) -> None:
    assert FORMATS["txt"](result) == "Hello world.\n一二。\n"


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "00:00:00,000"),
        (499_999, "00:00:00,000"),
        (500_000, "00:00:00,001"),
        (999_500_000, "00:00:01,000"),
        (59_999_999_999, "00:01:00,000"),
    ],
)
def test_times_are_rounded_and_carry_over(ns: int, shown: str) -> None:
    result = TranscriptResult(segments=[TranscriptSegment(start=0, end=ns, text="x")])
    assert FORMATS["srt"](result) == f"1\n00:00:00,000 --> {shown}\nx\n"


@pytest.mark.parametrize(
    ("name", "shown"), [("json", '{\n  "text": ""\n}'), ("srt", ""), ("vtt", "WEBVTT\n"), ("lrc", ""), ("txt", "")]
)
def test_silence_is_an_empty_transcript(name: str, shown: str) -> None:
    assert FORMATS[name](TranscriptResult(duration=1.2)) == shown


def test_silence_in_verbose_json_keeps_its_duration() -> None:
    shown = json.loads(FORMATS["verbose_json"](TranscriptResult(duration=1.2)))
    assert shown == {"task": "transcribe", "language": "", "duration": 1.2, "text": "", "segments": [], "words": []}


def test_verbose_json_escapes_what_json_must_escape() -> None:
    text = 'say "hi"\n\\ and stop'
    result = TranscriptResult(text=text, segments=[TranscriptSegment(end=MS, text=text, tokens=[1])])
    shown = json.loads(FORMATS["verbose_json"](result))
    assert (shown["text"], shown["segments"][0]["text"]) == (text, text)


def _spoken(*segments: tuple[str, float, float, list[tuple[str, float, float]]]) -> TranscriptResult:
    result = TranscriptResult(text=" ".join(text for text, *_ in segments), language="en", duration=9.0)
    for number, (text, start_s, end_s, words) in enumerate(segments):
        segment = result.segments.add(id=number, text=text, start=round(start_s * 1e9), end=round(end_s * 1e9))
        for word, word_start_s, word_end_s in words:
            segment.words.add(text=word, start=round(word_start_s * 1e9), end=round(word_end_s * 1e9))
    return result


WORDS = _spoken(
    ("Tom & I <3 it.", 0.5, 2.0, [("Tom &", 0.5, 0.8), ("I", 0.8, 1.0), ("<3", 1.0, 1.5), ("it.", 1.5, 2.0)]),
    ("No times.", 3.0, 4.0, []),
)


def test_text_for_eyes_has_the_time_of_each_segment() -> None:
    assert FORMATS["timed"](WORDS) == "00:00.5  Tom & I <3 it.\n00:03.0  No times.\n"
    later = _spoken(("Late.", 3661.0, 3662.0, []))
    later.duration = 4000.0
    assert FORMATS["timed"](later) == "01:01:01.0  Late.\n"


def test_each_word_is_a_caption() -> None:
    cues = FORMATS["srt_words"](WORDS).split("\n\n")
    assert cues[0] == "1\n00:00:00,500 --> 00:00:00,800\nTom &"
    assert cues[4] == "5\n00:00:03,000 --> 00:00:04,000\nNo times.\n"


def test_karaoke_highlights_each_word_and_escapes_the_text() -> None:
    assert FORMATS["vtt_karaoke"](WORDS) == (
        "WEBVTT\n\nSTYLE\n::cue(:future) { color: gray; }\n\n"
        "00:00:00.500 --> 00:00:02.000\n<c>Tom &amp;</c> <00:00:00.800><c>I</c> <00:00:01.000><c>&lt;3</c>"
        " <00:00:01.500><c>it.</c>\n\n00:00:03.000 --> 00:00:04.000\nNo times.\n"
    )


def test_captions_are_wrapped_and_sentences_are_not() -> None:
    long = _spoken(("The road was empty for many miles, and nobody said a word until noon.", 0.0, 4.0, []))
    lines = LineRules(chars=42, wide_chars=16, lines=2)
    assert rendered(long, "srt", lines).splitlines()[2:] == [
        "The road was empty for many miles,",
        "and nobody said a word until noon.",
    ]
    assert len(rendered(long, "vtt", None).splitlines()) == 4
    assert rendered(TranscriptResult(), "srt", lines) == ""
    assert rendered(TranscriptResult(), "vtt", lines) == "WEBVTT\n"


def test_karaoke_is_wrapped_as_captions_are() -> None:
    text = "The road was empty for many miles, and nobody said a word until noon."
    words = [(word, at / 4, (at + 1) / 4) for at, word in enumerate(text.split())]
    lines = LineRules(chars=42, wide_chars=16, lines=2)
    shown = rendered(_spoken((text, 0.0, 4.0, words)), "vtt_karaoke", lines).splitlines()[6:]
    assert [line.rpartition("<c>")[2] for line in shown] == ["miles,</c>", "noon.</c>"]


def test_marks_in_captions_are_escaped_for_players_and_not_in_srt() -> None:
    lines = LineRules(chars=42, wide_chars=16, lines=2)
    spoken = _spoken(("Tom & I <3 it.", 0.5, 2.0, []))
    assert rendered(spoken, "vtt", lines).splitlines()[-1] == "Tom &amp; I &lt;3 it."
    assert rendered(spoken, "srt", lines).splitlines()[-1] == "Tom & I <3 it."
