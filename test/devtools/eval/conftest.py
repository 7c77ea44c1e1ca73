"""A small evaluation made by hand: two recordings, one in which nobody speaks, and both systems' answers to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devtools.eval.compare.specs import BACKEND, PACKAGE
from devtools.eval.hypotheses import Hypothesis, Run, Word
from devtools.eval.manifest import Entry
from devtools.eval.report import Probe, Report, envelope, recording, system

TRUTH = (Word("Hello", 0.2, 0.6), Word("wide", 0.7, 0.9), Word("world", 1.0, 1.5))
ENTRIES = (
    Entry("good", Path("good.wav"), "Hello wide world.", "en", TRUTH),
    Entry("bad <script>", Path("bad.wav"), "一二。", "zh", (Word("一", 0.1, 0.4), Word("二", 0.5, 0.9))),
    Entry("nobody", Path("nobody.wav"), "", ""),
)
BACKEND_HYPOTHESES = {
    "good": Hypothesis(
        "Hello wide world.", "en", (Word("Hello", 0.21, 0.6), Word("wide", 0.7, 0.9), Word("world.", 1.0, 1.48)), 0.5
    ),
    "bad <script>": Hypothesis("一三<b>&", "zh", (Word("一", 0.1, 0.4), Word("三<b>&", 0.5, 0.9)), 0.5),
    "nobody": Hypothesis(took_s=0.1),
}
PACKAGE_HYPOTHESES = {
    "good": Hypothesis("Hello world.", "en", (Word("Hello", 0.4, 0.4), Word("world", 0.96, 1.44)), 1.0),
    "bad <script>": Hypothesis(failure='RuntimeError: "tensor" <broke>', took_s=0.2),
    "nobody": Hypothesis("Thank you.", "en", (), 0.1),
}


def probed(text: str) -> list[Probe]:
    return [
        Probe(kind, level, language, Hypothesis(text if kind == "siren" else ""))
        for kind in ("rain", "siren")
        for level in (1.0, 0.1)
        for language in ("", "en")
    ]


@pytest.fixture
def report() -> Report:
    runs = {BACKEND: Run(BACKEND_HYPOTHESES, 512 * 2**20), PACKAGE: Run(PACKAGE_HYPOTHESES, None)}
    sound = np.sin(np.arange(2 * 16_000) / 20).astype(np.float32)
    recordings = [recording(entry, envelope(sound), runs) for entry in ENTRIES]
    return Report(
        manifest="a set of <three>",
        model="some/model",
        aligner="some/aligner",
        options=("max_chunk_seconds:10",),
        made="2026-01-01",
        recordings=tuple(recordings),
        systems={
            BACKEND: system(BACKEND, runs[BACKEND], recordings, probed("")),
            PACKAGE: system(PACKAGE, runs[PACKAGE], recordings, probed("Thank you."), BACKEND, "the package"),
        },
    )
