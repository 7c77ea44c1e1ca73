"""Recordings cut between sentences and laid in noise; how an aligner's words are judged and timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from devtools.eval import alignment, table
from devtools.eval.hypotheses import Word
from devtools.eval.manifest import Entry, ManifestError
from devtools.eval.passages import TextMismatch, in_noise, pieces, whole

ENTRY = Entry(
    "a",
    Path("a.wav"),
    "Open the door. Stop! Play music now. Good.",
    "en",
    (
        Word("Open", 1.0, 2.0), Word("the", 2.0, 3.0), Word("door", 3.0, 4.0), Word("Stop", 5.0, 6.0),
        Word("Play", 8.0, 9.0), Word("music", 9.0, 10.0), Word("now", 10.0, 12.0), Word("Good", 13.0, 14.0),
    ),
)  # fmt: skip
SAMPLES = np.linspace(0, 1, 15 * 16_000, dtype=np.float32)


def test_pieces_hold_as_many_sentences_as_fit_and_are_cut_in_the_middle_of_pauses() -> None:
    found = pieces(ENTRY, SAMPLES, longest_s=6.0)
    assert [piece.text for piece in found] == ["Open the door. Stop!", "Play music now. Good."]
    assert [piece.start_s for piece in found] == [0.0, 7.0]
    assert np.array_equal(np.concatenate([piece.samples for piece in found]), SAMPLES)


def test_a_sentence_that_is_too_long_is_a_piece_by_itself() -> None:
    texts = [piece.text for piece in pieces(ENTRY, SAMPLES, longest_s=1.5)]
    assert texts == ["Open the door.", "Stop!", "Play music now.", "Good."]


def test_what_fits_is_one_piece() -> None:
    assert [(p.start_s, p.samples.size, p.text) for p in pieces(ENTRY, SAMPLES)] == [(0.0, SAMPLES.size, ENTRY.text)]


def test_a_recording_of_chinese_is_cut_at_its_own_full_stops() -> None:
    entry = Entry("z", Path("z"), "一二。三。", "zh", (Word("一", 0, 1), Word("二", 1, 2), Word("三", 4, 5)))
    assert [piece.text for piece in pieces(entry, SAMPLES[:80_000], longest_s=3.0)] == ["一二。", "三。"]


def test_words_that_are_not_those_of_the_text_are_an_error() -> None:
    wrong = Entry("a", Path("a.wav"), "Open a door.", "en", ENTRY.words[:3])
    with pytest.raises(TextMismatch, match='a: the word "the" of "words" does not follow in "text"'):
        pieces(wrong, SAMPLES)


def test_noise_is_as_loud_as_asked_and_the_same_each_time() -> None:
    noise = in_noise(ENTRY, SAMPLES, 10.0) - SAMPLES
    spoken = np.concatenate([SAMPLES[round(w.start_s * 16_000) : round(w.end_s * 16_000)] for w in ENTRY.words])
    assert 10 * np.log10(np.mean(spoken**2) / np.mean(noise**2)) == pytest.approx(10.0, abs=0.1)
    assert np.array_equal(noise, in_noise(ENTRY, SAMPLES, 10.0) - SAMPLES)


def test_words_of_a_piece_are_placed_in_the_recording() -> None:
    def late(samples: NDArray[np.float32], text: str, language: str) -> list[Word]:
        """Every word 50 ms after the truth, counted from the start of its piece; the last one has no length."""
        start = float(samples[0]) * 15
        words = [w for w in ENTRY.words if start <= w.start_s < start + samples.size / 16_000]
        assert language == "en"
        assert len(text.split()) == len(words)
        moved = [Word(w.text.lower(), w.start_s - start + 0.05, w.end_s - start + 0.05) for w in words]
        return [*moved[:-1], moved[-1]._replace(end_s=moved[-1].start_s)]

    found = alignment.placement([(ENTRY, pieces(ENTRY, SAMPLES, longest_s=6.0))], late)
    assert (found.words, found.matched, found.zero_length, found.order_violations) == (8, 8, 2, 0)
    assert found.boundaries is not None
    assert found.boundaries.p50_s == pytest.approx(0.05, abs=1e-3)
    assert found.boundaries.close == pytest.approx(14 / 16)


def test_an_aligner_that_places_nothing_has_no_boundary_errors() -> None:
    found = alignment.placement([(ENTRY, whole(ENTRY, SAMPLES))], lambda *_: [])
    assert (found.words, found.matched, found.boundaries) == (0, 0, None)
    rows = table.rows(alignment.COLUMNS, {"group": {"backend": found, "package": found}})
    assert rows[1][4:8] == ["-"] * 4


def test_recordings_above_a_minute_are_also_cut() -> None:
    short, long = (ENTRY, SAMPLES), (ENTRY, np.resize(SAMPLES, 61 * 16_000))
    found = alignment.compare([short, long], {"backend": lambda *_: []})
    assert list(found) == [
        "up to 60 s, clean", "up to 60 s, noise at 10 dB",
        "longer, whole, clean", "longer, whole, noise at 10 dB",
        "longer, in pieces up to 15 s, clean", "longer, in pieces up to 15 s, noise at 10 dB",
    ]  # fmt: skip


class Aligner:
    """Takes 3 s at first and 2 s from then on, on a clock of its own, and 0.5 s to decode."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[int, int]] = []

    def align(self, samples: NDArray[np.float32], text: str, _language: str) -> list[Word]:
        self.now += 2.0 if self.calls else 3.0
        self.calls.append((samples.size, len(text.split())))
        self.decode()
        return []

    def decode(self) -> None:
        self.now += 0.5


def test_decoding_is_timed_apart_from_the_rest() -> None:
    aligner = Aligner()
    found = alignment.timed(aligner.align, aligner, "decode", [(ENTRY, SAMPLES)], clock=lambda: aligner.now)
    assert aligner.calls == [(180 * 16_000, 500)] * 5
    assert (found.forward_s, found.decoding_s) == (2.0, 0.5)
    assert "decode" not in vars(aligner)  # as it was


def test_a_manifest_without_times_cannot_judge_an_aligner(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "Hello.", "language": "en"}')
    with pytest.raises(ManifestError, match='no recording has "words"'):
        alignment.read(tmp_path / "m.jsonl")
