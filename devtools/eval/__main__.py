"""A manifest through the running backend, and what came of it: a table, a JSON file and a page. `make eval`.

Exit code 0 when everything was asked, however well it went; 1, with the cause as the last line of stderr, when it could
not be: a manifest, model or option that is not right.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile

from backend.audio.decoding.decode import decode
from backend.errors import UndecodableAudio
from backend.wire.backend_pb2 import ModelOptions
from devtools.eval import baseline, manifest, nonspeech, ours, page, table
from devtools.eval.answers import Job, Run
from devtools.eval.manifest import Entry, ManifestError
from devtools.eval.report import OURS, PACKAGE, Outline, Probe, Report, as_json, outline, recording, system
from devtools.transcribe.__main__ import DEMO_ALIGNER, DEMO_MODEL, DemoFailed, loadable
from devtools.transcribe.child import BackendFailed

ROOT = Path(__file__).resolve().parents[2]
DEMO_SET = str(ROOT / "test/audio/manifest.jsonl")
LEVELS = (1.0, 0.1, 0.01)
FORCED = ("", "en")  # a forced language tempts the model to hear it
LONGEST_S = 6 * 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    wanted = parse(argv)
    try:
        report = evaluate(wanted)
    except (ManifestError, DemoFailed, BackendFailed) as failure:
        print(f"eval: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eval: stopped", file=sys.stderr)
        return 1
    out = Path(wanted.out)
    out.mkdir(parents=True, exist_ok=True)
    results, shown = out / "results.json", out / "index.html"
    results.write_text(json.dumps(as_json(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    shown.write_text(page.html(report), encoding="utf-8")
    print(table.terminal(report), "", str(results), str(shown), sep="\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval", description="How well the running backend hears.")
    parser.add_argument(
        "--manifest", default=DEMO_SET, help="JSON lines: audio, text, language, words; default: the demo's"
    )
    parser.add_argument("--model", default=DEMO_MODEL, help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    parser.add_argument("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    parser.add_argument("--option", action="append", default=[], help="name:value of LoadModel, or several with spaces")
    parser.add_argument("--quantization", default="", help="int8: what it costs in words; default: none")
    parser.add_argument("--baseline", action="store_true", help="the package's own way on the same files, beside it")
    parser.add_argument(
        "--nonspeech", type=int, choices=(0, 1), help="also sounds in which nobody speaks; default: with the demo set"
    )
    parser.add_argument("--out", default=str(ROOT / "build/eval"), help="the folder for results.json and index.html")
    return parser.parse_args(argv)


def evaluate(wanted: argparse.Namespace) -> Report:
    """Asks everybody everything. Raises ManifestError, DemoFailed (model, aligner) or BackendFailed."""
    entries = manifest.read(Path(wanted.manifest))
    model, aligner = loadable("MODEL", wanted.model), chosen_aligner(wanted)
    options = tuple(pair for given in wanted.option for pair in given.split())
    load = ModelOptions(
        Model=wanted.model,
        ModelFile=model if Path(model).exists() else "",
        Options=[*([f"forced_aligner:{aligner}"] if aligner else []), *options],
        Quantization=wanted.quantization,
    )
    is_demo = Path(wanted.manifest).resolve() == Path(DEMO_SET)
    outlines = {entry.id: outlined(entry) for entry in entries}
    with tempfile.TemporaryDirectory() as folder:
        probes = non_speech(Path(folder)) if (is_demo if wanted.nonspeech is None else wanted.nonspeech) else {}
        jobs = [Job(entry.id, str(entry.audio)) for entry in entries]
        jobs = [*warm_up(entries, outlines), *jobs, *probes]
        runs = {OURS: ours.run(jobs, load)}
        if wanted.baseline:
            runs[PACKAGE] = baseline.run(jobs, model, aligner)
    recordings = [recording(entry, outlines[entry.id], runs) for entry in entries]
    return Report(
        manifest="the demo set" if is_demo else wanted.manifest,
        model=named(model),
        aligner=named(aligner),
        options=(*options, *([f"quantization:{wanted.quantization}"] if wanted.quantization else [])),
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        recordings=tuple(recordings),
        systems={name: system(name, run, recordings, answered(probes, run)) for name, run in runs.items()},
    )


def chosen_aligner(wanted: argparse.Namespace) -> str:
    """As `make demo` chooses: the demo's aligner knows the demo's fifty words and goes with the demo's model only."""
    name = wanted.aligner
    if name is None:
        name = DEMO_ALIGNER if Path(wanted.model).resolve() == Path(DEMO_MODEL) else ""
    return loadable("ALIGNER", name) if name else ""


def named(model: str) -> str:
    """A folder in the repository from there; anything else as it is."""
    path = Path(model)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else model


def outlined(entry: Entry) -> Outline:
    try:
        return outline(decode(str(entry.audio), max_seconds=LONGEST_S).samples)
    except UndecodableAudio:
        return Outline()  # whoever transcribes it says why not


def warm_up(entries: Sequence[Entry], outlines: Mapping[str, Outline]) -> list[Job]:
    """The shortest recording once before the others, not counted: the backend loads its aligner when words are due."""
    spoken = [entry for entry in entries if entry.is_speech]
    shortest = min(spoken, key=lambda entry: outlines[entry.id].duration_s, default=None)
    return [Job("//warm-up", str(shortest.audio))] if shortest else []


def non_speech(folder: Path) -> dict[Job, tuple[str, float]]:
    """Writes every kind of sound at every level, and asks for each with and without a language."""
    asked: dict[Job, tuple[str, float]] = {}
    for number, kind in enumerate(nonspeech.KINDS):
        for level in LEVELS:
            path = folder / f"{number:02}_{level}.wav"
            samples = nonspeech.sound(kind, seconds=nonspeech.usual_length_s(kind), level=level)
            soundfile.write(path, samples, nonspeech.SAMPLE_RATE, subtype="FLOAT")  # 1 % of full scale keeps its shape
            for language in FORCED:
                asked[Job(f"//{kind}/{level}/{language}", str(path), language)] = (kind, level)
    return asked


def answered(probes: Mapping[Job, tuple[str, float]], run: Run) -> list[Probe]:
    return [Probe(kind, level, job.language, run.answers[job.key]) for job, (kind, level) in probes.items()]


if __name__ == "__main__":
    sys.exit(main())
