"""What code that has taken a decoder process over can reach: nothing. The process, and its attempts, are real."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest
from decoder_processes import ROOT, assert_serves, children, only_child, proc_file

from backend.audio.decoding import sandbox

has_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"), reason="no seccomp filter here"
)
ESCAPING = ROOT / "test/audio/decoding/escaping.py"


def attempts() -> list[str]:
    """The names, read from the source: the module is a program."""
    tree = ast.parse(ESCAPING.read_text())
    (table,) = (node.value for node in tree.body if isinstance(node, ast.AnnAssign) and "ATTEMPTS" in ast.dump(node))
    assert isinstance(table, ast.Dict)
    return [ast.literal_eval(key) for key in table.keys if key is not None]


@has_seccomp
async def test_a_decoder_that_was_taken_over_reaches_nothing(make, golden, tmp_path) -> None:
    upload, written = tmp_path / "upload.wav", tmp_path / "written"
    upload.write_bytes(bytes(written))
    decoded = await make((sys.executable, str(ESCAPING)), 1).decode(str(upload), max_seconds=60)
    assert decoded.samples.size == len(attempts()) > 40
    assert {name: float(value) for name, value in zip(attempts(), decoded.samples, strict=True) if value} == {}
    assert not written.exists()


@has_seccomp
async def test_a_decoder_cannot_gain_privileges_and_is_filtered(make, golden) -> None:
    before, decoder_pool = children(), make()
    pid = await only_child(decoder_pool, golden, before)
    status = proc_file(pid, "status")
    assert "NoNewPrivs:\t1\n" in status
    assert "Seccomp:\t2\n" in status


async def test_without_a_filter_files_are_decoded_and_the_log_says_so_once(make, golden, caplog) -> None:
    program = "from backend.audio.decoding import main, sandbox; sandbox.enter = lambda: False\nmain.main()"
    decoder_pool = make((sys.executable, "-c", program), 2)
    for _ in range(2):
        await assert_serves(decoder_pool, golden)
    decoder_pool.warm_up()
    assert caplog.text.count("decoders run without a sandbox") == 1


def test_a_processor_without_a_filter_changes_nothing(monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "_ARCHITECTURES", {})
    assert not sandbox.enter()


@has_seccomp
@pytest.mark.parametrize(("column", "architecture"), sandbox._ARCHITECTURES.values())
def test_the_filter_of_each_architecture_allows_no_number_twice(column: int, architecture: int) -> None:
    named = {**sandbox._ALLOWED, **sandbox._ALLOWED_BUT_ON_THE_LOG}
    numbers = [numbers[column] for numbers in named.values() if numbers[column] is not None]
    numbers += [each[column] for each in (sandbox._MMAP, sandbox._NEWFSTATAT, sandbox._PRLIMIT64, sandbox._KILL_CALL)]
    assert len(numbers) == len(set(numbers))
    assert len(list(sandbox._program(column, architecture, 1))) < 4096  # the kernel's limit


INSPECTED = """
import ctypes, os
from backend.process import inspection
if os.getuid() == 0:  # root may look into everything
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after the start of a program, which a change of user is not
inspection.forbid(os.environ)
server = os.getpid()
if os.fork() == 0:
    try:
        print(b"secret" in open(f"/proc/{server}/environ", "rb").read(), flush=True)
    except PermissionError:
        print("refused", flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("switch", "said"), [("", "refused"), ("off", "refused"), ("true", "True")])
def test_the_servers_environment_is_closed_to_its_own_user(switch: str, said: str) -> None:
    environment = {"TOKEN": "secret", "QWEN_ASR_INSPECTABLE": switch, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", INSPECTED], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == said, ran.stderr
