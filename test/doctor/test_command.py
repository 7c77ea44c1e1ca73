"""The whole doctor: with every probe faked, and once for real, as an operator runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backend.doctor import command, cpu_check, demo_check, gateway_check, gpu_check, install_check
from backend.doctor.child_process import Report
from backend.doctor.cpu_check import CpuFacts
from backend.doctor.demo_check import DemoFacts
from backend.doctor.gateway_check import Folder, GatewayFacts
from backend.doctor.gpu_check import Card, GpuFacts
from backend.doctor.install_check import InstallFacts
from devtools.vllm_server import VllmServer, tagged

ROOT = Path(__file__).parents[2]
SECTIONS = ["install", "processor", "GPU", "sound", "demo", "gateway"]
ENGINE = {
    "torch": "2.13.0+cpu", "build": "cpu", "threads": 8, "instruction_sets": ["AVX512", "bf16", "VNNI"],
    "dtype": "bfloat16", "kernels": [], "kernels_file": True, "read_gb_per_s": 30.0, "rows": 8,
}  # fmt: skip
ON_CPU = {"refusal": "", "devices": [], "arch_list": [], "device": "cpu", "dtype": "bfloat16", "reason": "no GPU found"}
SOUND = {"decoded": dict.fromkeys(("WAV", "MP3", "M4A", "OGG"), ""), "speech": {"demo": 0.8, "noise": 0.0}}


class Machine:
    """What the probes find, all of it good."""

    def __init__(self) -> None:
        text = demo_check.truth().text
        self.install = InstallFacts((3, 12, 1), "/venv", kind="cpu")
        self.cpu = CpuFacts("a processor", 8, 8.0, 32e9, 24e9)
        self.gpu = GpuFacts()
        self.demo = DemoFacts(
            "", 0.4, 5.0, 0.1, text, demo_check.truth().words, 0.3, (text,) * demo_check.AT_ONCE, text
        )
        self.gateway = GatewayFacts(Folder("/cache", free=80e9), Folder("/tmp"), address="127.0.0.1:50051")
        self.reports = {
            "backend.engine.device_report": Report({"processor": ENGINE, "gpu": ON_CPU}),
            "backend.doctor.sound_check": Report(SOUND),
        }


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(command, "report_of", lambda module, _timeout_s: machine.reports[module])
    for name in ("install", "cpu", "gpu", "demo", "gateway"):
        module = {"install": install_check, "cpu": cpu_check, "gpu": gpu_check, "demo": demo_check}.get(name)
        monkeypatch.setattr(module or gateway_check, "probe", lambda *_, name=name: getattr(machine, name))
    return machine


def test_a_good_machine_is_fine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in SECTIONS] == SECTIONS
    assert "  OK    Python                 3.12.1" in lines
    assert "  backend: qwen-asr" in lines
    assert lines[-1].startswith("verdict: real time on this CPU (estimated")
    assert lines[-1].endswith("(exit code 0)")


def test_a_reservation_is_exit_code_1_and_its_remedy_stands_below_it(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.gpu = GpuFacts((Card("NVIDIA", "RTX 3060", "8.6", 580),))
    assert command.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  WARN  cards"))
    assert lines[at + 1].strip().startswith("remedy: BUILD_TYPE=cublas make install")


def test_a_failure_is_exit_code_2_and_the_other_checks_go_on(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.install = replace(machine.install, stubs_failure="No module named 'grpc'")
    machine.demo = DemoFacts("No module named 'grpc'")
    machine.reports["backend.engine.device_report"] = Report(failure="No module named 'torch'")
    assert command.main(["--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert [*told["sections"]] == SECTIONS
    failed = {f["name"] for findings in told["sections"].values() for f in findings if f["level"] == "FAIL"}
    assert failed == {"protobuf stubs", "engine", "server"}
    assert told["verdict"]["device"] == "none"


def test_the_json_object_has_what_its_page_says(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [*told] == ["schema", "exit_code", "verdict", "options", "yaml", "sections"]
    assert told["schema"] == 1
    assert [*told["verdict"]] == ["device", "real_time", "measured", "words"]
    assert [*told["options"]] == ["device", "torch_dtype", "quantization", "batch_max_size"]
    page = (ROOT / "docs/doctor.md").read_text()
    for key in (*told, *told["verdict"], *told["options"], *told["sections"]["install"][0]):
        assert f"`{key}`" in page


def test_a_model_that_is_refused_is_named_and_nothing_is_loaded(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--model", "no such thing"]) == 2
    text = capsys.readouterr().out
    assert "  FAIL  MODEL" in text
    assert "does not work here as it is (MODEL)" in text


@pytest.mark.parametrize("options", ["", "device:cpu"])
def test_a_model_is_judged_for_the_device_that_its_options_choose(
    machine: Machine, asr_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch, options: str
) -> None:
    gpu = {**ON_CPU, "device": "cuda:0", "dtype": "float16", "free_bytes": 1e3, "rows": 8}
    facts = {"processor": ENGINE, "gpu": gpu, "compute": {"errors": {"float16": 0.0}, "read_gb_per_s": 300.0}}
    machine.reports["backend.engine.device_report"] = Report(facts)
    monkeypatch.setattr(command, "examine_model", lambda model, aligner, judged, *_: (judged(), None))
    command.main(["--model", str(asr_folder), "--options", options])
    text = capsys.readouterr().out
    assert ("real time on this CPU" in text, "does not work here" in text) == (bool(options), not options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--options", "engine_url:http://gpu1:8000"], "MODEL is missing"),
        (["--aligner", "aligner"], "MODEL is missing"),
        (["--model", "m", "--options", "engine_uri:http://gpu1"], "did you mean engine_url"),
        (["--model", "m", "--options", "device:cpu engine_url:gpu1"], "engine_url"),
    ],
)
def test_options_are_read_before_anything_is_looked_at(arguments: list[str], words: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def on_servers(asr_folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """Exit code and lines about the demo's model on two servers, of which the first is down."""
    down, up = VllmServer(), VllmServer(answer=lambda asked: tagged("The quick brown fox.", asked))
    with down.running():
        pass
    with up.running():
        urls = f"engine_url:{down.url},{up.url}"
        code = command.main(["--model", str(asr_folder), "--options", " ".join([urls, *options])])
    return code, capsys.readouterr().out.replace(down.url, "DOWN").replace(up.url, "UP").splitlines()


