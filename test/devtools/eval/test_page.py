"""The views of a report: page, table, JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from devtools.eval import page, table, timeline
from devtools.eval.compare.specs import BACKEND, PACKAGE
from devtools.eval.report import Envelope, Report, as_json
from devtools.eval.word_diff import Piece, diff, shortened
from devtools.machine_load import Load

VOID = {"meta"}


class Outline(HTMLParser):
    """What a browser would make of the page: its texts, its attributes, whether its tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_well_formed_and_loads_nothing(report: Report) -> None:
    written = page.html(report)
    outline = Outline(written)
    assert outline.open == []
    assert not re.search(r"https?:|url\(|@import|\bimport\b", written)
    assert {name for _, name, _ in outline.attributes}.isdisjoint({"href", "srcset", "onload", "onclick", "autoplay"})
    sounds = [value for _, name, value in outline.attributes if name == "src"]
    assert len(sounds) == len(report.recordings)
    assert written.count('<audio controls preload="none" src=') == len(sounds)


def test_a_recording_is_named_from_the_page_and_a_word_says_when_it_is_played(report: Report, tmp_path: Path) -> None:
    first = report.recordings[0]
    entry = replace(first.entry, audio=tmp_path / "sounds/a #1?.wav")
    moved = replace(report, folder=tmp_path / "pages/one", recordings=(replace(first, entry=entry),))
    attributes = Outline(page.html(moved)).attributes
    assert [value for _, name, value in attributes if name == "src"] == ["../../sounds/a%20%231%3F.wav"]
    words = [value for _, name, value in attributes if name == "data-s"]
    assert words == ["0.200", "0.700", "1.000", "0.210", "0.700", "1.000", "0.400", "0.960"]


def test_a_recording_that_could_not_be_decoded_has_no_player(report: Report) -> None:
    silent = tuple(replace(recording, envelope=Envelope()) for recording in report.recordings)
    assert "<audio" not in page.html(replace(report, recordings=silent))


def test_every_column_says_what_it_means_and_which_direction_is_good(report: Report) -> None:
    outline = Outline(page.html(report))
    for column in table.COLUMNS:
        assert column.meaning
        assert any(column.meaning in text for text in outline.texts)
    tips = [value for _, name, value in outline.attributes if name == "data-tip"]
    assert any(tip.startswith("word error rate") and tip.endswith("fewer is better") for tip in tips)
    assert "WER % ↓" in outline.texts
    assert "× real time ↑" in table.terminal(report)
    assert "↓ fewer is better, ↑ more is better" in table.terminal(report)


def test_the_verdict_and_the_load_of_the_machine_are_in_every_view(report: Report) -> None:
    package = replace(report.systems[PACKAGE], load=Load(1.5, 2))
    busy = replace(report, systems={**report.systems, PACKAGE: package})
    texts = "".join(Outline(page.html(busy)).texts)
    for view in (texts, table.terminal(busy)):
        assert "busy machine: others used 1.5 of 2 processors" in view
        assert "Within what is asked for: success 100 % (≥ 100 % asked for)." in view
        assert "NOT within what is asked for: success 66.67 % (≥ 100 % asked for)." in view
        assert "speed is not judged" in view
    assert "Speed: not judged: the machine was busy" in table.terminal(busy)
    found = json.loads(json.dumps(as_json(busy)))
    assert [each["passes"] for each in found["verdict"]] == [True, False]
    assert found["systems"][PACKAGE]["load"] == {"others": 1.5, "processors": 2}
    assert {each["measure"] for each in found["systems"][PACKAGE]["differences"]} >= {"word errors", "success"}


def test_nine_systems_have_colours_and_lanes(report: Report) -> None:
    backend = report.systems[BACKEND]
    names = [BACKEND, *(f"system-number-{number}" for number in range(2, 10))]
    good = report.recordings[0]
    scored = dict.fromkeys(names, good.scored[BACKEND])
    many = replace(
        report,
        recordings=(replace(good, scored=scored),),
        systems={name: replace(backend, probes=()) for name in names},
    )
    assert [many.colour(name) for name in names] == ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s1"]
    outline = Outline(page.html(many))
    assert outline.open == []
    assert set(names) <= set(outline.texts)


def test_every_word_is_on_the_page_with_its_times_and_its_error(report: Report) -> None:
    outline = Outline(page.html(report))
    for recording in report.recordings:
        for words in (recording.entry.words, *(s.hypothesis.words for s in recording.scored.values())):
            for word in words:
                assert word.text in outline.texts
    tips = [value for _, name, value in outline.attributes if name == "data-tip"]
    assert "truth: wide\n0.700 s to 0.900 s\nstart +0 ms, end +0 ms" not in tips  # the truth has no error
    assert "truth: wide\n0.700 s to 0.900 s" in tips
    assert "backend: world.\n1.000 s to 1.480 s\nstart +0 ms, end -20 ms" in tips
    assert "package: Hello\n0.400 s to 0.400 s\nstart +200 ms, end -200 ms" in tips
    assert "backend: 三<b>&\n0.500 s to 0.900 s\nmatches no word of the truth" in tips


def test_what_comes_from_outside_is_text_and_never_markup(report: Report) -> None:
    written = page.html(report)
    assert written.count("<script>") == 1  # our own, and not the recording's name
    assert "<b>" not in written
    assert "<broke>" not in written
    assert "<three>" not in written
    texts = "".join(Outline(written).texts)
    for text in ("bad <script>", "三<b>&", 'RuntimeError: "tensor" <broke>', "a set of <three>"):
        assert text in texts


