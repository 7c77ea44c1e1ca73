"""The backend as the gateway starts it: run.sh as a child process, stdin closed, any working directory, real models."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from backend.wire import backend_pb2 as pb
from backend.wire import backend_pb2_grpc as rpc
from devtools.procfs import INSPECTABLE
from devtools.server_process import ServerFailed
from devtools.stress.client import Server
from devtools.stress.plan import Fault, Plan, prompt_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # stdin closed by a shell: gRPC does not like what preexec_fn does to a process
        ["bash", "-c", 'exec "$0" "$@" <&-', str(ROOT / "run.sh"), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **INSPECTABLE, **environment},
        start_new_session=True,  # as the gateway does: it signals the group
    )


@dataclass
class Child:
    process: subprocess.Popen[str]
    channel: grpc.Channel
    pid: int
    stub: rpc.BackendStub

    @property
    def children(self) -> set[int]:
        found: set[int] = set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if (process / "stat").read_text().rpartition(")")[2].split()[1] == str(self.pid):
                    found.add(int(process.name))
        return found

    def imported_torch(self) -> bool:
        return "libtorch" in Path(f"/proc/{self.pid}/maps").read_text()


def listening(process: subprocess.Popen[str]) -> Child:
    """The child once it says where it listens; what it logs after that is drained by a thread."""
    assert process.stderr is not None
    for line in process.stderr:
        said = re.search(r"listening on \S+:(\d+), pid (\d+)", line)
        if said:
            port, pid = map(int, said.groups())
            break
    else:
        raise AssertionError("the backend ended before it listened")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    return Child(process, channel, pid, rpc.BackendStub(channel))


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = listening(run("--addr", "127.0.0.1:0", folder=tmp_path))
    with child.process, child.channel:
        yield child
        child.process.kill()


def load_demo(child: Child, *options: str) -> pb.Result:
    return child.stub.LoadModel(
        pb.ModelOptions(
            Model="demo",
            ModelFile=str(ROOT / "test/models/asr"),
            ModelPath=str(ROOT / "test/models"),
            Options=["forced_aligner:aligner", *options],
            Threads=2,
        ),
        timeout=120,
    )


def test_a_recording_is_transcribed_with_its_words(child: Child) -> None:
    assert not child.imported_torch()
    assert not child.children
    assert child.stub.Health(pb.HealthMessage(), wait_for_ready=True, timeout=30).message == b"OK"
    assert child.pid == child.process.pid  # run.sh has become Python
    assert "'forced_aligner'" in load_demo(child, "forced_aligner:not-there").message
    assert not child.imported_torch()  # a refusal costs no 0.7 GB
    assert load_demo(child) == pb.Result(success=True, message="Model loaded successfully")
    assert child.imported_torch()
    while not child.children:  # what decodes is started beside the load
        pass
    truth = json.loads((ROOT / "test/audio/demo.json").read_text())
    plain = child.stub.AudioTranscription(pb.TranscriptRequest(dst=str(ROOT / "test/audio/demo.wav")), timeout=60)
    assert (plain.text, plain.language) == (truth["text"], truth["language"])
    assert child.stub.Status(pb.HealthMessage()).memory.breakdown["aligner"] == 0
    request = pb.TranscriptRequest(dst=str(ROOT / "test/audio/demo.wav"), timestamp_granularities=["word"])
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: child.stub.AudioTranscription(request, timeout=60), range(8)))
    spoken = [[word for segment in reply.segments for word in segment.words] for reply in replies]
    for reply, told in zip(replies, spoken, strict=True):
        assert reply.text == replies[0].text
        # how many are computed together changes the last bits, and with them a word's time by a millisecond
        assert all(abs(a.start - b.start) < 20_000_000 for a, b in zip(told, spoken[0], strict=True))
    assert child.stub.Status(pb.HealthMessage()).memory.breakdown["aligner"] > 1_000_000
    words = [word for segment in replies[0].segments for word in segment.words]
    assert " ".join(word.text for word in words) == truth["text"]
    for word, (_, start, end) in zip(words, truth["words"], strict=True):
        assert abs(word.start / 1e9 - start) < 0.25
        assert abs(word.end / 1e9 - end) < 0.25


def test_sigterm_lets_the_running_request_end_and_exits_with_zero(child: Child) -> None:
    load_demo(child)
    request = pb.TranscriptRequest(dst=str(ROOT / "test/audio/long.flac"))
    running = child.stub.AudioTranscription.future(request, timeout=60)
    busy = pb.StatusResponse.BUSY
    while child.stub.Status(pb.HealthMessage(), timeout=5).state != busy and not running.done():
        pass
    assert not running.done()
    left = child.children
    assert left  # those that decode
    os.killpg(child.pid, signal.SIGTERM)
    assert running.result().text
    assert child.process.wait(15) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_sigterm_during_a_load_ends_it_at_once_with_a_status(child: Child) -> None:
    loading = child.stub.LoadModel.future(pb.ModelOptions(Model="demo", ModelFile=str(ROOT / "test/models/asr")))
    while child.stub.Status(pb.HealthMessage(), timeout=5).state != pb.StatusResponse.BUSY:
        pass
    child.process.send_signal(signal.SIGTERM)
    child.process.send_signal(signal.SIGTERM)  # the gateway's, to the process and to its group
    assert loading.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "stopping" in loading.details()
    assert child.process.wait(15) == 0


def test_sigterm_works_before_the_port_is_open(tmp_path: Path) -> None:
    process = run("--addr", "127.0.0.1:0", folder=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert process.stderr is not None
    assert any("| argparse" in line for line in process.stderr)  # the rest of the imports is still to come
    process.send_signal(signal.SIGTERM)
    with process:
        assert "listening" not in process.stderr.read()
    assert process.returncode == 0


def test_a_port_in_use_ends_the_process_with_the_cause_as_the_last_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = run(f"--addr=127.0.0.1:{taken.getsockname()[1]}", folder=tmp_path)
        _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "taken" in said.strip().splitlines()[-1]


@pytest.mark.parametrize(("metrics", "said"), [("taken", "for QWEN_ASR_METRICS"), ("0.0.0.0:9109", "loopback")])
def test_a_bad_metrics_address_ends_the_process_with_the_cause(tmp_path: Path, metrics: str, said: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        metrics = metrics.replace("taken", f"127.0.0.1:{taken.getsockname()[1]}")
        process = run("--addr=127.0.0.1:0", folder=tmp_path, QWEN_ASR_METRICS=metrics)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in log.strip().splitlines()[-1]
    assert "listening on" not in log


@pytest.mark.parametrize("setting", ["soon", "nan", "1"])
def test_a_bad_stall_limit_ends_the_process_with_the_cause(tmp_path: Path, setting: str) -> None:
    process = run("--addr=127.0.0.1:0", folder=tmp_path, QWEN_ASR_STALL_SECONDS=setting)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "QWEN_ASR_STALL_SECONDS must be a number of seconds" in log.strip().splitlines()[-1]


def test_the_log_is_sentences_and_json_and_the_metrics_end_with_the_process(tmp_path: Path) -> None:
    process = run("--addr", "127.0.0.1:0", folder=tmp_path, QWEN_ASR_METRICS="0")
    assert process.stderr is not None
    assert "watching process" in process.stderr.readline()
    metrics = int(re.findall(r"metrics on the loopback, port (\d+)", process.stderr.readline())[0])
    port = int(re.findall(r"listening on \S+:(\d+), pid", process.stderr.readline())[0])
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = rpc.BackendStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.AudioTranscription(pb.TranscriptRequest(dst='/secret"\n{"forged": 1}.wav'), timeout=30)
        assert stub.Free(pb.HealthMessage(), timeout=30).success
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as reply:
            assert b'qwen_asr_requests_total{code="OK",method="Free"} 1.0' in reply.read()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    requests = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["method"] for line in requests] == ["AudioTranscription", "Free"]
    assert "secret" not in log
    assert log.splitlines()[-1].endswith("stopped")
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", metrics)) != 0


def test_the_gateways_number_of_workers_bounds_no_calls() -> None:
    with Server(environment={"PYTHON_GRPC_MAX_WORKERS": "1"}) as server:
        server.load_plan(Plan(step_s=0.01))
        dst = str(ROOT / "test/audio/demo.wav")
        endless = [
            server.stub.AudioTranscription.future(pb.TranscriptRequest(dst=dst, prompt=prompt_for(1_000_000, number)))
            for number in range(3)
        ]
        while server.stub.Status(pb.HealthMessage(), timeout=30).state != pb.StatusResponse.BUSY:
            time.sleep(0.01)
        brief = server.stub.AudioTranscription(pb.TranscriptRequest(dst=dst, prompt=prompt_for(2)), timeout=30)
        assert brief.text
        assert server.stub.Health(pb.HealthMessage(), timeout=30).message == b"OK"
        assert not any(call.done() for call in endless)


def test_a_transcription_leaves_no_file_behind(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("beside", "temporary", "home")]
    beside, temporary, home = folders
    for folder in folders:
        folder.mkdir()
    names = {"demo.wav", "long.flac", "words.wav"}
    for name in names:
        audio = ROOT / "test/audio" / name
        (beside / name).write_bytes(audio.read_bytes() if audio.exists() else b"These are words, not sound.")
    with Server(environment={"TMPDIR": str(temporary), "HOME": str(home)}) as server:
        server.load_plan(Plan())
        for name in names - {"words.wav"}:
            request = pb.TranscriptRequest(dst=str(beside / name), timestamp_granularities=["word"])
            assert server.stub.AudioTranscription(request, timeout=60).text
        with pytest.raises(grpc.RpcError):
            server.stub.AudioTranscription(pb.TranscriptRequest(dst=str(beside / "words.wav")), timeout=60)
    assert {path.name for path in beside.iterdir()} == names
    assert not [*temporary.iterdir(), *home.iterdir()]


# A file on a mount whose server has gone: whoever opens it sleeps in the kernel.
HUNG = """
import os, threading
from backend import server
from backend.audio.decoding import pool
from devtools.stress import faulty_server
def open_regular_file(path):
    print("opening", file=open(os.environ["SAYS"], "w"), flush=True)
    threading.Event().wait()
