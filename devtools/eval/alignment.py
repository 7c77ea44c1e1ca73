"""The aligner alone, the backend's against the package's, on the same weights and with the true text:
`python -m devtools.eval.alignment`, `make eval-aligner`.

Both compute in float32 and are given one passage at a time. Recordings above a minute are given whole, as they are, and
in pieces cut between sentences. Then the time that each takes to read times from the model's scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.audio.decoding.decode import decode
from backend.errors import AsrError
from backend.languages import ALIGNABLE, NAMES
from devtools.eval import manifest, passages, table
from devtools.eval.__main__ import DEMO_SET, LONGEST_S, ROOT
from devtools.eval.answers import Word
from devtools.eval.manifest import Entry, ManifestError
from devtools.eval.passages import SAMPLE_RATE, Stretch, TextMismatch
from devtools.eval.report import OURS, PACKAGE
from devtools.eval.scoring import Spread, matches, order_violations, spread, zero_length
from devtools.transcribe.__main__ import DEMO_ALIGNER, DemoFailed, loadable

SHORT_S = 60.0
SNR_DB = 10.0
TIMED_S, TIMED_WORDS, TIMES = 180, 500, 5

Align = Callable[[NDArray[np.float32], str, str], list[Word]]  # samples, text, language code


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
    """Medians in seconds: features and forward pass of the model, and the reading of times from its scores."""

    forward_s: float
    decoding_s: float


def main(argv: Sequence[str] | None = None) -> int:
    wanted = parse(argv)
    try:
        cases = read(Path(wanted.manifest))
        folder = loadable("ALIGNER", wanted.aligner)
        ours, package = load_ours(folder), load_package(folder)
        aligners: dict[str, Align] = {OURS: ours_of(ours), PACKAGE: package_of(package)}
        placements = compare(cases, aligners)
        timings = {OURS: timed(aligners[OURS], ours, "_timed", cases)}
        timings[PACKAGE] = timed(aligners[PACKAGE], package.aligner_processor, "fix_timestamp", cases)
    except (ManifestError, TextMismatch, DemoFailed, AsrError) as failure:
        print(f"eval.alignment: {failure}", file=sys.stderr)
        return 1
    out = Path(wanted.out) / "alignment.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "groups": {group: {name: asdict(p) for name, p in by.items()} for group, by in placements.items()},
        "timing": {name: asdict(timing) for name, timing in timings.items()},
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table.aligned(rows(placements), left=2), "", *timing_lines(timings), "", out, sep="\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devtools.eval.alignment", description="Our aligner against the package's.")
    parser.add_argument("--manifest", default=DEMO_SET, help="JSON lines with words; default: the demo's")
    parser.add_argument(
        "--aligner", default=DEMO_ALIGNER, help="a folder, or a hub id such as Qwen/Qwen3-ForcedAligner-0.6B"
    )
    parser.add_argument("--out", default=str(ROOT / "build/eval"), help="the folder for alignment.json")
    return parser.parse_args(argv)


def read(path: Path) -> list[tuple[Entry, NDArray[np.float32]]]:
    """The recordings that can be aligned and checked, with their samples. Raises ManifestError, UndecodableAudio."""
    entries = [e for e in manifest.read(path) if e.words and e.language in ALIGNABLE]
    if not entries:
        raise ManifestError(
            path, None, f'no recording has "words" and one of the languages {", ".join(sorted(ALIGNABLE))}'
        )
    return [(entry, decode(str(entry.audio), max_seconds=LONGEST_S).samples) for entry in entries]


def load_ours(aligner: str) -> Any:
    """The backend's aligner. Raises LoadRefused."""
    from backend.engine.loader import CheckpointLoader
    from backend.options import LoadOptions

    return CheckpointLoader().load_aligner(LoadOptions(model=aligner, forced_aligner=aligner, dtype="float32"))


def load_package(aligner: str) -> Any:
    import torch
    from qwen_asr import Qwen3ForcedAligner

    return Qwen3ForcedAligner.from_pretrained(aligner, dtype=torch.float32)


def ours_of(aligner: Any) -> Align:
    from backend.serving.protocols import Passage

    def align(samples: NDArray[np.float32], text: str, language: str) -> list[Word]:
        (units,) = aligner.align([Passage(samples, text, language)])
        return [Word(unit.text, unit.start_s, unit.end_s) for unit in units]

    return align


def package_of(aligner: Any) -> Align:
    def align(samples: NDArray[np.float32], text: str, language: str) -> list[Word]:
        (result,) = aligner.align(audio=(samples, SAMPLE_RATE), text=text, language=NAMES[language])
        return [Word(item.text, item.start_time, item.end_time) for item in result.items]

    return align


