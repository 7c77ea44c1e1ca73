"""Silero's network for voice activity, computed by numpy: the weights are a data file of the package `silero-vad`.

- The package itself is not imported, because it would import torch. Its file is a TorchScript archive: a zip file that
  holds each tensor as its bare bytes.
- A frame is 512 samples at 16 kHz, seen together with the 64 samples before it. Four spectra of it go through four
  convolutions; a recurrent cell then runs from frame to frame, through several pieces of a recording at a time.
- All products are stacks of small ones, of at most four rows each. OpenBLAS computes these in the thread that asks; for
  larger ones it wakes threads of its own, which would then wait busily on the cores that the model computes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FRAME = 512  # samples that are judged at a time: 32 ms
MAX_PIECES = 4  # pieces that are judged at a time, see above
_CONTEXT = 64  # samples before a frame that are judged with it
_WINDOW, _HOP = 256, 128  # samples of a spectrum, and from one to the next
_BLOCK = 64  # frames of each piece that are computed at a time: what they need fits into a processor's cache

# The tensors of the network for 16 kHz, in the order in which the archive numbers its files, from 2 on.
_SHAPES = {
    "spectrum": (258, 1, 256),  # the real parts of 129 bins, then the imaginary ones
    "conv1": (128, 129, 3), "conv1.bias": (128,), "conv2": (64, 128, 3), "conv2.bias": (64,),
    "conv3": (64, 64, 3), "conv3.bias": (64,), "conv4": (128, 64, 3), "conv4.bias": (128,),
    "input": (512, 128), "recurrent": (512, 128), "input.bias": (512,), "recurrent.bias": (512,),
    "out": (1, 128, 1), "out.bias": (1,),
}  # fmt: skip


def _read_weights() -> dict[str, Floats]:
    package = find_spec("silero_vad")
    if package is None or not package.submodule_search_locations:
        raise ImportError("the package silero-vad is not installed; run make install", name="silero_vad")
    with ZipFile(Path(package.submodule_search_locations[0]) / "data/silero_vad.jit") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        return {
            name: np.frombuffer(archive.read(f"{folder}/data/{number}"), "<f4").reshape(shape)
            for number, (name, shape) in enumerate(_SHAPES.items(), start=2)
        }


def _matrix(weight: Floats) -> Floats:
    """A convolution's weight, (out, in, taps), as (taps × in, out), for windows of taps × in."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, weight.shape[0]))


_weights = _read_weights()
_REAL, _IMAGINARY = _matrix(_weights["spectrum"][:129]), _matrix(_weights["spectrum"][129:])
_CONV1, _CONV2 = _matrix(_weights["conv1"]), _matrix(_weights["conv2"])
_CONV3, _CONV4 = _matrix(_weights["conv3"][:, :, 1:]), _matrix(_weights["conv4"][:, :, 1:2])  # the rest meets padding
# The cell's gates are stacked: input, forget, candidate, output. A sigmoid is a tanh of half its argument, shifted:
# one call serves all four, and the halves are in the weights.
_HALF = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), 128)
_INPUT, _RECURRENT = (np.ascontiguousarray((_weights[name] * _HALF[:, None]).T) for name in ("input", "recurrent"))
_GATES_BIAS = (_weights["input.bias"] + _weights["recurrent.bias"]) * _HALF
_OUT, _OUT_BIAS = _weights["out"].reshape(128), _weights["out.bias"]


@dataclass
class State:
    """What the network keeps from frame to frame: `hidden` and `cell` (pieces, 128), `context` (pieces, 64)."""

    hidden: Floats
    cell: Floats
    context: Floats

    @classmethod
    def empty(cls, pieces: int) -> State:
        """As if nothing had been heard before."""
        hidden, cell = np.zeros((2, pieces, 128), np.float32)
        return cls(hidden, cell, np.zeros((pieces, _CONTEXT), np.float32))


def likelihoods(pieces: Floats, state: State | None = None) -> Floats:
    """The likelihood of speech, (pieces, frames), 0 to 1, in sound of shape (pieces, frames, 512) within [-1, 1].

    There are at most MAX_PIECES pieces. `state`: of the sound before the pieces, and afterwards of them; None: empty.
    """
    count, frames, _ = pieces.shape
    state = state or State.empty(count)
    hidden = np.zeros((frames + 1, count, 128), np.float32)
    hidden[0], cell = state.hidden, state.cell
    for first in range(0, frames, _BLOCK):
        before = pieces[:, first - 1, -_CONTEXT:] if first else state.context
        for now, gates in enumerate(_input_gates(pieces, first, before), first):
            bent = np.tanh(gates + hidden[now] @ _RECURRENT)
            kept, forgotten, candidate, shown = (bent[:, gate : gate + 128] for gate in range(0, 512, 128))
            cell = 0.5 * ((1 + forgotten) * cell + (1 + kept) * candidate)
            hidden[now + 1] = 0.5 * (1 + shown) * np.tanh(cell)
    if frames:
        state.hidden, state.cell, state.context = hidden[-1], cell, pieces[:, -1, -_CONTEXT:].copy()
    logits = (np.maximum(hidden[1:], 0) * _OUT).sum(axis=2) + _OUT_BIAS
    found: Floats = 1 / (1 + np.exp(-logits))
    return found.T


def _input_gates(pieces: Floats, first: int, before: Floats) -> Floats:
    """What the frames from `first` on add to the gates of the recurrent cell, (at most _BLOCK, pieces, 512).

    `before`: the samples before them, (pieces, 64).
    """
    sound = pieces[:, first : first + _BLOCK].swapaxes(0, 1)
    frames, count, _ = sound.shape
    seen = np.zeros((frames, count, _CONTEXT + FRAME + _CONTEXT), np.float32)
    seen[:, :, _CONTEXT:-_CONTEXT] = sound
    seen[1:, :, :_CONTEXT] = sound[:-1, :, -_CONTEXT:]
    seen[0, :, :_CONTEXT] = before
    seen[:, :, -_CONTEXT:] = seen[:, :, -_CONTEXT - 2 : -2 * _CONTEXT - 2 : -1]  # mirrored at the last sample
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(seen, _WINDOW, axis=2)[:, :, ::_HOP])
    spectrum = np.sqrt(np.square(windows @ _REAL) + np.square(windows @ _IMAGINARY))
    steps = _convolved(_windows_of_3(spectrum, stride=1), "conv1", _CONV1)
    steps = _convolved(_windows_of_3(steps, stride=2), "conv2", _CONV2)
    last = _convolved(_convolved(steps.reshape(frames, count, -1), "conv3", _CONV3), "conv4", _CONV4)
    gates: Floats = last @ _INPUT + _GATES_BIAS
    return gates


def _windows_of_3(steps: Floats, stride: int) -> Floats:
    """(frames, pieces, time, channels), padded with a step of zeros at both ends -> windows of 3 × channels."""
    frames, count, time, channels = steps.shape
    padded = np.zeros((frames, count, time + 2, channels), np.float32)
    padded[:, :, 1:-1] = steps
    flat = padded.reshape(frames, count, -1)
    windows = np.lib.stride_tricks.sliding_window_view(flat, 3 * channels, axis=2)
    return np.ascontiguousarray(windows[:, :, :: stride * channels])


def _convolved(windows: Floats, layer: str, matrix: Floats) -> Floats:
    product: Floats = windows @ matrix
    product += _weights[f"{layer}.bias"]
    return np.maximum(product, 0, out=product)
