"""Known texts through the running backend, beside the package's `align`: `make eval-aligner TEXTS=1`.

For each medley (medley.py): how far lines begin from where they are said, and how many are lost. A line is lost if it
is said and begins more than half a second away; a line that is not said, or in another order, counts for nothing. The
package aligns a whole recording with its whole text, of five minutes at most.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from backend.engine.model.aligner_units import split_on_spaces
from backend.errors import AsrError
from backend.wire.backend_pb2 import TranscriptRequest
from devtools.arguments import parse_arguments
from devtools.eval import alignment, manifest, table
from devtools.eval.manifest import DEMO_SET, Entry, ManifestError
from devtools.eval.medley import SAMPLE_RATE, Case, cases
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ROOT, ServerFailed, ServerProcess
from devtools.tables import aligned, sections, write_json
from devtools.transcribe.checkpoints import NotLoadable, load_options
from devtools.transcribe.client import RequestFailed, transcribe

LOST_S = 0.5
MOST_PACKAGE_S = 300.0
MIN_ENGLISH_S = 100.0
HEARD, ALONE, PACKAGE = "recogniser and aligner", "aligner alone", "the package's align"

Starts = Callable[[Case], list[float] | None]  # where each line begins, in seconds; None: it cannot take the case


@dataclass(frozen=True)
class Beginnings:
    """How well one system found the beginnings of a case's lines."""

    lines: int
    lost: int
    mean_s: float
    p95_s: float


COLUMNS = (
    table.Column("lines", lambda b: b and b.lines, decimals=0),
    table.Column("lost", lambda b: b and b.lost, decimals=0),
    table.Column("mean ms", lambda b: b and b.mean_s, 1000, 0),
    table.Column("p95 ms", lambda b: b and b.p95_s, 1000, 0),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devtools.eval.known_text", description=__doc__)
    parser.add_argument("--model", default=str(DEMO_MODEL), help="a folder or hub id; default: the demo's")
    parser.add_argument("--aligner", default=str(DEMO_ALIGNER), help="a folder or hub id; default: the demo's")
    parser.add_argument("--out", type=Path, default=ROOT / "build/eval", help="the folder for known_text.json")
    arguments = parse_arguments(parser, argv)
    try:
        medleys = medley_cases(manifest.read(DEMO_SET))
        found = {case.name: dict[str, Beginnings | None]() for case in medleys}
        package = by_package(arguments.aligner)
        for case in medleys:
            found[case.name][PACKAGE] = beginnings(case, package(case))
        for name, model, options in (
            (HEARD, arguments.model, [f"forced_aligner:{arguments.aligner}", "task:align"]),
            (ALONE, arguments.aligner, []),
        ):
            with ServerProcess() as server:
                request = load_options(model, "", options)
                request.DType = "float32"
                server.load(request)
                for case in medleys:
                    found[case.name] = {name: beginnings(case, by_server(server, case)), **found[case.name]}
    except (ManifestError, NotLoadable, ServerFailed, RequestFailed, AsrError) as failure:
        print(f"eval.known_text: {failure}", file=sys.stderr)
        return 1
    out = arguments.out / "known_text.json"
    write_json(out, {case: {name: b and asdict(b) for name, b in systems.items()} for case, systems in found.items()})
    print(sections(aligned(table.rows(COLUMNS, found), left=2), out))
    return 0


def medley_cases(entries: Sequence[Entry]) -> list[Case]:
    """The cases of the demo set: its recording of minutes, and its Chinese ones."""
    (english,) = (e for e in entries if e.language == "en" and e.words and e.words[-1].end_s >= MIN_ENGLISH_S)
    return cases(english, [entry for entry in entries if entry.language == "zh" and entry.words])


def beginnings(case: Case, starts_s: Sequence[float] | None) -> Beginnings | None:
    """None where a system cannot take the case."""
    if starts_s is None:
        return None
    pairs = zip(starts_s, case.lines, strict=True)
    errors = np.array([abs(start_s - line.start_s) for start_s, line in pairs if not math.isnan(line.start_s)])
    return Beginnings(errors.size, int((errors > LOST_S).sum()), float(errors.mean()), float(np.percentile(errors, 95)))


def by_server(server: ServerProcess, case: Case) -> list[float]:
    """Raises RequestFailed or ServerFailed."""
    text = "\n".join(line.text for line in case.lines)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file.name, case.samples, SAMPLE_RATE, subtype="FLOAT")
        result, _ = transcribe(server, TranscriptRequest(dst=file.name, prompt=text, language=case.language))
    return [segment.start / 1e9 for segment in result.segments]


def by_package(folder: str) -> Starts:
    align, _, _ = alignment.load_package(folder)

    def starts_s(case: Case) -> list[float] | None:
        if case.samples.size > MOST_PACKAGE_S * SAMPLE_RATE:
            return None
        words = align(case.samples, " ".join(line.text for line in case.lines), case.language)
        counts = [len(list(split_on_spaces(line.text))) for line in case.lines]
        firsts = np.cumsum([0, *counts[:-1]])
        return [words[first].start_s for first in firsts]

    return starts_s


if __name__ == "__main__":
    sys.exit(main())
