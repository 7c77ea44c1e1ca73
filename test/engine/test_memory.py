"""Law 1, measured: loading the aligner costs the aligner's memory, never a second recogniser's.

The checkpoints are random, and large enough that the interpreter's own memory does not matter. They are loaded in a
child process, which reads the kernel's peak of its resident memory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MIB = 1 << 20
ROOT = Path(__file__).parent.parent.parent

MAKE = """
import json, sys, torch
from safetensors.torch import save_file
from backend.checkpoint.layout import layout_of
from backend.checkpoint.model_config import model_config
from backend.engine.model.qwen_model import QwenModel
from backend.engine.ops.device import Placement
folder, layers = sys.argv[1], int(sys.argv[2])
keys = json.load(open(folder + "/config.json"))
text = keys["thinker_config"]["text_config"]
text |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": layers}
keys["thinker_config"]["audio_config"]["output_dim"] = 1024
json.dump(keys, open(folder + "/config.json", "w"))
kind = layout_of("random", keys).kind
model = QwenModel(model_config(keys, kind), Placement(torch.device("cpu"), torch.bfloat16, "sdpa", ""))
# any values would do, but uninitialised ones may be NaN
tensors = {name: torch.full(p.shape, 0.01, dtype=torch.bfloat16) for name, p in model.named_parameters()}
save_file(tensors, folder + "/model.safetensors", metadata={"format": "pt"})
"""

MEASURE = """
import asyncio, json, re, sys
from backend.engine.loader import CheckpointLoader
from backend.serving.resident import Resident
from backend.options.load_options import LoadOptions

def memory(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

async def main():
    resident = Resident(CheckpointLoader())
    await resident.load(LoadOptions(model=sys.argv[1], forced_aligner=sys.argv[2], dtype="bfloat16"))
    lean = resident.current()
    storage = [p.data_ptr() for p in lean.recognizer.model.parameters()]
    before = memory("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
    await resident.equipped(lean)
    same = storage == [p.data_ptr() for p in resident.current().recognizer.model.parameters()]
    print(json.dumps({"before": before, "peak": memory("VmHWM"), "same": same, **resident.weight_bytes}))

asyncio.run(main())
"""


def random_checkpoint(demo: Path, folder: Path, *, layers: int) -> Path:
    shutil.copytree(demo, folder)
    subprocess.run([sys.executable, "-c", MAKE, str(folder), str(layers)], check=True)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_swaps_peak_memory_is_the_aligner_and_not_a_second_recogniser(
    asr_folder: Path, aligner_folder: Path, tmp_path: Path
) -> None:
    model = random_checkpoint(asr_folder, tmp_path / "model", layers=14)
    aligner = random_checkpoint(aligner_folder, tmp_path / "aligner", layers=2)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), str(aligner)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    found = json.loads(measured.stdout.splitlines()[-1])
    assert found["same"]
    assert found["recognizer"] > 300 * MIB
    assert found["aligner"] > 40 * MIB
    rise = found["peak"] - found["before"]
    # mapped pages of the files count as resident, so the aligner may count twice for a moment
    assert rise < 2 * found["aligner"] + 96 * MIB
    assert rise < 0.8 * found["recognizer"]
