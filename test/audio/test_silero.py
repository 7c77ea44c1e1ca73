"""Silero's network by numpy, held against the package's own TorchScript of it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from backend.audio import silero
from devtools.eval.nonspeech import sound

ROOT = Path(__file__).parents[2]


def official(pieces: silero.Floats) -> silero.Floats:
    """What `torch.jit` computes with the file that holds the weights."""
    package = find_spec("silero_vad")
    assert package is not None
    assert package.submodule_search_locations is not None
    network = torch.jit.load(Path(package.submodule_search_locations[0]) / "data/silero_vad.jit")
    found = np.zeros(pieces.shape[:2], np.float32)
    for number, piece in enumerate(pieces):
        network.reset_states()
        with torch.inference_mode():
            found[number] = [float(network(torch.tensor(frame), 16_000)) for frame in piece]
    return found


@pytest.fixture
def pieces(recordings: Path) -> silero.Floats:
    """(4, 200, 512): a voice at two levels, another voice, and a siren."""
    samples, _ = soundfile.read(recordings / "demo.wav", frames=200 * 512, dtype="float32")
    other, _ = soundfile.read(recordings / "left_out.wav", frames=200 * 512, dtype="float32")
    siren = sound("siren", seconds=200 * 512 / 16_000, level=0.5)
    return np.stack([samples, samples * np.float32(0.01), other, siren]).reshape(4, 200, 512)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # it is the package's format
def test_the_likelihoods_are_those_of_the_package(pieces: silero.Floats) -> None:
    expected = official(pieces)
    assert expected.max() > 0.9
    assert expected.min() < 0.1
    np.testing.assert_allclose(silero.likelihoods(pieces), expected, atol=1e-4)


@pytest.mark.parametrize("frames", [0, 1, 63, 64, 65])
def test_a_piece_of_any_length_is_judged_as_its_beginning_in_a_longer_one(pieces: silero.Floats, frames: int) -> None:
    expected = silero.likelihoods(pieces)[:, :frames]
    np.testing.assert_allclose(silero.likelihoods(pieces[:, :frames]), expected, atol=1e-5)


def test_a_piece_does_not_depend_on_its_neighbours(pieces: silero.Floats) -> None:
    together = silero.likelihoods(pieces)
    for number in range(len(pieces)):
        np.testing.assert_allclose(silero.likelihoods(pieces[number : number + 1])[0], together[number], atol=1e-5)


@pytest.mark.slow
def test_no_other_thread_computes() -> None:
    """OpenBLAS, in a process that nothing else has told how many threads it may use.

    The least of five rounds: its threads wait busily for a moment after they have been made.
    """
    program = """
import time
import numpy as np
from backend.audio import silero
for count in (1, 4):
    pieces = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 600, 512)).astype(np.float32)
    silero.likelihoods(pieces[:, :64])
    rounds = []
    for _ in range(5):
        whole, own = time.process_time(), time.thread_time()
        silero.likelihoods(pieces)
        rounds.append((time.process_time() - whole, time.thread_time() - own))
    assert any(whole < 1.05 * own + 0.005 for whole, own in rounds), (count, rounds)
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "4"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="silero-vad is not installed; run make install"):
        silero._read_weights()