@pytest.mark.slow
def test_a_model_on_servers_is_measured_on_those_that_a_load_would_use(
    machine: Machine, asr_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.reports["backend.engine.device_report"] = Report({"gpu": ON_CPU}, failure="No module named 'torch'")
    _, lines = on_servers(asr_folder, capsys)
    assert (
        "  WARN  server 1               DOWN cannot be reached: a load leaves it out, and asks it again later" in lines
    )
    assert "  OK    server 2               UP answers as it must, and would be used" in lines
    assert any(line.startswith("  OK    60 s of speech") for line in lines)
    assert "    - engine_url:DOWN,UP" in [line.replace('"', "") for line in lines]
    assert lines[-1].startswith("verdict: real time on these servers (measured: ")


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
def test_servers_that_a_load_would_refuse_are_not_tried(asr_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = on_servers(asr_folder, capsys, "engine_model:another")
    assert code == 2
    assert "  FAIL  server 2               UP serves no model of that name" in lines
    assert not any("of speech" in line or line.startswith("  OK    load") for line in lines)
    assert lines[-1] == "verdict: it does not work here as it is (server 2) (exit code 2)"


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "run.sh"), "--doctor", *arguments],
        cwd=ROOT / "test/models",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_doctor_examines_this_machine_within_a_minute() -> None:
    began = time.monotonic()
    ended = run_doctor("--json", LOCALAI_GRPC_AUTH_TOKEN="never to be seen")
    assert time.monotonic() - began < 60
    told = json.loads(ended.stdout)
    assert ended.returncode == told["exit_code"]
    assert ended.returncode in (0, 1)  # another machine's processor or missing compiler may be a reservation
    assert [*told["sections"]] == SECTIONS
    levels = {finding["name"]: finding["level"] for finding in told["sections"]["demo"]}
    assert levels.pop("Health") in ("OK", "WARN")  # a second's wait is a reservation, and this machine may be shared
    assert levels == dict.fromkeys(["server", "text", "word times", "8 at once", "int8"], "OK")
    assert "never to be seen" not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_doctor_measures_a_model_whose_path_starts_where_it_was_called() -> None:
    ended = run_doctor("--model", "asr", "--aligner", "aligner")
    assert ended.returncode in (0, 1)
    assert "  OK    MODEL" in ended.stdout
    assert "60 s of speech" in ended.stdout
    assert "verdict: real time on this CPU (measured: " in ended.stdout


@pytest.mark.parametrize(("argument", "code"), [("--doctor", 2), ("--addr=127.0.0.1:0", 1)])
def test_without_an_install_run_sh_itself_says_so(argument: str, code: int, tmp_path: Path) -> None:
    shutil.copy(ROOT / "run.sh", tmp_path)
    ended = subprocess.run(
        ["bash", str(tmp_path / "run.sh"), argument], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == code
    assert ended.stderr.strip().endswith(f"the backend is not installed: run {tmp_path}/install.sh")
