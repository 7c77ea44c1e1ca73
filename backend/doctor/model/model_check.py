"""The operator's own MODEL and ALIGNER: reach, layout, size and fit, before anything is loaded (trial.py)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from backend.checkpoint import fit
from backend.checkpoint.aligner_lookup import find_aligner, models_folders
from backend.checkpoint.find import Checkpoint, find, inspect
from backend.checkpoint.hub import downloaded
from backend.checkpoint.layout import EXAMPLES, Kind, layout_of
from backend.checkpoint.validation import read_json_object
from backend.doctor.child_process import Report
from backend.doctor.findings import Finding, exit_code, fail, ok, warn
from backend.doctor.model.trial import Trial, judge_trial, try_out
from backend.errors import AsrError
from backend.options.load_options import LoadOptions
from backend.process.machine.available_memory import available_memory

_PASSAGE_S = 30.0  # of the published checkpoints
_ITEMSIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SMALLER = "the 0.6B instead of the 1.7B"


@dataclass(frozen=True)
class Place:
    """Where a load would compute. `most`: see fit.Room; infinite where nothing says how many bytes there are."""

    device: str
    dtype: str
    rows: int
    room: fit.Room


@dataclass(frozen=True)
class CheckpointFacts:
    """One checkpoint as it lies on disk. `refusal`: the backend's own words. `folder`: None before its download."""

    name: str
    refusal: str = ""
    local: bool = False
    on_hub: bool = False
    folder: Path | None = None
    layout: str = ""
    disk_bytes: int = 0
    token: bool = False  # whether HF_TOKEN is set


def place_of(report: Report) -> Place:
    """From backend/engine/device_report.py's; the CPU where no GPU is chosen."""
    gpu = report.facts.get("gpu") or {}
    if gpu.get("device", "cpu") != "cpu":
        free = gpu["free_bytes"] if gpu["free_bytes"] is not None else math.inf
        return Place(gpu["device"], gpu["dtype"], gpu["rows"], fit.Room(free, free))
    engine, memory = report.facts.get("processor", {}), available_memory()
    room = fit.Room(memory.memory, memory.with_swap, is_cpu=True)
    return Place("cpu", engine.get("dtype", "float32"), engine.get("rows", 8), room)


def examine(
    model: CheckpointFacts,
    aligner: CheckpointFacts | None,
    before_the_load: Callable[[], list[Finding]],
    quantization: str,
    pairs: Sequence[str],
) -> tuple[list[Finding], Trial | None]:
    """All findings; None in place of a trial where a load would be refused.

    `before_the_load`: what is looked at once both checkpoints are there. `pairs`: the load's options.
    """
    found = [judge_checkpoint("MODEL", model), *([judge_checkpoint("ALIGNER", aligner)] if aligner else [])]
    if exit_code(found) < 2:
        found += before_the_load()
    if exit_code(found) == 2:
        return found, None
    trial = try_out(model.name, model.local, aligner.name if aligner else "", quantization, pairs)
    return [*found, *judge_trial(trial)], trial


def look_up_model(options: LoadOptions) -> CheckpointFacts:
    """Reads config.json and file names; of a hub id that is not downloaded, config.json alone is fetched."""
    name = _from_caller(options.model)
    found = partial(find, name, folder=options.model_path, revision=options.revision)
    return _facts(name, found, "recognizer", weights=not options.engine_urls)


def look_up_aligner(options: LoadOptions, model: CheckpointFacts) -> CheckpointFacts | None:
    """The same of the aligner, found as a load finds it (checkpoint/aligner_lookup.py); None where none is named."""
    if not options.forced_aligner:
        return None
    options = replace(options, model_file=model.name if model.local else "")
    if not any((folder / options.forced_aligner).exists() for folder in models_folders(options)):
        options = replace(options, forced_aligner=_from_caller(options.forced_aligner))
    return _facts(options.forced_aligner, partial(find_aligner, options), "aligner")


def _from_caller(name: str) -> str:
    """As an absolute path where it is one: run.sh has left the folder that a relative path starts from."""
    caller = os.environ.get("OLDPWD", "")
    here = Path(caller) / name if caller and (Path(caller) / name).exists() else Path(name)
    return str(here.resolve()) if here.exists() else name


