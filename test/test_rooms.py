"""The architecture, held: which folder of backend/ may import which, and what only one of them may import."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

BACKEND = Path(__file__).parent.parent / "backend"
FILES = sorted(p for p in BACKEND.rglob("*.py") if "backend_pb2" not in p.name)

# From the highest floor to the lowest: a room imports itself and what stands below it. A room is a folder of backend/,
# or a module that lies in backend/ itself.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"server", "doctor"}),  # the doctor starts the server and asks engine and remote in child processes
    frozenset({"engine", "remote"}),  # implement serving's protocols; server alone imports them, see ONLY_IMPORTER
    frozenset({"wire"}),
    frozenset({"live"}),
    frozenset({"pipeline", "chat_format"}),
    frozenset({"audio", "serving", "transcript", "checkpoint", "sequences"}),
    frozenset({"options", "languages", "thresholds"}),
    frozenset({"process"}),
    frozenset({"errors"}),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# A package, or a room of ours, and the only rooms that may import it; no room imports what only tests and tools need.
ONLY_IMPORTER = {
    "grpc": {"wire", "server", "doctor"}, "grpc_health": {"wire", "server"}, "prometheus_client": {"wire"},
    "torch": {"engine"}, "tokenizers": {"engine", "chat_format", "remote"}, "nagisa": {"engine"},
    "huggingface_hub": {"checkpoint"},
    "transformers": set(), "qwen_asr": set(), "accelerate": set(),
    "silero_vad": set(), "av": {"audio"}, "soundfile": {"audio"}, "soxr": {"audio"},
    "backend.engine": {"engine", "server"}, "backend.remote": {"remote", "server"}, "http": {"remote"},
}  # fmt: skip
STANDARD_LIBRARY_ONLY = {"transcript", "options", "languages", "thresholds", "process", "errors"}
NUMPY_AT_MOST = {"sequences"}
DECODERS = {"decode", "downmix", "ffmpeg", "placement", "sample_writer", "main"}  # of audio/decoding: in the child
MOST_MODULES_IN_A_FOLDER = 14
MOST_MODULES_IN_BACKEND = 7


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


def room_of(module: str) -> str:
    return module.split(".")[0]


def is_within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_imports_only_what_stands_below_it(path: Path) -> None:
    room = room_of(module_of(path))
    if room == "__init__":
        return
    for name in imported(path):
        top, _, inner = name.partition(".")
        assert top != "devtools", f"{room} imports {name}"
        if top == "backend":
            other = room_of(inner)
            assert other == room or FLOOR_OF[other] > FLOOR_OF[room], f"{room} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_package_is_imported_in_its_own_rooms_only(path: Path) -> None:
    room = room_of(module_of(path))
    for name in imported(path):
        for package, rooms in ONLY_IMPORTER.items():
            assert not is_within(name, package) or room in rooms, f"{room} imports {name}"
        if room in STANDARD_LIBRARY_ONLY | NUMPY_AT_MOST:
            allowed = {"backend", *sys.stdlib_module_names, *(["numpy"] if room in NUMPY_AT_MOST else [])}
            assert name.partition(".")[0] in allowed, f"{room} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_a_child_decodes(path: Path) -> None:
    """What reads a client's sound in C runs where it can crash: neither the server nor anything it imports does."""
    module = module_of(path)
    if module.startswith("audio.decoding.") and module.rpartition(".")[2] in DECODERS:
        return
    for name in imported(path):
        assert not any(is_within(name, package) for package in ("soundfile", "soxr", "av")), f"{module} imports {name}"
        private = (f"backend.audio.decoding.{decoder}" for decoder in DECODERS)
        assert not any(is_within(name, decoder) for decoder in private), f"{module} imports {name}"


def test_every_module_stands_on_a_floor() -> None:
    assert {room_of(module_of(path)) for path in FILES} == {*FLOOR_OF, "__init__"}


def test_no_folder_is_crowded() -> None:
    modules = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert modules.pop(BACKEND) <= MOST_MODULES_IN_BACKEND
    assert {folder.name: count for folder, count in modules.items() if count > MOST_MODULES_IN_A_FOLDER} == {}


def test_a_module_name_occurs_once() -> None:
    names = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert {name: count for name, count in names.items() if count > 1} == {}