def compare(
    cases: Sequence[tuple[Entry, NDArray[np.float32]]], aligners: Mapping[str, Align]
) -> dict[str, dict[str, Placement]]:
    """Group of recordings -> system -> how well it placed their words. Groups that nobody is in are left out."""
    short = [case for case in cases if case[1].size <= SHORT_S * SAMPLE_RATE]
    long = [case for case in cases if case[1].size > SHORT_S * SAMPLE_RATE]
    ways = (
        (f"up to {SHORT_S:.0f} s", short, passages.whole),
        ("longer, whole", long, passages.whole),
        (f"longer, in pieces up to {passages.PIECE_S:.0f} s", long, passages.pieces),
    )
    found: dict[str, dict[str, Placement]] = {}
    for group, members, cut in ways:
        for condition, snr_db in (("clean", None), (f"noise at {SNR_DB:.0f} dB", SNR_DB)):
            if members:
                given = [
                    (entry, cut(entry, samples if snr_db is None else passages.in_noise(entry, samples, snr_db)))
                    for entry, samples in members
                ]
                found[f"{group}, {condition}"] = {name: placement(given, align) for name, align in aligners.items()}
    return found


def placement(given: Sequence[tuple[Entry, Sequence[Stretch]]], align: Align) -> Placement:
    """What one aligner makes of recordings in their stretches."""
    errors: list[float] = []
    words = matched = zero = disorder = 0
    for entry, stretches in given:
        placed = [
            Word(w.text, w.start_s + stretch.start_s, w.end_s + stretch.start_s)
            for stretch in stretches
            for w in align(stretch.samples, stretch.text, entry.language)
        ]
        for i, j in matches(entry.words, placed):
            matched += 1
            heard, true = placed[j], entry.words[i]
            errors += [abs(heard.start_s - true.start_s), abs(heard.end_s - true.end_s)]
        words += len(placed)
        zero += zero_length(placed)
        disorder += order_violations(placed)
    return Placement(words, matched, spread(errors), zero, disorder)


def timed(
    align: Align,
    owner: Any,
    decoding: str,
    cases: Sequence[tuple[Entry, NDArray[np.float32]]],
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Medians of 5 alignments of 3 min of sound and 500 words, the share of owner's method `decoding` apart."""
    entry, samples = max(cases, key=lambda case: case[1].size)
    text = " ".join(np.resize([word.text for word in entry.words], TIMED_WORDS))
    sound = np.resize(samples, TIMED_S * SAMPLE_RATE)
    method = getattr(owner, decoding)
    spent: list[float] = []

    def measured(*args: Any, **kwargs: Any) -> Any:
        began = clock()
        result = method(*args, **kwargs)
        spent.append(clock() - began)
        return result

    setattr(owner, decoding, measured)
    forward: list[float] = []
    try:
        for _ in range(TIMES):
            began = clock()
            align(sound, text, entry.language)
            forward.append(clock() - began - spent[-1])
    finally:
        delattr(owner, decoding)
    return Timing(statistics.median(forward), statistics.median(spent))


def rows(found: Mapping[str, Mapping[str, Placement]]) -> list[list[str]]:
    head = ["", "", "words", "matched", "mean ms", "p50 ms", "p95 ms", "≤ 80 ms %", "zero", "order"]
    written = [head]
    for group, by in found.items():
        for i, (name, p) in enumerate(by.items()):
            b = p.boundaries
            times = (
                [f"{v:.1f}" for v in (1000 * b.mean_s, 1000 * b.p50_s, 1000 * b.p95_s, 100 * b.close)]
                if b
                else ["-"] * 4
            )
            counts = [str(p.zero_length), str(p.order_violations)]
            written.append(["" if i else group, name, str(p.words), str(p.matched), *times, *counts])
        ours, theirs = by[OURS].boundaries, by[PACKAGE].boundaries
        if ours and theirs:
            pairs = ((ours.mean_s, theirs.mean_s), (ours.p50_s, theirs.p50_s), (ours.p95_s, theirs.p95_s))
            written.append(["", "ratio", "", "", *(table.parts(*pair) for pair in pairs), "", "", ""])
    return written


def timing_lines(timings: Mapping[str, Timing]) -> list[str]:
    """A line for each system: what the decoding of times costs, beside the forward pass."""
    return [
        f"{TIMED_S // 60} min, {TIMED_WORDS} words, {name}: features and forward {1000 * t.forward_s:.1f} ms,"
        f" decoding of times {1000 * t.decoding_s:.1f} ms ({100 * t.decoding_s / t.forward_s:.2f} % of it)"
        for name, t in timings.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
