"""Transcribes a list of recordings with one system or several; prints a table, writes a JSON file and a page.

`make eval`. The list is a manifest (JSON lines), Common Voice's TSV or AISHELL-1's transcript file.

Exit code 0 when every recording was given to the backend, whatever came of it; 1, with the cause as the last line of
stderr, when that was impossible: a manifest, model or option that is not right.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import soundfile

from backend.errors import UndecodableAudio
from devtools.arguments import count, parse_arguments, some_of
from devtools.eval import nonspeech, page, table
from devtools.eval.compare import runs as system_runs
from devtools.eval.compare.specs import BACKEND, PACKAGE, Spec, SpecError, check, further
from devtools.eval.compare.verdict import Thresholds
from devtools.eval.corpora.recordings_of import recordings_of
from devtools.eval.fresh_folder import FolderTaken, fresh_folder
from devtools.eval.hypotheses import Job, Run
from devtools.eval.live import lane
from devtools.eval.manifest import DEMO_SET, Entry, ManifestError
from devtools.eval.report import Envelope, Probe, Recording, Report, System, as_json, envelope, recording, system
from devtools.server_process import DEMO_MODEL, ROOT, ServerFailed
from devtools.tables import write_json
from devtools.transcribe.checkpoints import NotLoadable, chosen_aligner, load_options

RESULTS, PAGE = "results.json", "index.html"
QUICK_S = 60.0
LEVELS = (1.0, 0.1, 0.01)
FORCED = ("", "en")  # a forced language makes hallucinations in it more likely


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    is_named, report = arguments.out is not None, None
    try:
        arguments.out = fresh_folder(arguments.out, ROOT / "build/eval", RESULTS, PAGE)
        report = evaluate(arguments)
    except (FolderTaken, ManifestError, NotLoadable, ServerFailed, SpecError, KeyboardInterrupt) as failure:
        print(f"eval: {str(failure) or 'stopped'}", file=sys.stderr)
        return 1
    finally:
        if report is None and not is_named and arguments.out:
            arguments.out.rmdir()  # empty, and made for nothing
    results, shown = arguments.out / RESULTS, arguments.out / PAGE
    write_json(results, as_json(report))
    shown.write_text(page.html(report), encoding="utf-8")
    print(table.terminal(report), "", results, shown, sep="\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eval", description="Accuracy of the running backend.")
    add = parser.add_argument
    lists = "JSON lines (audio, text, language, words), Common Voice's TSV, AISHELL-1's transcript; default: the demo's"
    add("--manifest", type=Path, default=DEMO_SET, help=lists)
    add("--split", default="test", help="of AISHELL-1: train, dev or test; default: test")
    add("--language", default="", help="of a Common Voice list whose locale is not to be trusted")
    add("--limit", type=count, help="at most so many recordings, evenly spread over the list")
    add("--model", default=str(DEMO_MODEL), help="a folder, or a hub id such as Qwen/Qwen3-ASR-1.7B")
    add("--aligner", help="the same; empty: none. Default: the demo's, with the demo's model only")
    add("--option", "--options", action="append", default=[], help="name:value of LoadModel; several with spaces")
    add("--quantization", default="", help="int8: what it costs in words; default: none")
    add(
        "--systems", default="", help='beside it: "int8: quantization=int8; old: rev=HEAD~5; small: model=...; package"'
    )
    add("--baseline", action="store_true", help="the package on the same files, beside it; as SYSTEMS=package")
    add("--lanes", type=some_of(("live",)), default=(), help="live: also spoken at its own pace, clean and in noise")
    add("--at-once", type=count, default=4, help="recordings that are spoken at once in the lane live; default: 4")
    add("--quick", action="store_true", help="the lane live without recordings of more than a minute")
    add("--nonspeech", type=int, choices=(0, 1), help="also sounds without speech; default: with the demo set")
    add("--out", type=Path, help="the folder for results.json and index.html; default: a new one in build/eval")
    _add_thresholds(add)
    return parse_arguments(parser, argv)


def _add_thresholds(add: Callable[..., object]) -> None:
    usual = Thresholds()
    add(
        "--min-success", type=float, default=usual.min_success, help="verdict: recordings transcribed, %%; default: 100"
    )
    add("--max-wer", type=float, help="verdict: word error rate, %%")
    add("--max-boundary-ms", type=float, help="verdict: mean error of words' starts and ends, ms")
    add("--max-p95", type=float, help="verdict: seconds that 95 %% of the recordings take at most")
    add("--margin-points", type=float, default=usual.margin_points, help="difference of WER, language and success that"
        " does not matter, in points; default: 0.5")  # fmt: skip
    add("--margin-ms", type=float, default=usual.margin_ms, help="the same of boundary errors; default: 10")
    add("--margin-speed", type=float, default=usual.margin_speed, help="the same of speed, %%; default: 10")


def thresholds_of(arguments: argparse.Namespace) -> Thresholds:
    return Thresholds(
        arguments.min_success, arguments.max_wer, arguments.max_p95, arguments.max_boundary_ms,
        arguments.margin_points, arguments.margin_ms, arguments.margin_speed,
    )  # fmt: skip


def specs_of(arguments: argparse.Namespace) -> list[Spec]:
    """All systems, the one that the others are compared with first. Raises SpecError."""
    options = tuple(pair for text in arguments.option for pair in text.split())
    first = Spec(BACKEND, arguments.model, arguments.aligner, options, arguments.quantization)
    specs = [first, *further(arguments.systems, first)]
    if arguments.baseline and not any(spec.is_package for spec in specs):
        specs += further(PACKAGE, first)
    check(specs)
    return specs


def evaluate(arguments: argparse.Namespace) -> Report:
    """Runs every job on every system. Raises ManifestError, NotLoadable, ServerFailed or SpecError."""
    specs = specs_of(arguments)
    entries = recordings_of(
        arguments.manifest, split=arguments.split, language=arguments.language, limit=arguments.limit
    )
    first, runners = specs[0], system_runs.runners(specs)
    aligner = chosen_aligner(first.model, first.aligner)
    load = first.load()
    is_demo = arguments.manifest.resolve() == DEMO_SET
    envelopes = {entry.id: envelope_of(entry) for entry in entries}
    with tempfile.TemporaryDirectory() as folder:
        with_probes = is_demo if arguments.nonspeech is None else bool(arguments.nonspeech)
        probes = non_speech(Path(folder)) if with_probes else {}
        jobs = [*warm_up(entries, envelopes), *(Job(entry.id, str(entry.audio)) for entry in entries), *probes]
        runs = {name: system_runs.run(name, runner, jobs) for name, runner in runners.items()}
    recordings = [recording(entry, envelopes[entry.id], runs) for entry in entries]
    live = None
    if "live" in arguments.lanes:
        spoken = [entry for entry in entries if not arguments.quick or envelopes[entry.id].duration_s <= QUICK_S]
        lean = load_options(first.model, "", first.options, first.quantization)
        live = lane.run(spoken, lean, arguments.at_once, LEVELS if with_probes else (), FORCED)
    return Report(
        manifest="the demo set" if is_demo else short_name(arguments.manifest),
        model=short_name(load.ModelFile or load.Model),
        aligner=short_name(aligner),
        options=(*first.options, *([f"quantization:{first.quantization}"] if first.quantization else [])),
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        recordings=tuple(recordings),
        systems={spec.name: system_of(spec, first, runs[spec.name], recordings, probes) for spec in specs},
        live=live,
        thresholds=thresholds_of(arguments),
        folder=arguments.out,
    )


def system_of(
    spec: Spec, first: Spec, run: Run, recordings: Sequence[Recording], probes: Mapping[Job, tuple[str, float]]
) -> System:
    """What one system made of everything."""
    probed = [Probe(*probe, job.language, run.hypotheses[job.key]) for job, probe in probes.items()]
    described = "" if spec is first else short_names(spec.beside(first))
    return system(spec.name, run, recordings, probed, first.name, described)


def short_name(name: Path | str) -> str:
    """A path relative to the repository or to the folder one is in; elsewhere its last two parts. A hub id as it is."""
    path = Path(name)
    if not path.is_absolute():
        return str(name)
    for folder in (ROOT, Path.cwd()):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return "/".join(path.parts[-2:])


def short_names(text: str) -> str:
    """The words of a text, paths among them by their short names."""
    return " ".join(short_name(word) if word.startswith("/") else word for word in text.split(" "))


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