def test_a_recording_may_have_any_name(report: Report) -> None:
    name = "录音 $x$ #1 'a' \"b\" |"
    first, *others = report.recordings
    renamed = replace(first, entry=replace(first.entry, id=name))
    outline = Outline(page.html(replace(report, recordings=(renamed, *others))))
    assert outline.open == []
    assert outline.texts.count(name) == 2  # the heading and the label in the chart
    assert f"{name}\nbackend: 0 of 3 words wrong, 0.0 %" in [value for _, _, value in outline.attributes]


def test_a_misplaced_and_a_wrong_word_are_marked_in_their_lanes(report: Report) -> None:
    good, bad, _ = report.recordings
    assert [p.state for p in timeline.lanes(good)[PACKAGE]] == ["off", ""]
    assert [p.state for p in timeline.lanes(bad)[BACKEND]] == ["", "wrong"]
    assert timeline.lanes(bad).keys() == {"truth", BACKEND}  # the package failed


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 0), (3.0, 1), (15.0, 1), (15.1, 2), (180.2, 13)])
def test_long_recordings_are_drawn_in_rows_of_at_most_15_s(seconds: float, count: int) -> None:
    rows = timeline.rows(seconds)
    assert len(rows) == count
    assert all(row.end_s - row.start_s <= 15.0 for row in rows)
    assert sum(row.end_s - row.start_s for row in rows) == pytest.approx(seconds)


def test_a_page_without_words_baseline_and_speech_is_still_a_page(report: Report) -> None:
    backend = report.systems[BACKEND]
    silent = tuple(replace(r, scored={BACKEND: r.scored[BACKEND]}) for r in report.recordings if not r.entry.is_speech)
    alone = replace(report, recordings=silent, systems={BACKEND: replace(backend, probes=())})
    written = page.html(alone)
    assert Outline(written).open == []
    assert "package" not in "".join(Outline(written[: written.index("<style>")]).texts)
    assert 'class="curve' not in written


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "pieces"),
    [
        ("Open the door.", "open the door", "en", [("right", "open"), ("right", "the"), ("right", "door")]),
        ("Open the door.", "Open a door - now.", "en",
         [("right", "Open"), ("wrong", "a"), ("right", "door"), ("right", "-"), ("extra", "now.")]),
        ("Open the door.", "Open", "en", [("right", "Open"), ("missing", "the"), ("missing", "door.")]),
        ("Open the door.", "the door", "en", [("missing", "Open"), ("right", "the"), ("right", "door")]),
        ("", "you", "", [("extra", "you")]),
        ("Stop.", "", "en", [("missing", "Stop.")]),
        ("一二。", "一三。", "zh", [("right", "一"), ("wrong", "三"), ("right", "。")]),
    ],
)  # fmt: skip
def test_a_transcription_is_marked_word_by_word(
    reference: str, hypothesis: str, language: str, pieces: list[tuple[str, str]]
) -> None:
    found = list(diff(reference, hypothesis, language))
    assert [(piece.kind, piece.text) for piece in found] == pieces
    assert all(piece.wanted for piece in found if piece.kind == "wrong")


def test_of_many_missing_words_in_a_row_only_the_number_is_shown() -> None:
    pieces = list(shortened(diff("stop a b c d e f g h i go a", "stop go", "en"), " "))
    assert pieces == [
        Piece("right", "stop"), Piece("many missing", "9 words missing", "a b c d e f g h i"), Piece("right", "go"),
        Piece("missing", "a"),
    ]  # fmt: skip


def test_a_wrong_word_says_what_it_should_be() -> None:
    assert next(diff("red door", "green door", "en")) == Piece("wrong", "green", "red")


def test_the_table_is_aligned_and_has_a_dash_for_what_was_not_measured(report: Report) -> None:
    printed = table.terminal(report)
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if "WER %" in line)
    head, english = lines[start], lines[start + 1 : start + 4]
    end = head.index("WER % ↓") + len("WER % ↓")
    assert [line[:end].split()[-1] for line in english] == ["0.00", "33.33", "0.00"]
    assert english[2].split()[0] == "ratio"
    nobody = next(line for line in lines if line.startswith("no speech"))
    assert nobody.split()[4:6] == ["100.0", "-"]
    assert "backend: peak memory 512 MiB; 0 of 8 transcriptions of non-speech invented a text" in printed
    assert "package: peak memory -; 4 of 8 transcriptions of non-speech invented a text; from siren (4)" in printed
    assert 'failed: package: RuntimeError: "tensor" <broke> (bad <script>)' in printed


def test_the_json_holds_every_answer_and_reads_back(report: Report) -> None:
    found = json.loads(json.dumps(as_json(report)))
    assert found["systems"][PACKAGE]["figures"]["Chinese"]["failures"] == 1
    assert found["systems"][PACKAGE]["peak_bytes"] is None
    good = next(r for r in found["recordings"] if r["id"] == "good")
    assert good["words"][0] == ["Hello", 0.2, 0.6]
    assert good["systems"][BACKEND]["words"][2] == ["world.", 1.0, 1.48]
    assert good["systems"][BACKEND]["score"]["words"] == {"errors": 0, "units": 3}
    invented = [p for p in found["systems"][PACKAGE]["nonspeech"] if p["text"]]
    assert len(invented) == 4
