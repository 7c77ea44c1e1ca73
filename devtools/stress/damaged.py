"""Checkpoints that are damaged, through run.sh: what cannot be right must not be answered as if it were.

A demo checkpoint whose last norm holds no numbers computes none either; the argmax of such logits is some token all the
same. One that was cut short must be refused at the load, and the model that was there must go on.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from backend.wire import backend_pb2 as pb
from devtools.stress.asking import OK, Outcome, Wanted, asked_anew
from devtools.stress.child import DEMO_MODEL, ROOT, RUN, Child, Failed
from devtools.stress.form import Form, sound_folder
from devtools.stress.lines import Line, holds
from devtools.stress.surviving import MEASURE

_NORM = "model.norm.weight"
_NO_NUMBER = {"BF16": b"\xc0\x7f", "F16": b"\x00\x7e", "F32": b"\x00\x00\xc0\x7f"}  # little-endian
_RECORDING = ROOT / "test/audio/chinese.wav"


def measure(form: Form) -> Iterator[Line]:
    form.say("fault: damaged checkpoints")
    with sound_folder() as folder, Child(RUN) as child:
        child.load_demo()
        alone = _heard(child)
        golden = replace(Wanted(_RECORDING, ""), text=alone.result.text)
        for injected, model in (
            ("weights that are no numbers", _without_numbers(folder / "nan")),
            ("weights that are cut short", _cut_short(folder / "cut")),
        ):
            try:
                child.load(pb.ModelOptions(Model=injected, ModelFile=str(model)))
                outcome = _heard(child)
                said, honest = f"loaded; victim {outcome.status} {outcome.result.text[:20]!r}", outcome.status != OK
                child.load_demo()
            except Failed as refusal:
                said, honest = "LoadModel refused", "refused" in str(refusal)
            exact = _heard(child).is_exact(golden)
            shown = f"{said}; golden {'exact' if exact else 'NOT EXACT'}"
            yield holds(MEASURE, injected, shown, "refused, or not OK; exact", honest and exact)


def _heard(child: Child) -> Outcome:
    return asyncio.run(asked_anew(child.address, Wanted(_RECORDING, "")))


def _without_numbers(folder: Path) -> Path:
    """The demo's recogniser with one tensor of NaN. Raises Failed if it has no such tensor."""
    shutil.copytree(DEMO_MODEL, folder)
    path = folder / "model.safetensors"
    weights = bytearray(path.read_bytes())
    length = int.from_bytes(weights[:8], "little")
    tensors = json.loads(weights[8 : 8 + length])
    norm = next((tensor for name, tensor in tensors.items() if name.endswith(_NORM)), None)
    if norm is None:
        raise Failed(f"the demo's checkpoint has no {_NORM}")
    begin, end = (8 + length + offset for offset in norm["data_offsets"])
    value = _NO_NUMBER[norm["dtype"]]
    weights[begin:end] = value * ((end - begin) // len(value))
    path.write_bytes(weights)
    return folder


def _cut_short(folder: Path) -> Path:
    shutil.copytree(DEMO_MODEL, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder
