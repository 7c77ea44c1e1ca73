"""The gateway's side: folders, the environment that it hands on, the port, and two of its own limits.

No value of the environment is printed but paths, sizes and times; of the token only whether there is one.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from backend.doctor.findings import Finding, fail, ok, warn
from backend.errors import CannotListen, TokenRefused
from backend.process.address import listen_obstacle
from backend.process.operator_token import TOKEN_VARIABLE as _TOKEN
from backend.process.operator_token import operator_token

_MODELS = ("LOCALAI_MODELS_PATH", "MODELS_PATH")
_UPLOAD = ("LOCALAI_UPLOAD_LIMIT", "UPLOAD_LIMIT")
_BUSY = ("LOCALAI_WATCHDOG_BUSY", "WATCHDOG_BUSY")
_BUSY_TIMEOUT = ("LOCALAI_WATCHDOG_BUSY_TIMEOUT", "WATCHDOG_BUSY_TIMEOUT")
_DEFAULT_UPLOAD_MB, _DEFAULT_BUSY = 15, "5m"
_WAV_MB_PER_MINUTE = 1.92
_ENOUGH_BUSY_S = 1800.0  # an hour of speech on a CPU of two cores, and the load before it
_FREE_BYTES = 5e9  # of the larger model
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# Switches of the hub's library that need a package; a gateway gives all its backends one environment.
_ACCELERATORS = {"HF_HUB_ENABLE_HF_TRANSFER": "hf_transfer"}
_SOCKS = ("socks", "socksio")  # either serves a SOCKS proxy, by the version of the hub's library


@dataclass(frozen=True)
class Folder:
    """`obstacle`: why it cannot be used, "" if it can. `free`: bytes left on its disk."""

    path: str
    obstacle: str = ""
    free: float = 0.0


@dataclass(frozen=True)
class GatewayFacts:
    """`environment`: the gateway's and the hub's variables. `port_obstacle`: why the address cannot be listened on."""

    cache: Folder
    temporary: Folder
    models: Folder | None = None
    address: str = ""
    port_obstacle: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    absent_packages: frozenset[str] = frozenset()  # of those that an accelerator needs


def probe(address: str, environment: Mapping[str, str] = os.environ) -> GatewayFacts:
    home = environment.get("HF_HOME") or str(
        Path(environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "huggingface"
    )
    models = setting(environment, _MODELS)
    return GatewayFacts(
        _folder(environment.get("HF_HUB_CACHE") or home, made_when_missing=True),
        _folder(tempfile.gettempdir()),
        _folder(models) if models else None,
        address,
        _port_obstacle(address),
        {name: value for name, value in environment.items() if re.match(r"LOCALAI_|HF_|.*_PROXY$|.*_proxy$", name)}
        | {name: environment[name] for name in (*_UPLOAD, *_BUSY, *_BUSY_TIMEOUT) if name in environment},
        _absent_packages(),
    )


def setting(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of these variables that is set and not empty, "" without one."""
    return next((environment[name] for name in names if environment.get(name)), "")


def models_folder(environment: Mapping[str, str] = os.environ) -> str:
    """Where relative names of checkpoints start, as the gateway would say it; "" if nothing does."""
    return setting(environment, _MODELS)


def _folder(path: str, made_when_missing: bool = False) -> Folder:
    """Whether files can be read and written there; of a folder that will be made, in the first parent that exists."""
    there = Path(path)
    try:
        while made_when_missing and not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            return Folder(path, "it is not a folder" if there.exists() else "it does not exist")
        os.listdir(there)  # noqa: PTH208 - os.access believes root, which a network share need not
        with tempfile.TemporaryFile(dir=there):
            pass
        return Folder(path, free=shutil.disk_usage(there).free)
    except OSError as error:
        return Folder(path, error.strerror or type(error).__name__)


def _port_obstacle(address: str) -> str:
    try:
        return listen_obstacle(address)
    except CannotListen as error:
        return str(error)


def _absent_packages() -> frozenset[str]:
    absent = {name for name in _ACCELERATORS.values() if find_spec(name) is None}
    return frozenset(absent | ({_SOCKS[0]} if all(find_spec(name) is None for name in _SOCKS) else set()))


def judge(facts: GatewayFacts) -> list[Finding]:
    return [
        _cache(facts.cache),
        _models(facts.models),
        _temporary(facts.temporary),
        _variables(facts.environment),
        *_inherited(facts),
        _token(facts.environment),
        _port(facts),
        _upload(facts.environment),
        _busy(facts.environment),
    ]


