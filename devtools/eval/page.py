"""One self-contained page of a report: figures, plots, and every recording with its words over its waveform.

Loads nothing: style and script are within it. Whatever comes from a manifest or a model is text, and eval/markup
escapes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from backend.languages import NAMES
from devtools.eval import lanes, plots, probes, table
from devtools.eval.marking import Piece, marked
from devtools.eval.markup import Markup, joined, tag
from devtools.eval.report import ALL, OURS, PACKAGE, Recording, Report
from devtools.eval.scoring import Figures, Scored
from devtools.eval.spelling import UNSPACED

DRAWN = 100  # recordings; more make a page that no browser scrolls
OPEN = 20  # of them are unfolded
MOST_MISSING = 8  # words in a row; of more, only the number is shown

BASELINE_NOTE = (
    "package: Qwen3ASRModel of the qwen-asr package at its defaults, one file at a time, in a process of its own. "
    "One thing is handed to it: the ids of the tokens that end an answer, which it does not read from the checkpoint's "
    "generation_config.json; built into it are those of the released tokenizer."
)
METHOD_NOTE = (
    "WER and CER: English through Whisper's normaliser, which makes a row of digits one word; other languages without "
    "case and punctuation; Chinese, Cantonese, Japanese and Thai in characters for both. A failed recording counts as "
    "heard nothing. Boundary errors: starts and ends of the words that match the truth. Zero: words that end no later "
    "than they start. Order: words that start before the one before them has ended. × real time and memory: one file "
    "at a time, after one that is not counted. Ratio: the backend in parts of the package."
)


def html(report: Report) -> str:
    """The whole document."""
    here = Path(__file__).parent
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"qwen-asr: {report.manifest}"),
        tag("style", Markup((here / "page.css").read_text(encoding="utf-8"))),
    )
    drawn = report.worst_first[:DRAWN]
    left = len(report.recordings) - len(drawn)
    main = tag(
        "main",
        _header(report),
        tag("div", *_tiles(report), class_="tiles"),
        tag("section", _figures(report), class_="card wide"),
        *_plots(report),
        *([probes.section(report)] if report.systems[OURS].probes else []),
        tag("section", tag("h2", "Recordings, worst first"), _reading_note(left), class_="intro"),
        *(_recording(recording, i < OPEN) for i, recording in enumerate(drawn)),
        tag("footer", tag("p", METHOD_NOTE), *([tag("p", BASELINE_NOTE)] if PACKAGE in report.systems else [])),
    )
    script = tag("script", Markup((here / "page.js").read_text(encoding="utf-8")))
    body = tag("body", main, tag("div", id="tip", hidden=""), script)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(report: Report) -> Markup:
    said = [f"{len(report.recordings)} recordings, {report.duration_s / 60:.1f} minutes", report.made]
    said += [f"model {report.model}", f"aligner {report.aligner or 'none'}", *report.options]
    keys = (lanes.TRUTH, *report.systems)
    return tag(
        "header",
        tag("div", tag("h1", f"What the backend hears: {report.manifest}"), tag("p", " · ".join(said), class_="quiet")),
        tag("div", *(tag("span", name, class_=name) for name in keys), class_="key"),
    )


def _tiles(report: Report) -> Iterator[Markup]:
    systems = list(report.systems.values())
    for name, unit, scale, digits, pick in _TILES:
        values = [pick(system.figures[ALL]) for system in systems]
        yield _tile(name, unit, [table.number(None if v is None else v * scale, digits) for v in values])
    yield _tile("Peak memory", "", [table.memory(system) for system in systems])
    if systems[0].probes:
        invented = [str(sum(probe.is_invented for probe in system.probes)) for system in systems]
        yield _tile("Text from noise", f"of {len(systems[0].probes)}", invented)


_TILES: tuple[tuple[str, str, float, int, Callable[[Figures], float | None]], ...] = (
    ("Word errors", "%", 100, 2, lambda f: f.wer),
    ("Boundary error", "ms", 1000, 1, lambda f: f.boundaries.mean_s if f.boundaries else None),
    ("Within 80 ms", "%", 100, 1, lambda f: f.boundaries.close if f.boundaries else None),
    ("Language right", "%", 100, 1, lambda f: f.language),
    ("× real time", "", 1, 1, lambda f: f.speed),
)


def _tile(name: str, unit: str, values: Sequence[str]) -> Markup:
    """The backend's value large, the baseline's under it."""
    value, _, attached = values[0].partition(" ")
    unit = "" if value == "-" else unit or attached
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, tag("small", unit), class_="value"),
        *(tag("div", f"package {other}", class_="other package") for other in values[1:]),
        class_="tile",
    )


def _figures(report: Report) -> Markup:
    head, *rows = table.figure_rows(report)
    written = []
    for row in rows:
        classes = f"{row[1]} first" if row[0] else row[1]
        written.append(tag("tr", *(tag("td", cell) for cell in row), class_=classes))
    return tag("table", tag("tr", *(tag("th", cell) for cell in head)), *written, class_="figures")


def _plots(report: Report) -> list[Markup]:
    """The plots that have something to show, side by side."""
    shown = (
        (
            "Where words begin and end",
            "Share of word boundaries that are off by no more than this.",
            plots.boundary_errors,
        ),
        ("Word errors by recording", "Worst first.", plots.word_errors),
    )
    cards = [
        tag("section", tag("h2", title), tag("p", note, class_="note"), drawn, class_="card")
        for title, note, draw in shown
        if (drawn := draw(report))
    ]
    return [tag("div", *cards, class_="pair")] if cards else []


def _reading_note(left: int) -> Markup:
    note = (
        "Under each waveform the truth's words and what was heard, on one scale; thin lines carry the truth's "
        "boundaries down. A red outline: a start or end is more than 80 ms off. Red and struck through: not what was "
        "said. Point at a word for its times."
    )
    return tag("p", note + (f" {left} more recordings are in results.json." if left else ""), class_="note")


def _recording(recording: Recording, is_open: bool) -> Markup:
    entry = recording.entry
    badges = [tag("span", f"{NAMES.get(entry.language, 'nobody speaks')}, {recording.outline.duration_s:.1f} s")]
    badges += [tag("span", _badge(name, scored), class_=name) for name, scored in recording.scored.items()]
    texts: list[Markup] = []
    if any(scored.score.words.errors for scored in recording.scored.values()) and entry.is_speech:
        texts += [tag("dt", lanes.TRUTH, class_=lanes.TRUTH), tag("dd", entry.text)]
    for name, scored in recording.scored.items():
        texts += [tag("dt", name, class_=name), tag("dd", _heard(scored))]
    return tag(
        "details",
        tag("summary", tag("h3", entry.id), tag("span", *badges, class_="badges")),
        tag("dl", *texts),
        lanes.drawn(recording),
        class_="card",
        open="" if is_open else None,
    )


def _badge(name: str, scored: Scored) -> str:
    score = scored.score
    if scored.answer.failure:
        return f"{name}: failed"
    if not scored.entry.is_speech:
        return f"{name}: {'invented a text' if score.invented else 'no text, rightly'}"
    said = f"{name}: {score.words.errors} of {score.words.units} words wrong"
    mean = score.edge_mean_s
    return said if mean is None else f"{said}, boundaries off by {1000 * mean:.0f} ms"


def _heard(scored: Scored) -> Markup:
    if scored.answer.failure:
        return tag("span", scored.answer.failure, class_="failure")
    entry = scored.entry
    gap = "" if entry.language in UNSPACED else " "
    pieces = marked(entry.text, scored.answer.text, entry.language)
    if not pieces:
        return tag("span", "(no text)", class_="quiet")
    parts: list[str] = []
    for missing, run in itertools.groupby(pieces, lambda piece: piece.kind == "missing"):
        same = list(run)
        if missing and len(same) > MOST_MISSING:
            words = gap.join(piece.text for piece in same)
            parts += [tag("del", f"{len(same)} words missing", data_tip=words, class_="many"), gap]
        else:
            parts += [part for piece in same for part in (_piece(piece), gap)]
    return joined(*parts)


def _piece(piece: Piece) -> str:
    if piece.kind == "right":
        return piece.text
    if piece.kind == "missing":
        return tag("del", piece.text, data_tip="missing")
    if piece.kind == "extra":
        return tag("ins", piece.text, data_tip="nobody said this")
    return tag("mark", piece.text, data_tip=f"should be: {piece.wanted}")
