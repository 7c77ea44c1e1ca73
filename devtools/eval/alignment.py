"""The backend's aligner against the package's, on the same weights and with the reference text: `make eval-aligner`.

Both compute in float32 and get one passage at a time. Recordings above a minute are given whole, and in pieces cut
between sentences. Then the time that each takes to decode times from the model's logits.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from backend.errors import AsrError
from backend.languages import ALIGNABLE, NAMES
from devtools.arguments import parse_arguments
from devtools.eval import manifest, passages, table
from devtools.eval.compare.specs import BACKEND, PACKAGE
from devtools.eval.fresh_folder import FolderTaken, fresh_folder
from devtools.eval.hypotheses import Hypothesis, Word
from devtools.eval.manifest import DEMO_SET, Entry, ManifestError
from devtools.eval.passages import SAMPLE_RATE, Piece, TextMismatch
from devtools.eval.scoring import Spread, score, spread
from devtools.server_process import DEMO_ALIGNER, ROOT
from devtools.tables import aligned, sections, write_json
from devtools.transcribe.checkpoints import NotLoadable, loadable

SHORT_S = 60.0
SNR_DB = 10.0
RESULTS = "alignment.json"
TIMED_S, TIMED_WORDS, REPEATS = 180, 500, 5

Case = tuple[Entry, NDArray[np.float32]]  # a recording and its samples
Align = Callable[[NDArray[np.float32], str, str], list[Word]]  # samples, text, language code
Aligner = tuple[Align, Any, str]  # with the object and its method that decodes times from the model's logits


@dataclass(frozen=True)
class Placement:
    """How well one aligner placed the words of a group."""

    words: int
    matched: int
    boundaries: Spread | None
    zero_length: int
    order_violations: int


@dataclass(frozen=True)
class Timing:
    """Medians: features and forward pass of the model, and the decoding of times from its logits."""

    forward_s: float
    decoding_s: float

    def __str__(self) -> str:
        forward_ms, decoding_ms = 1000 * self.forward_s, 1000 * self.decoding_s
        share = f"{100 * decoding_ms / forward_ms:.2f} % of it"
        return f"features and forward {forward_ms:.1f} ms, decoding of times {decoding_ms:.1f} ms ({share})"


COLUMNS = (
    table.Column("words", lambda p: p.words, decimals=0),
    table.Column("matched", lambda p: p.matched, decimals=0, better="more"),
    *table.BOUNDARY_COLUMNS,
    table.Column("zero", lambda p: p.zero_length, decimals=0, better="fewer"),
    table.Column("order", lambda p: p.order_violations, decimals=0, better="fewer"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devtools.eval.alignment", description=__doc__)
    parser.add_argument("--manifest", type=Path, default=DEMO_SET, help="JSON lines with words; default: the demo's")
    parser.add_argument("--aligner", default=str(DEMO_ALIGNER), help="a folder or hub id; default: the demo's")
    parser.add_argument("--out", type=Path, help="the folder for alignment.json; default: a new one in build/eval")
    arguments = parse_arguments(parser, argv)
    try:
        out = fresh_folder(arguments.out, ROOT / "build/eval", RESULTS) / RESULTS
        cases = read(arguments.manifest)
        folder = loadable("ALIGNER", arguments.aligner)
        aligners = {BACKEND: load_backend(folder), PACKAGE: load_package(folder)}
        placements = compare(cases, {name: aligner[0] for name, aligner in aligners.items()})
        timings = {name: timed(*aligner, cases) for name, aligner in aligners.items()}
    except (FolderTaken, ManifestError, TextMismatch, NotLoadable, AsrError) as failure:
        print(f"eval.alignment: {failure}", file=sys.stderr)
        return 1
    groups = {group: {name: asdict(p) for name, p in systems.items()} for group, systems in placements.items()}
    write_json(out, {"groups": groups, "timing": {name: asdict(timing) for name, timing in timings.items()}})
    lines = [f"{TIMED_S // 60} min, {TIMED_WORDS} words, {name}: {timing}" for name, timing in timings.items()]
    print(sections(aligned(table.rows(COLUMNS, placements), left=2), table.ARROWS, "\n".join(lines), out))
    return 0


def read(path: Path) -> list[Case]:
    """The recordings that can be aligned and checked. Raises ManifestError, UndecodableAudio."""
    entries = [e for e in manifest.read(path) if e.words and e.language in ALIGNABLE]
    if not entries:
        languages = ", ".join(sorted(ALIGNABLE))
        raise ManifestError(path, None, f'no recording has "words" and one of the languages {languages}')
    return [(entry, entry.samples()) for entry in entries]


def load_backend(folder: str) -> Aligner:
    """Raises LoadRefused."""
    from backend.engine.loader import CheckpointLoader
    from backend.options.load_options import LoadOptions
    from backend.serving.protocols import Passage

    aligner = CheckpointLoader().load_aligner(LoadOptions(model=folder, forced_aligner=folder, dtype="float32"))

    def align(samples: NDArray[np.float32], text: str, language: str) -> list[Word]:
        (units,) = aligner.align([Passage(samples, text, language)])
        return [Word(unit.text, unit.start_s, unit.end_s) for unit in units]

    return align, aligner, aligner._decode_times.__name__


def load_package(folder: str) -> Aligner:
    import torch
    from qwen_asr import Qwen3ForcedAligner

    aligner = Qwen3ForcedAligner.from_pretrained(folder, dtype=torch.float32)

    def align(samples: NDArray[np.float32], text: str, language: str) -> list[Word]:
        (result,) = aligner.align(audio=(samples, SAMPLE_RATE), text=text, language=NAMES[language])
        return [Word(item.text, item.start_time, item.end_time) for item in result.items]

    return align, aligner.aligner_processor, "fix_timestamp"


def compare(cases: Sequence[Case], aligners: Mapping[str, Align]) -> dict[str, dict[str, Placement]]:
    """Group of recordings -> system -> how well it placed their words. Empty groups are left out."""
    short = [case for case in cases if case[1].size <= SHORT_S * SAMPLE_RATE]
    long = [case for case in cases if case[1].size > SHORT_S * SAMPLE_RATE]
    found: dict[str, dict[str, Placement]] = {}
    for group, members, cut in (
        (f"up to {SHORT_S:.0f} s", short, passages.whole),
        ("longer, whole", long, passages.whole),
        (f"longer, in pieces up to {passages.PIECE_S:.0f} s", long, passages.pieces),
    ):
        for condition, snr_db in (("clean", math.inf), (f"noise at {SNR_DB:.0f} dB", SNR_DB)):
            given = [(entry, cut(entry, passages.in_noise(entry, samples, snr_db))) for entry, samples in members]
            if given:
                found[f"{group}, {condition}"] = {name: placement(given, align) for name, align in aligners.items()}
    return found


def placement(given: Sequence[tuple[Entry, Sequence[Piece]]], align: Align) -> Placement:
    """What one aligner makes of recordings in their pieces."""
    scores = []
    for entry, pieces in given:
        placed = [
            Word(word.text, word.start_s + piece.start_s, word.end_s + piece.start_s)
            for piece in pieces
            for word in align(piece.samples, piece.text, entry.language)
        ]
        scores.append(score(entry, Hypothesis(entry.text, entry.language, tuple(placed))))
    return Placement(
        words=sum(s.timed_words for s in scores),
        matched=sum(len(s.matches) for s in scores),
        boundaries=spread([error for s in scores for error in s.edge_errors_s]),
        zero_length=sum(s.zero_length for s in scores),
        order_violations=sum(s.order_violations for s in scores),
    )


def timed(
    align: Align, owner: Any, decoding: str, cases: Sequence[Case], clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Medians of 5 alignments of 3 min of sound and 500 words; owner's method `decoding` counts apart."""
    entry, samples = max(cases, key=lambda case: case[1].size)
    text = " ".join(np.resize([word.text for word in entry.words], TIMED_WORDS))
    sound = np.resize(samples, TIMED_S * SAMPLE_RATE)
    method = getattr(owner, decoding)
    decoding_s: list[float] = []
    forward_s: list[float] = []

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = clock()
        result = method(*args, **kwargs)
        decoding_s.append(clock() - began)
        return result

    with mock.patch.object(owner, decoding, measured):
        for _ in range(REPEATS):
            began = clock()
            align(sound, text, entry.language)
            forward_s.append(clock() - began - decoding_s[-1])
    return Timing(statistics.median(forward_s), statistics.median(decoding_s))


if __name__ == "__main__":
    sys.exit(main())