def _facts(name: str, found: Callable[[], Checkpoint], kind: Kind, *, weights: bool = True) -> CheckpointFacts:
    """`weights`: whether a load needs them."""
    facts = CheckpointFacts(name, token=bool(os.environ.get("HF_TOKEN")))
    try:
        checkpoint = found()
        facts = replace(facts, name=checkpoint.name, local=checkpoint.local, on_hub=not checkpoint.local)
        inspect(checkpoint, kind, weights=weights)
    except AsrError as error:
        return replace(facts, refusal=str(error))
    folder = Path(checkpoint.name) if checkpoint.local else downloaded(checkpoint.name, checkpoint.revision)
    if folder is None or not (folder / "config.json").is_file():
        return facts
    if weights and not any(folder.glob("*.safetensors")):
        return facts
    layout = layout_of(checkpoint.name, read_json_object(folder / "config.json"), kind)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return replace(facts, folder=folder, layout="transformers" if layout.native else "package", disk_bytes=size)


def judge_checkpoint(role: str, facts: CheckpointFacts) -> Finding:
    """`role`: MODEL or ALIGNER."""
    token = "HF_TOKEN is set" if facts.token else "HF_TOKEN is not set"
    if facts.refusal:
        example = EXAMPLES["aligner" if role == "ALIGNER" else "recognizer"]
        if facts.on_hub:
            return fail(role, f"{facts.refusal} ({token})", f"HF_TOKEN=... if it is gated; {role}=/a/folder; {example}")
        return fail(role, facts.refusal, f"{role}={example}")
    if facts.folder is None:
        return warn(
            role,
            f"{facts.name} is on the hub and not downloaded yet ({token})",
            f"hf download {facts.name}, or let the first load fetch it",
        )
    where = "on disk" if facts.local else "downloaded from the hub"
    weights = f"{facts.disk_bytes / 1e9:.3g} GB of weights" if facts.disk_bytes else "no weights here"
    return ok(role, f"{facts.name}, {where}, {facts.layout} layout, {weights}")


def need(
    model: CheckpointFacts, aligner: CheckpointFacts | None, place: Place, int8: bool, rows: int
) -> fit.Need | None:
    """As engine/loader.py computes it; None before the download."""
    if model.folder is None:
        return None
    itemsize = _ITEMSIZES[place.dtype]
    return fit.Need(
        fit.weight_bytes(model.folder, itemsize, int8=int8),
        fit.weight_bytes(aligner.folder, itemsize) if aligner and aligner.folder else 0.0,
        fit.row_bytes(read_json_object(model.folder / "config.json"), itemsize, _PASSAGE_S),
        rows,
    )


@dataclass(frozen=True)
class Fit:
    """How the model fits with the default options, and options with which it fits better: `quantization`, `rows`."""

    verdict: fit.Verdict
    needed: float
    free: float
    quantization: str = ""
    rows: int | None = None


def fit_of(model: CheckpointFacts, aligner: CheckpointFacts | None, place: Place) -> Fit | None:
    """None where nothing is known of the weights. The first that fits: the defaults, int8, two rows, both."""
    default = need(model, aligner, place, False, place.rows)
    if default is None:
        return None
    verdict = fit.verdict(default, place.room)
    size = default.whole if verdict != "too large" else (default.weights if place.room.is_cpu else default.least)
    found = Fit(verdict, size, place.room.free)
    tries = [("", 2), ("int8", place.rows), ("int8", 2)] if verdict != "fits" else []
    for wanted in ("fits", "close"):
        for quantization, rows in tries if verdict != "close" or wanted == "fits" else []:
            other = need(model, aligner, place, bool(quantization), min(rows, place.rows))
            if other is not None and fit.verdict(other, place.room) == wanted:
                return replace(found, quantization=quantization, rows=2 if rows == 2 < place.rows else None)
    return found


def judge_fit(found: Fit | None) -> Finding:
    if found is None:
        return warn("fit", "not known before the weights are downloaded", "download them, then run the doctor again")
    value = f"needs {found.needed / 1e9:.3g} GB, {found.free / 1e9:.1f} GB are free"
    remedy = ", ".join(
        [
            *([f"quantization: {found.quantization}"] if found.quantization else []),
            *([f"batch_max_size:{found.rows}"] if found.rows else []),
        ]
    )
    if found.verdict == "fits":
        return ok("fit", value)
    if found.verdict == "too large" and not remedy:
        return fail("fit", f"too large: {value}", _SMALLER)
    words = {"close": "close", "without aligner": "no room for the aligner", "too large": "too large"}[found.verdict]
    return warn("fit", f"{words}: {value}", remedy or _SMALLER)
