from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from findings import assert_finding

from backend.doctor.findings import Finding
from backend.doctor.gateway_check import Folder, GatewayFacts, duration_s, judge, probe

DISK = Folder("/cache", free=80e9)
GOOD = GatewayFacts(DISK, Folder("/tmp", free=80e9), Folder("/models", free=80e9), "127.0.0.1:50051")
TOKEN = {"LOCALAI_GRPC_AUTH_TOKEN": "a secret"}
BUSY = {"LOCALAI_WATCHDOG_BUSY": "true"}


def found(facts: GatewayFacts, name: str) -> Finding:
    return next(finding for finding in judge(facts) if finding.name == name)


def test_a_usual_gateway_is_fine() -> None:
    assert {finding.level for finding in judge(GOOD)} == {"OK"}


@pytest.mark.parametrize(
    ("name", "changes", "level", "value", "remedy"),
    [
        (
            "HF_HOME",
            {"cache": Folder("/cache", "Permission denied")},
            "WARN",
            "/cache cannot be used: Permission denied",
            "HF_HOME=",
        ),
        ("HF_HOME", {"cache": Folder("/cache", free=1e9)}, "WARN", "1.0 GB free", "HF_HOME="),
        ("temporary folder", {"temporary": Folder("/tmp", "Read-only file system")}, "FAIL", "Read-only", "TMPDIR="),
        (
            "models folder",
            {"models": Folder("/m", "it does not exist")},
            "WARN",
            "/m does not exist",
            "LOCALAI_MODELS_PATH",
        ),
        ("models folder", {"models": Folder("/m", "Permission denied")}, "WARN", "Permission denied", "right to read"),
        ("models folder", {"models": None}, "OK", "not set here", ""),
        ("token", {"environment": TOKEN}, "OK", "is set: every call needs it", ""),
        ("token", {}, "OK", "is not set", ""),
        ("token", {"environment": {"LOCALAI_GRPC_AUTH_TOKEN": "\n"}}, "FAIL", "holds no token", "one line"),
        ("environment", {"environment": TOKEN}, "OK", "LOCALAI_GRPC_AUTH_TOKEN", ""),
        (
            "port",
            {"port_obstacle": "the port is taken by another process"},
            "WARN",
            "50051: the port is taken",
            "--addr",
        ),
        ("upload limit", {}, "OK", "15 MB, unless LocalAI is told otherwise: 8 minutes", ""),
        ("upload limit", {"environment": {"UPLOAD_LIMIT": "480"}}, "OK", "480 MB: 250 minutes", ""),
        ("busy watchdog", {"environment": BUSY}, "WARN", "after 5m", "LOCALAI_WATCHDOG_BUSY_TIMEOUT=1h"),
        ("busy watchdog", {"environment": {**BUSY, "WATCHDOG_BUSY_TIMEOUT": "1h30m"}}, "OK", "after 1h30m", ""),
        (
            "hub",
            {"environment": {"HF_HUB_ENABLE_HF_TRANSFER": "1"}, "absent_packages": frozenset({"hf_transfer"})},
            "WARN",
            "hf_transfer is not installed",
            "HF_HUB_ENABLE_HF_TRANSFER=0",
        ),
        (
            "hub",
            {"environment": {"ALL_PROXY": "socks5://x"}, "absent_packages": frozenset({"socks"})},
            "WARN",
            "ALL_PROXY is a SOCKS proxy",
            "http://",
        ),
        ("hub", {"environment": {"HF_HUB_OFFLINE": "1"}}, "OK", "only what is downloaded", ""),
    ],
)
def test_each_fault_has_its_level_and_remedy(name: str, changes: dict, level: str, value: str, remedy: str) -> None:
    assert_finding(found(replace(GOOD, **changes), name), level, value, remedy)


def test_no_value_of_the_environment_is_printed() -> None:
    environment = {**TOKEN, "LOCALAI_API_KEY": "a secret", "HF_TOKEN": "a secret", "ALL_PROXY": "socks5://a secret@x"}
    facts = replace(probe("127.0.0.1:0", environment), absent_packages=frozenset({"socks"}))
    assert "a secret" not in repr(judge(facts))
    assert "LOCALAI_API_KEY" in found(facts, "environment").value


def test_a_taken_port_a_free_one_and_no_port_are_told_apart() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert probe(address, {}).port_obstacle.startswith("the port is taken by another process")
    assert probe("127.0.0.1:0", {}).port_obstacle == ""
    assert "HOST:PORT" in probe("localhost", {}).port_obstacle


def test_a_cache_that_is_not_there_yet_is_judged_by_where_it_will_be_made(tmp_path: Path) -> None:
    facts = probe("127.0.0.1:0", {"HF_HOME": str(tmp_path / "a/b"), "LOCALAI_MODELS_PATH": str(tmp_path / "none")})
    assert facts.cache.obstacle == ""
    assert facts.cache.free > 0
    assert not (tmp_path / "a").exists()
    assert facts.models == Folder(str(tmp_path / "none"), "it does not exist")


def test_a_folder_that_is_a_file_or_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert probe("127.0.0.1:0", {"HF_HOME": str(tmp_path / "file")}).cache.obstacle == "it is not a folder"

    def refuse(path: object) -> list[str]:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("backend.doctor.gateway_check.os.listdir", refuse)  # root reads everything
    assert probe("127.0.0.1:0", {"HF_HOME": str(tmp_path)}).cache.obstacle == "Permission denied"


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("500ms", 0.5), ("x", 0)])
def test_a_duration_is_go_s(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds
