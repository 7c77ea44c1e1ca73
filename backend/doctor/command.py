"""`run.sh --doctor`: looks at the install and the machine, tries the demo, and says what to do.

Each check is `probe`, which looks and decides nothing, and `judge`, which is a pure function of what was found. What
can hang or crash runs in child processes; this process imports neither torch nor the models' libraries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from backend.doctor import (
    advice,
    cpu_check,
    demo_check,
    gateway_check,
    gpu_check,
    install_check,
    model_check,
    sound_check,
)
from backend.doctor.advice import Options, Verdict
from backend.doctor.child_process import report_of
from backend.doctor.findings import REINSTALL, Finding, exit_code, fail

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
    verdict, options, yaml = examine(examination, arguments.model, arguments.aligner, arguments.addr)
    code = exit_code(examination.findings)
    if arguments.json:
        _say(as_json(examination.sections, verdict, options, yaml) + "\n")
    else:
        _say(f"\noptions for the model's YAML\n{_indented(yaml)}\n\nverdict: {verdict.words} (exit code {code})\n")
    return code


def examine(examination: Examination, model: str, aligner: str, address: str) -> tuple[Verdict, Options, str]:
    """All checks, in order; `model` and `aligner`: "" for none. Returns verdict, options and their YAML."""
    examination.add("install", install_check.judge(install_check.probe()))
    report = report_of("backend.engine.device_report", _ENGINE_TIMEOUT_S)
    on_gpu = advice.computes_on_gpu(report)
    examination.add("processor", cpu_check.judge(cpu_check.probe(), report, on_gpu))
    examination.add("GPU", gpu_check.judge(gpu_check.probe(), report))
    examination.add("sound", sound_check.judge(report_of("backend.doctor.sound_check", _SOUND_TIMEOUT_S)))
    examination.add("demo", _demo(on_gpu))
    folder = gateway_check.models_folder()
    found_model = found_aligner = fit = trial = None
    options = advice.options_for(report, None)
    if model:
        found_model = model_check.look_up(model, "recognizer", folder)
        found_aligner = model_check.look_up(aligner, "aligner", folder) if aligner else None
        fit = model_check.fit_of(found_model, found_aligner, model_check.place_of(report))
        options = advice.options_for(report, fit)
        findings, trial = model_check.examine(found_model, found_aligner, fit, options.quantization, options.pairs)
        options = advice.after_trial(options, trial)
        examination.add("model", findings)
    examination.add("gateway", gateway_check.judge(gateway_check.probe(address)))
    verdict = advice.verdict(examination.findings, report, options, trial)
    return verdict, options, advice.yaml_of(options, found_model, found_aligner, folder)


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
    parser = argparse.ArgumentParser(prog="run.sh --doctor", description="Looks at the install and at this machine.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--model", default="", help="a checkpoint to look at and to try: a folder or a hub id")
    parser.add_argument("--aligner", default="", help="a forced aligner beside it")
    parser.add_argument("--addr", default="127.0.0.1:50051", help="HOST:PORT that should be free")
    return parser.parse_args(argv)


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
