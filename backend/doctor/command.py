"""`run.sh --doctor`: looks at the install and the machine, tries the demo, and says what to do.

Each check is `probe`, which looks and decides nothing, and `judge`, which is a pure function of what was found. What
can hang or crash runs in child processes; this process imports neither torch nor the models' libraries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from backend.doctor import (
    advice,
    cpu_check,
    demo_check,
    gateway_check,
    gpu_check,
    install_check,
    sound_check,
)
from backend.doctor.advice import Options, Verdict
from backend.doctor.child_process import Report, report_of
from backend.doctor.findings import REINSTALL, Finding, exit_code, fail
from backend.doctor.model import servers_check
from backend.doctor.model.model_check import (
    CheckpointFacts,
    fit_of,
    judge_fit,
    look_up_aligner,
    look_up_model,
    place_of,
)
from backend.doctor.model.model_check import examine as examine_model
from backend.doctor.model.trial import Trial
from backend.errors import InvalidOption
from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options

SCHEMA = 1  # of the JSON object; docs/doctor.md describes it
_ENGINE_TIMEOUT_S, _SOUND_TIMEOUT_S = 60.0, 30.0
_NAME_WIDTH = 22


@dataclass
class Examination:
    """What has been found, section by section; `say` gets each section's text when it is done."""

    say: Callable[[str], None]
    sections: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, title: str, findings: Sequence[Finding]) -> None:
        self.sections[title] = [*findings]
        self.say("\n".join([f"\n{title}", *(_line(finding) for finding in findings)]) + "\n")

    @property
    def findings(self) -> list[Finding]:
        return [finding for findings in self.sections.values() for finding in findings]


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 fine, 1 works with reservations, 2 does not work."""
    arguments = _parse(argv)
    examination = Examination(say=_ignore if arguments.json else _say)
    verdict, options, yaml = examine(examination, arguments.wanted, arguments.addr)
    code = exit_code(examination.findings)
    if arguments.json:
        _say(as_json(examination.sections, verdict, options, yaml) + "\n")
    else:
        _say(f"\noptions for the model's YAML\n{_indented(yaml)}\n\nverdict: {verdict.words} (exit code {code})\n")
    return code


@dataclass(frozen=True)
class Wanted:
    """The operator's own model. `pairs`: the options as they were given."""

    load: LoadOptions
    pairs: Sequence[str]


def examine(examination: Examination, wanted: Wanted | None, address: str) -> tuple[Verdict, Options, str]:
    """All checks, in order. Returns verdict, options and their YAML."""
    examination.add("install", install_check.judge(install_check.probe()))
    report = report_of("backend.engine.device_report", _ENGINE_TIMEOUT_S)
    on_gpu = advice.computes_on_gpu(report)
    examination.add("processor", cpu_check.judge(cpu_check.probe(), report, on_gpu))
    examination.add("GPU", gpu_check.judge(gpu_check.probe(), report))
    examination.add("sound", sound_check.judge(report_of("backend.doctor.sound_check", _SOUND_TIMEOUT_S)))
    examination.add("demo", _demo(on_gpu))
    model = aligner = trial = None
    options = advice.options_for(report, None)
    if wanted is not None:
        if wanted.load.device == "cpu":
            report = advice.of_the_cpu(report)
        model = look_up_model(wanted.load)
        aligner = look_up_aligner(wanted.load, model)
        options, findings, trial = _try(wanted, model, aligner, report)
        examination.add("model", findings)
    examination.add("gateway", gateway_check.judge(gateway_check.probe(address)))
    on_servers = wanted is not None and bool(wanted.load.engine_urls)
    verdict = advice.verdict(examination.findings, report, options, trial, on_servers)
    given = wanted.pairs if wanted else ()
    return verdict, options, advice.yaml_of(options, model, aligner, gateway_check.models_folder(), given)


def _try(
    wanted: Wanted, model: CheckpointFacts, aligner: CheckpointFacts | None, report: Report
) -> tuple[Options, list[Finding], Trial | None]:
    """Looks at the model, loads and measures it where a load would not be refused; on servers, these come first."""

    def servers() -> list[Finding]:
        return servers_check.judge(servers_check.probe(model, wanted.pairs, wanted.load.engine_timeout_s))

    if wanted.load.engine_urls:  # nothing is computed here but the aligner
        return Options(), *examine_model(model, aligner, servers, "", wanted.pairs)
    place = place_of(report)
    fit = fit_of(model, aligner, replace(place, rows=wanted.load.batch_max_size or place.rows))
    options = advice.options_for(report, fit)
    pairs = [*options.pairs, *wanted.pairs]
    findings, trial = examine_model(model, aligner, lambda: [judge_fit(fit)], options.quantization, pairs)
    return advice.after_trial(options, trial), findings, trial


def _demo(on_gpu: bool) -> list[Finding]:
    missing = demo_check.missing_files()
    if missing:
        return [fail("files", f"missing: {', '.join(missing)}", REINSTALL)]
    return demo_check.judge(demo_check.probe(), demo_check.truth(), on_gpu)


def as_json(sections: dict[str, list[Finding]], verdict: Verdict, options: Options, yaml: str) -> str:
    """The same as one JSON object."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "exit_code": exit_code([finding for findings in sections.values() for finding in findings]),
            "verdict": asdict(verdict),
            "options": asdict(options),
            "yaml": yaml,
            "sections": {title: [asdict(finding) for finding in findings] for title, findings in sections.items()},
        },
        ensure_ascii=False,
        indent=2,
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """`wanted`: what MODEL, ALIGNER and OPTIONS say; None without a model."""
    parser = argparse.ArgumentParser(prog="run.sh --doctor", description="Looks at the install and at this machine.")
    add = parser.add_argument
    add("--json", action="store_true", help="one JSON object instead of lines")
    add("--model", default="", help="a checkpoint to look at and to try: a folder or a hub id")
    add("--aligner", default="", help="a forced aligner beside it")
    add("--option", "--options", action="append", default=[], help="name:value of LoadModel; several with spaces")
    add("--addr", default="127.0.0.1:50051", help="HOST:PORT that should be free")
    arguments = parser.parse_args(argv)
    pairs = [pair for text in arguments.option for pair in text.split()]
    if not arguments.model and (arguments.aligner or pairs):
        parser.error("MODEL is missing (--model), which ALIGNER and OPTIONS belong to; docs/doctor.md has examples")
    aligner = [f"forced_aligner:{arguments.aligner}"] if arguments.aligner else []
    load = LoadOptions(arguments.model, model_path=gateway_check.models_folder())
    try:
        arguments.wanted = Wanted(with_options(load, [*pairs, *aligner], ""), pairs) if arguments.model else None
    except InvalidOption as refusal:
        parser.error(f"OPTIONS: {refusal}")
    return arguments


def _line(finding: Finding) -> str:
    line = f"  {finding.level:<5} {finding.name:<{_NAME_WIDTH}} {finding.value}"
    return f"{line}\n{'':8}remedy: {finding.remedy}" if finding.remedy else line


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _ignore(_text: str) -> None:
    """With --json nothing is said before the end."""