def _cache(cache: Folder) -> Finding:
    if cache.obstacle:
        return warn(
            "HF_HOME",
            f"{cache.path} cannot be used: {cache.obstacle}; hub ids cannot be loaded",
            "HF_HOME=/a/writable/folder",
        )
    if cache.free < _FREE_BYTES:
        return warn(
            "HF_HOME", f"{cache.path}, {cache.free / 1e9:.1f} GB free; the 1.7B takes 4.1 GB", "HF_HOME=/a/larger/disk"
        )
    return ok("HF_HOME", f"{cache.path}, writable, {cache.free / 1e9:.0f} GB free")


def _models(models: Folder | None) -> Finding:
    if models is None:
        return ok("models folder", "LOCALAI_MODELS_PATH is not set here; the gateway sends it with each load")
    if models.obstacle == "it does not exist":
        return warn("models folder", f"{models.path} does not exist", "mount it, or correct LOCALAI_MODELS_PATH")
    if models.obstacle:
        return warn(
            "models folder", f"{models.path}: {models.obstacle}", "give this user the right to read and write it"
        )
    return ok("models folder", f"{models.path}, writable, {models.free / 1e9:.0f} GB free")


def _temporary(folder: Folder) -> Finding:
    if folder.obstacle:
        return fail("temporary folder", f"{folder.path}: {folder.obstacle}", "TMPDIR=/a/writable/folder")
    return ok("temporary folder", f"{folder.path}, writable")


def _variables(environment: Mapping[str, str]) -> Finding:
    names = sorted(name for name in environment if name.startswith("LOCALAI_"))
    return ok("environment", ", ".join(names) if names else "no LOCALAI_ variable is set")


def _inherited(facts: GatewayFacts) -> Iterator[Finding]:
    """Settings that are meant for another backend of the same gateway and break the hub's library here."""
    for name, package in _ACCELERATORS.items():
        if facts.environment.get(name, "").lower() in ("1", "true", "yes", "on") and package in facts.absent_packages:
            yield warn("hub", f"{name} is set, and {package} is not installed", f"{name}=0")
    socks = sorted(
        name for name, value in facts.environment.items() if "proxy" in name.lower() and value.startswith("socks")
    )
    if socks and _SOCKS[0] in facts.absent_packages:
        yield warn(
            "hub", f"{', '.join(socks)} is a SOCKS proxy, and no package for it is installed", "an http:// proxy"
        )
    if facts.environment.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        yield ok("hub", "HF_HUB_OFFLINE is set: only what is downloaded loads")


def _token(environment: Mapping[str, str]) -> Finding:
    try:
        token = operator_token(environment)
    except TokenRefused as refused:
        return fail("token", str(refused), f"{_TOKEN} in one line of printable ASCII")
    if token:
        return ok("token", f"{_TOKEN} is set: every call needs it, probes too")
    return ok("token", f"{_TOKEN} is not set: bind to the loopback, as the gateway does")


def _port(facts: GatewayFacts) -> Finding:
    if facts.port_obstacle:
        return warn(
            "port", f"{facts.address}: {facts.port_obstacle}", "--addr HOST:PORT with a free port, or stop what has it"
        )
    return ok("port", f"{facts.address} is free")


def _upload(environment: Mapping[str, str]) -> Finding:
    text = setting(environment, _UPLOAD)
    limit = int(text) if text.isdecimal() and int(text) else _DEFAULT_UPLOAD_MB
    minutes = limit / _WAV_MB_PER_MINUTE
    value = f"{limit} MB{'' if text else ', unless LocalAI is told otherwise'}: {minutes:.0f} minutes of 16 kHz WAV"
    return ok("upload limit", f"{value}; `local-ai run --upload-limit 500` lets longer ones in")


def _busy(environment: Mapping[str, str]) -> Finding:
    if setting(environment, _BUSY).lower() not in ("1", "true", "yes", "on"):
        return ok(
            "busy watchdog", "LOCALAI_WATCHDOG_BUSY is not set; where it is on, it ends requests of over 5 minutes"
        )
    timeout = setting(environment, _BUSY_TIMEOUT) or _DEFAULT_BUSY
    if duration_s(timeout) < _ENOUGH_BUSY_S:
        return warn("busy watchdog", f"ends a load or a request after {timeout}", "LOCALAI_WATCHDOG_BUSY_TIMEOUT=1h")
    return ok("busy watchdog", f"ends a load or a request after {timeout}")


def duration_s(text: str) -> float:
    """A Go duration such as 1h30m, in seconds; 0 for anything else."""
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s))+", text):
        return 0.0
    return sum(float(number) * _UNITS_S[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(h|ms|m|s)", text))
