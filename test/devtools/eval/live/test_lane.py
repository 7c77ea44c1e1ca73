"""The lane's figures, its table and its drawing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from devtools.eval import page, table
from devtools.eval.live.lane import CONDITIONS, LiveLane, Spoken, _cases
from devtools.eval.live.lane_figures import lag_over_time, rows, terminal
from devtools.eval.manifest import DEMO_SET, read
from devtools.eval.report import Report, as_json
from devtools.eval.scoring import Count

GOOD = Spoken(
    "a", "clean", "Turn on.", "Turn on.", Count(0, 40), Count(1, 40), ((1.0, 1.5), (2.0, 2.5)), True, "", 0, 3
)
NOISY = replace(GOOD, condition="5 dB", words=Count(4, 40), lags=((1.0, 1.7),), rewrites=1, utterances=4)
LANE = LiveLane((GOOD, NOISY), (9, 10), (3, 8), ("siren",), 120)


def test_each_condition_has_a_row_of_figures() -> None:
    head, clean, noisy = rows(LANE)
    assert clean[0] == "clean"
    assert dict(zip(head, clean, strict=True))["WER %"] == "0.00"
    found = dict(zip(head, noisy, strict=True))
    assert (found["WER %"], found["as files %"], found["more"]) == ("10.00", "2.50", "7.50")
    assert (found["lag p50 s"], found["rewrites"], found["per 100"]) == ("1.70", "1", "25.0")
    assert dict(zip(head, clean, strict=True))["lag p50 s"] == "2.00"


def test_what_was_not_measured_is_a_dash() -> None:
    empty = replace(GOOD, words=Count(), file_words=Count(), lags=(), utterances=0)
    (_, row) = rows(LiveLane((empty,), (0, 0), (0, 0)))
    assert row[3:8] == ["-"] * 5
    assert row[-1] == "-"
    assert lag_over_time(LiveLane((empty,), (0, 0), (0, 0))) == ""


def test_the_remarks_say_where_utterances_were_ended_and_what_was_invented() -> None:
    failed = replace(GOOD, failure="INTERNAL: x", whole=False)
    printed = terminal(replace(LANE, spoken=(GOOD, failed)))
    assert "an end of utterance at 9 of 10 sentences' ends, and at 3 of 8 pauses of 0.7 s inside a sentence" in printed
    assert "1 of 120 sounds without speech were given a text, from siren" in printed
    assert "failed: a, clean: INTERNAL: x" in printed


def test_the_page_draws_a_dot_for_each_word(report: Report) -> None:
    spoken = replace(report, live=LANE)
    written = page.html(spoken)
    assert "While somebody speaks" in written
    assert "While somebody speaks" not in page.html(report)
    drawn = str(lag_over_time(LANE))
    assert drawn.count('class="dots backend"') == drawn.count('class="dots package"') == 1
    assert "var(--backend)" in drawn
    assert "url(" not in drawn
    assert "live, spoken at its own pace" in table.terminal(spoken)
    assert json.loads(json.dumps(as_json(spoken)))["live"]["inside"] == [3, 8]
    assert "live" not in as_json(report)


def test_every_recording_with_times_is_spoken_in_every_condition_the_longest_first() -> None:
    entries = [entry for entry in read(DEMO_SET) if entry.id in ("chinese", "noise", "demo")]
    cases = list(_cases(entries))
    assert [(case.entry.id, case.condition) for case in cases[:3]] == [("demo", name) for name in CONDITIONS]
    assert [case.condition for case in cases if case.entry.id == "noise"] == ["clean"]
    clean, *noisy = (case.sound for case in cases[:3])
    assert all(np.abs(sound - clean).max() > 0.01 for sound in noisy)
    assert all(np.abs(case.sound).max() <= 1 for case in cases)
