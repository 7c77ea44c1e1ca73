"""A load that is held: many streams at once, each with recordings of its own, for as long as the form says.

Nothing may be lost and nothing mixed up. With the fakes a text can only belong to its own audio, prompt and language;
with the demo checkpoints every text must be the one that the same recording has alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from devtools.stress.asking import LOST, OK, Outcome, Wanted, all_asked, asked_anew, healths, own_sound, statuses
from devtools.stress.child import ROOT, RUN, Child, Failed
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, at_most, none_of, quantile, told
from devtools.stress.plan import Plan, taking
from devtools.stress.sounds import ONE_CHUNK_S

_HEALTH_S = 0.1
_RECORDINGS = 6  # of each stream, asked for in turns
_LANGUAGES = ("", "en", "de-DE", "zh")
_CODES = {"": None, "en": "en", "de-DE": "de", "zh": "zh"}


@dataclass
class LoadedModels:
    """What a load came to."""

    outcomes: list[tuple[Wanted, Outcome]] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)

    @property
    def lost(self) -> list[Outcome]:
        return [outcome for _, outcome in self.outcomes if outcome.status == LOST]

    @property
    def wrong(self) -> list[tuple[Wanted, Outcome]]:
        return [(w, o) for w, o in self.outcomes if o.status == OK and not o.is_exact(w)]

    @property
    def refused(self) -> list[Outcome]:
        return [outcome for _, outcome in self.outcomes if outcome.status not in (OK, LOST)]


def with_fakes(form: Form) -> Iterator[Line]:
    """Every stream sends noise of its own, of all lengths, with and without times."""
    form.say(f"load held: {form.streams} streams of noise for {form.load_s:g} s")
    with sound_folder() as folder, Child() as child:
        child.load_plan(Plan(steps=4, step_s=0.002))
        streams = [_own(folder, form.seed, number) for number in range(form.streams)]
        held = asyncio.run(hold(child.address, streams, form.load_s))
    yield from lines_of("load held, by hash", held)


def with_demo(form: Form) -> Iterator[Line]:
    """The demo's recordings through run.sh, the texts of a crowd against those of each alone."""
    form.say(f"load held: {form.streams} streams of the demo's recordings for {form.load_s:g} s")
    with Child(RUN) as child:
        child.load_demo()
        entries, missed = asyncio.run(_alone(child.address, _demo_recordings()))
        chance = Random(form.seed)
        streams = [chance.sample(entries, len(entries)) for _ in range(form.streams)]
        held = asyncio.run(hold(child.address, streams, form.load_s))
    yield told(
        "load held, demo models", "recordings heard as in the manifest", f"{len(entries) - missed} of {len(entries)}"
    )
    yield from lines_of("load held, demo models", held)


def lines_of(measure: str, held: LoadedModels) -> Iterator[Line]:
    exact = sum(outcome.is_exact(wanted) for wanted, outcome in held.outcomes)
    took = [outcome.took_s for _, outcome in held.outcomes]
    yield told(
        measure, "sent", f"{len(held.outcomes)} = {exact} exact + {statuses(held.refused)}", sent=len(held.outcomes),
        exact=exact, p50_s=quantile(took, 0.5), p99_s=quantile(took, 0.99),
    )  # fmt: skip
    yield none_of(measure, "lost", len(held.lost), "; ".join(sorted({o.details for o in held.lost})))
    wrong = [f"{w.path.name}: {o.result.text[:60]!r} instead of {w.text[:60]!r}" for w, o in held.wrong[:3]]
    yield none_of(measure, "wrong", len(held.wrong), "; ".join(wrong))
    yield none_of(measure, "refused", len(held.refused), "; ".join(sorted({o.details for o in held.refused})))
    yield at_most(measure, "Health meanwhile, p99", quantile(held.health_s, 0.99), _HEALTH_S, "s")


async def hold(address: str, streams: Sequence[Sequence[Wanted]], seconds: float) -> LoadedModels:
    """Every stream asks for its recordings one after the other, over and over; what has begun is waited for."""
    until = time.monotonic() + seconds
    held, ended = LoadedModels(), asyncio.Event()

    async def run(recordings: Sequence[Wanted]) -> None:
        for wanted in itertools.cycle(recordings):
            if time.monotonic() > until:
                return
            held.outcomes.append((wanted, await asked_anew(address, wanted)))

    watching = asyncio.create_task(healths(address, ended))
    await asyncio.gather(*(run(recordings) for recordings in streams))
    ended.set()
    held.health_s = await watching
    return held


def _own(folder: Path, seed: int, number: int) -> list[Wanted]:
    chance = Random(f"{seed}/{number}")
    recordings = []
    for each in range(_RECORDINGS):
        seconds = chance.choice((chance.uniform(0.05, 0.5), chance.uniform(0.5, 4), chance.uniform(4, ONE_CHUNK_S)))
        language = chance.choice(_LANGUAGES)
        prompt = taking(chance.randint(1, 8), f"for stream {number}")
        own = own_sound(
            folder, chance.getrandbits(48), seconds, prompt, times=each % 2 == 0, language=_CODES[language] or ""
        )
        recordings.append(replace(own, language=language))
    return recordings


def _demo_recordings() -> list[Wanted]:
    """Those of seconds: of the long one the streams would ask a few times only."""
    manifest = ROOT / "test/audio/manifest.jsonl"
    entries = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    paths = [(manifest.parent / entry["audio"], entry["text"]) for entry in entries]
    return [
        Wanted(path, text, times=times) for path, text in paths if path.name != "long.flac" for times in (False, True)
    ]


async def _alone(address: str, entries: Sequence[Wanted]) -> tuple[list[Wanted], int]:
    """The recordings with the texts that they have alone, and how many of those are not the manifest's."""
    heard, missed = [], 0
    for wanted in entries:
        (outcome,) = await all_asked(address, [wanted])
        if outcome.status != OK:
            raise Failed(f"{wanted.path.name} alone: {outcome.details}")
        heard.append(replace(wanted, text=outcome.result.text))
        missed += outcome.result.text != wanted.text
    return heard, missed
