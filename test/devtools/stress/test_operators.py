"""What operators do to a server by accident: settings of other programs, and checkpoints that are not whole.

The demo's models through run.sh. A golden request comes back exact after each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backend.wire import backend_pb2 as pb
from devtools.server_process import DEMO_MODEL, ServerFailed
from devtools.stress.client import AUDIO, EXACT, RUN, Request, Server
from devtools.stress.results import Results

pytestmark = pytest.mark.slow

_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
# What a gateway's environment may hold: each alone ended the backend, or was lost on the way.
_INHERITED = {
    "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error",
    "PYTHONSAFEPATH": "1", "PYTHONPLATLIBDIR": "x", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C",
    "HF_HUB_ENABLE_HF_TRANSFER": "1", "TMPDIR": "/nowhere", "CDPATH": "/usr",
}  # fmt: skip


@dataclass(frozen=True)
class Spoiled:
    """`said`: what LoadModel's message names."""

    name: str
    spoil: Callable[[Path], object]
    said: str


_SPOILED = (
    Spoiled("weights that are a pointer", lambda f: (f / "model.safetensors").write_bytes(_POINTER), "git-lfs pointer"),
    Spoiled(
        "weights cut short", lambda f: os.truncate(f / "model.safetensors", 9999), "model.safetensors is cut short"
    ),
    Spoiled("a tokenizer cut short", lambda f: os.truncate(f / "tokenizer.json", 999), "tokenizer.json is cut short"),
    Spoiled("no preprocessor", lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json is miss"),
    Spoiled("an empty config", lambda f: (f / "config.json").write_bytes(b""), "config.json of the checkpoint"),
    Spoiled("a config of nothing", lambda f: (f / "config.json").write_bytes(_POINTER), "git-lfs pointer"),
)


@pytest.mark.soak("machine")
async def test_a_checkpoint_that_is_not_whole_is_named_and_the_old_one_serves(folder: Path, results: Results) -> None:
    request = Request(AUDIO / "chinese.wav")
    with Server(RUN, environment=_INHERITED) as server:
        server.load_demo()
        expected = (await server.transcribe(request)).result.text
        for number, each in enumerate(_SPOILED):
            spoiled = Path(shutil.copytree(DEMO_MODEL, folder / f"模型 {number}"))
            each.spoil(spoiled)
            try:
                server.load(pb.ModelOptions(Model=each.name, ModelFile=str(spoiled)), 60.0)
                said = "loaded"
            except ServerFailed as failure:
                said = str(failure)
            golden = EXACT if (await server.transcribe(replace(request, text=expected))).is_exact else "NOT EXACT"
            is_met = each.said in said and str(spoiled) not in said
            results.fault(each.name, "named" if is_met else said, "named", is_met, golden, said)
    assert expected
