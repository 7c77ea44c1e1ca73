"""The card of the page on sounds in which nobody speaks: a cell for each transcription, filled where it has a text."""

from __future__ import annotations

from backend.languages import NAMES
from devtools.eval.markup import Markup, tag
from devtools.eval.report import Probe, Report

COLUMNS = 2  # tables beside each other


def section(report: Report) -> Markup:
    kinds = list(dict.fromkeys(probe.kind for system in report.systems.values() for probe in system.probes))
    half = -(-len(kinds) // COLUMNS)
    tables = [_table(report, kinds[i : i + half]) for i in range(0, len(kinds), half)]
    note = (
        "Each sound at three levels (peak of 1, 0.1 and 0.01 of full scale), with the language detected and with it "
        "forced. A filled cell is a text that nobody said; point at it to read it."
    )
    return tag(
        "section",
        tag("h2", "When nobody speaks"),
        tag("p", note, class_="note"),
        tag("div", *tables, class_="columns wide"),
        class_="card",
    )


def _table(report: Report, kinds: list[str]) -> Markup:
    first = next(iter(report.systems.values())).probes
    asked = sorted({(p.language, -p.level) for p in first})  # detected first, loud before quiet
    languages = list(dict.fromkeys(language for language, _ in asked))
    wide = str(len(asked) // len(languages))
    names = [tag("th", name, colspan=str(len(asked)), class_=f"{name} gap") for name in report.systems]
    wishes = [
        tag("th", f"forced {NAMES[language]}" if language else "detected", colspan=wide, class_="gap")
        for _ in report.systems
        for language in languages
    ]
    head = tag("thead", tag("tr", tag("th", ""), *names), tag("tr", tag("th", ""), *wishes))
    found = {(name, p.kind, (p.language, -p.level)): p for name, s in report.systems.items() for p in s.probes}
    rows = []
    for kind in kinds:
        cells = [
            _cell(found[name, kind, wish], name, i % int(wide) == 0)
            for name in report.systems
            for i, wish in enumerate(asked)
        ]
        rows.append(tag("tr", tag("th", kind, scope="row"), *cells))
    return tag("table", head, tag("tbody", *rows), class_="probes")


def _cell(probe: Probe, name: str, with_gap: bool) -> Markup:
    answer = probe.answer
    state = "failed" if answer.failure else "invented" if probe.is_invented else ""
    wish = f"{NAMES[probe.language]} forced" if probe.language else "language detected"
    tip = f"{name}: {probe.kind}, level {probe.level:g}, {wish}\n{answer.failure or answer.text or 'no text, rightly'}"
    cell = tag("span", class_=f"cell {name} {state}".rstrip(), data_tip=tip)
    return tag("td", cell, class_="gap" if with_gap else None)