pool.open_regular_file, server._FORCED_EXIT_S = open_regular_file, 2.0
os._exit(faulty_server.main())
"""


def test_a_failed_engine_ends_the_process_even_if_a_thread_hangs(tmp_path: Path) -> None:
    says = tmp_path / "says"
    os.mkfifo(says)
    with Server((sys.executable, "-c", HUNG), environment={"SAYS": str(says)}) as server:
        server.load_plan(Plan())
        hanging = server.stub.AudioTranscription.future(pb.TranscriptRequest(dst=str(ROOT / "test/audio/demo.wav")))
        assert says.read_text() == "opening\n"
        with pytest.raises(ServerFailed):
            server.load_plan(Plan(faults=(Fault("load recognizer", "lost device", at=1),)))
        assert server.wait(30) == 1
        assert "the engine cannot go on: the device was lost" in server.last_line()
        assert hanging.exception(30)  # whatever it was told


def test_full_devices_change_no_exit_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run([str(ROOT / "run.sh"), "--addr=nowhere"], cwd=tmp_path, stdout=full, stderr=full)
    assert process.returncode == 1


def test_the_process_exits_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The parent is a shell that waits; the backend's stderr is ours, so its end is seen as the end of the file."""
    start = f"import subprocess; subprocess.run([{str(ROOT / 'run.sh')!r}, '--addr', '127.0.0.1:0'])"
    with subprocess.Popen(
        [sys.executable, "-c", start],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "100ms"},
    ) as parent:
        assert parent.stderr is not None
        assert any("listening on" in line for line in parent.stderr)
        parent.kill()
        assert "the parent process has gone" in parent.stderr.read()


@pytest.mark.parametrize("streams", ["2>/dev/full", ">&- 2>&-"])
def test_a_log_that_cannot_be_written_does_not_stop_the_process(tmp_path: Path, streams: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = ["bash", "-c", f'exec "$0" "$@" <&- {streams}', str(ROOT / "run.sh"), f"--addr=127.0.0.1:{port}"]
    process = subprocess.Popen(start, cwd=tmp_path)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = rpc.BackendStub(channel)
            assert stub.Health(pb.HealthMessage(), wait_for_ready=True, timeout=30).message == b"OK"
            refused = stub.LoadModel(pb.ModelOptions(Model="m", Options=["no:option"]), timeout=60)  # and logged
            assert "no" in refused.message
            if sys.platform == "linux":  # no socket has become stdin, stdout or stderr
                assert all(Path(f"/proc/{process.pid}/fd/{fd}").resolve().parent == Path("/dev") for fd in (0, 2))
    finally:
        process.terminate()
    assert process.wait(20) == 0
