"""The figures of the lane `live` as text and as a drawing; "-" where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup

from devtools.eval import charts
from devtools.eval.live.lane import CONDITIONS, LiveLane, Spoken
from devtools.eval.scoring import Count
from devtools.tables import aligned, figure, sections

HEAD = ("", "files", "whole", "WER %", "as files %", "more", "lag p50 s", "p95 s", "words", "rewrites", "utterances",
        "per 100")  # fmt: skip
_COLOURS = {"clean": "backend", "10 dB": "quiet", "5 dB": "package"}


def rows(lane: LiveLane) -> list[list[str]]:
    """A head, and a row for each condition."""
    return [[*HEAD], *(_row(name, lane.of(name)) for name in CONDITIONS if lane.of(name))]


def _row(name: str, spoken: Sequence[Spoken]) -> list[str]:
    live, files = (sum(counts, Count()).rate for counts in ([s.words for s in spoken], [s.file_words for s in spoken]))
    lags = lags_of(spoken)
    rewrites, utterances = sum(s.rewrites for s in spoken), sum(s.utterances for s in spoken)
    return [
        name,
        str(len(spoken)),
        str(sum(s.whole for s in spoken)),
        _percent(live),
        _percent(files),
        _percent(None if live is None or files is None else live - files),
        *(figure(float(np.percentile(lags, share)) if lags else None, 2) for share in (50, 95)),
        str(len(lags)),
        str(rewrites),
        str(utterances),
        figure(100 * rewrites / utterances if utterances else None, 1),
    ]


def _percent(share: float | None) -> str:
    return figure(None if share is None else 100 * share, 2)


def lags_of(spoken: Sequence[Spoken]) -> list[float]:
    return [lag_s for each in spoken for _, lag_s in each.lags]


def remarks(lane: LiveLane) -> list[str]:
    """Pauses, sounds without speech, failures."""
    found = [
        f"an end of utterance at {lane.ends[0]} of {lane.ends[1]} sentences' ends, and at {lane.inside[0]} of"
        f" {lane.inside[1]} pauses of 0.7 s inside a sentence"
    ]
    if lane.probes:
        kinds = f", from {', '.join(dict.fromkeys(lane.invented))}" if lane.invented else ""
        found.append(f"{len(lane.invented)} of {lane.probes} sounds without speech were given a text{kinds}")
    found += [f"failed: {each.entry_id}, {each.condition}: {each.failure}" for each in lane.spoken if each.failure]
    return found


def terminal(lane: LiveLane) -> str:
    return sections("live, spoken at its own pace", aligned(rows(lane)), "\n".join(remarks(lane)))


def lag_over_time(lane: LiveLane) -> Markup:
    """The lag (up) of each word by when it was spoken (to the right), a colour for each condition."""
    highest = max(lags_of(lane.spoken), default=0.0)
    if not highest:
        return Markup("")
    with matplotlib.rc_context(charts.STYLE):
        axes = charts.new_axes(300)
        axes.set_title("seconds behind the speaker", loc="left", fontsize=12)
        longest = max(end_s for each in lane.spoken for end_s, _ in each.lags)
        axes.set(xlim=(0, longest), ylim=(0, max(3.0, 1.05 * highest)), xlabel="when the word was spoken (s)")
        for name in reversed(CONDITIONS):
            for each in lane.of(name):
                if each.lags:
                    colour = charts.COLOURS[_COLOURS[name]]
                    times, lags = zip(*each.lags, strict=True)
                    axes.plot(
                        times,
                        lags,
                        ".",
                        color=colour,
                        markersize=5,
                        markeredgewidth=0,
                        gid=f"dots {_COLOURS[name]}|{name}",
                    )
        return charts.svg(axes)
