"""Transcribes a manifest with the running backend; prints a table, writes a JSON file and a page. `make eval`.

Exit code 0 when every recording was given to the backend, whatever came of it; 1, with the cause as the last line of
stderr, when that was impossible: a manifest, model or option that is not right.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile

from backend.errors import UndecodableAudio
from devtools.arguments import count, parse_arguments, some_of
from devtools.eval import backend_client, baseline, manifest, nonspeech, page, table
from devtools.eval.hypotheses import Job
from devtools.eval.live import lane
from devtools.eval.manifest import DEMO_SET, Entry, ManifestError
from devtools.eval.report import BACKEND, PACKAGE, Envelope, Probe, Report, as_json, envelope, recording, system
from devtools.server_process import DEMO_MODEL, ROOT, ServerFailed
from devtools.tables import write_json
from devtools.transcribe.checkpoints import NotLoadable, chosen_aligner, load_options

QUICK_S = 60.0
LEVELS = (1.0, 0.1, 0.01)
FORCED = ("", "en")  # a forced language makes hallucinations in it more likely


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        report = evaluate(arguments)
    except (ManifestError, NotLoadable, ServerFailed, KeyboardInterrupt) as failure:
        print(f"eval: {str(failure) or 'stopped'}", file=sys.stderr)
        return 1
    results, shown = arguments.out / "results.json", arguments.out / "index.html"
    write_json(results, as_json(report))
    shown.write_text(page.html(report), encoding="utf-8")
    print(table.terminal(report), "", results, shown, sep="\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval", description="Accuracy of the running backend.")
    add = parser.add_argument
    add("--manifest", type=Path, default=DEMO_SET, help="JSON lines: audio, text, language, words; default: the demo's")
    add("--model", default=str(DEMO_MODEL), help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    add("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    add("--option", "--options", action="append", default=[], help="name:value of LoadModel; several with spaces")
    add("--quantization", default="", help="int8: what it costs in words; default: none")
    add("--baseline", action="store_true", help="the package on the same files, beside it")
    add("--lanes", type=some_of(("live",)), default=(), help="live: also spoken at its own pace, clean and in noise")
    add("--at-once", type=count, default=4, help="recordings that are spoken at once in the lane live; default: 4")
    add("--quick", action="store_true", help="the lane live without recordings of more than a minute")
    add("--nonspeech", type=int, choices=(0, 1), help="also sounds without speech; default: with the demo set")
    add("--out", type=Path, default=ROOT / "build/eval", help="the folder for results.json and index.html")
    return parse_arguments(parser, argv)


def evaluate(arguments: argparse.Namespace) -> Report:
    """Runs every job on every system. Raises ManifestError, NotLoadable or ServerFailed."""
    entries = manifest.read(arguments.manifest)
    aligner = chosen_aligner(arguments.model, arguments.aligner)
    options = tuple(pair for text in arguments.option for pair in text.split())
    load = load_options(arguments.model, aligner, options, arguments.quantization)
    model = load.ModelFile or load.Model
    is_demo = arguments.manifest.resolve() == DEMO_SET
    envelopes = {entry.id: envelope_of(entry) for entry in entries}
    with tempfile.TemporaryDirectory() as folder:
        with_probes = is_demo if arguments.nonspeech is None else bool(arguments.nonspeech)
        probes = non_speech(Path(folder)) if with_probes else {}
        jobs = [*warm_up(entries, envelopes), *(Job(entry.id, str(entry.audio)) for entry in entries), *probes]
        runs = {BACKEND: backend_client.run(jobs, load)}
        if arguments.baseline:
            runs[PACKAGE] = baseline.run(jobs, load_options(arguments.model, aligner))
    recordings = [recording(entry, envelopes[entry.id], runs) for entry in entries]
    live = None
    if "live" in arguments.lanes:
        spoken = [entry for entry in entries if not arguments.quick or envelopes[entry.id].duration_s <= QUICK_S]
        lean = load_options(arguments.model, "", options, arguments.quantization)
        live = lane.run(spoken, lean, arguments.at_once, LEVELS if with_probes else (), FORCED)
    systems = {}
    for name, run in runs.items():
        probed = [Probe(*probe, job.language, run.hypotheses[job.key]) for job, probe in probes.items()]
        systems[name] = system(name, run, recordings, probed)
    return Report(
        manifest="the demo set" if is_demo else str(arguments.manifest),
        model=short_name(model),
        aligner=short_name(aligner),
        options=(*options, *([f"quantization:{arguments.quantization}"] if arguments.quantization else [])),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        recordings=tuple(recordings),
        systems=systems,
        live=live,
    )


def short_name(model: str) -> str:
    """A folder in the repository relative to it; anything else as it is."""
    return model.removeprefix(f"{ROOT}/")


def envelope_of(entry: Entry) -> Envelope:
    try:
        return envelope(entry.samples())
    except UndecodableAudio:
        return Envelope()  # the systems say why not


def warm_up(entries: Sequence[Entry], envelopes: Mapping[str, Envelope]) -> list[Job]:
    """The shortest recording once before the others, not counted: the backend loads its aligner at first use."""
    spoken = [entry for entry in entries if entry.is_speech]
    shortest = min(spoken, key=lambda entry: envelopes[entry.id].duration_s, default=None)
    return [Job("//warm-up", str(shortest.audio))] if shortest else []


def non_speech(folder: Path) -> dict[Job, tuple[str, float]]:
    """Writes every kind of sound at every level; a job for each, with and without a forced language."""
    jobs: dict[Job, tuple[str, float]] = {}
    for number, kind in enumerate(nonspeech.KINDS):
        for level in LEVELS:
            path = folder / f"{number:02}_{level}.wav"
            samples = nonspeech.sound(kind, seconds=nonspeech.usual_length_s(kind), level=level)
            soundfile.write(path, samples, nonspeech.SAMPLE_RATE, subtype="FLOAT")  # 1 % of full scale keeps its shape
            for language in FORCED:
                jobs[Job(f"//{kind}/{level}/{language}", str(path), language)] = (kind, level)
    return jobs


if __name__ == "__main__":
    sys.exit(main())
