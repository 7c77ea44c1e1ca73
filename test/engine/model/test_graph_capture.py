"""Nothing is taken on trust: recorded steps are used where they say what plain ones say, and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from backend.engine.model import graph_capture
from backend.engine.model.cuda_graphs import GraphedDecoder, Run
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import agree, recorded

CPU = torch.device("cpu")


def rerun(run: Run) -> Run:
    """The function itself for a recording."""
    return run


def test_a_recording_that_says_something_else_is_not_used(decoder: Decoder) -> None:
    def frozen(run: Run) -> Run:
        once = run()
        return lambda: once

    sizes = []
    assert agree(decoder, GraphedDecoder(decoder, lambda run: sizes.append(run().shape[0]) or run), CPU)  # type: ignore[func-returns-value]
    assert sizes == [4, 8, 1]
    assert not agree(decoder, GraphedDecoder(decoder, frozen), CPU)
    assert not agree(decoder, GraphedDecoder(decoder, lambda run: lambda: run() * torch.nan), CPU)


class Anywhere:
    """Stands for a CUDA device, with this machine's memory."""

    type = "cuda"


@pytest.mark.parametrize("fault", ["cannot be recorded", "says something else"])
def test_without_good_recordings_the_plain_decoder_goes_on(monkeypatch, caplog, decoder: Decoder, fault: str) -> None:
    device: Any = Anywhere()

    def refusing(_: Any) -> Any:
        if fault == "cannot be recorded":
            raise RuntimeError("no graphs here")
        return rerun

    monkeypatch.setattr("backend.engine.model.graph_capture.CudaGraphs", refusing)
    monkeypatch.setattr("backend.engine.model.graph_capture.agree", lambda *_: False)
    with caplog.at_level(logging.WARNING):
        assert recorded(decoder, device, rows=1, positions=0) is decoder
    assert "plain" in caplog.text


def test_good_recordings_are_used_on_cuda_and_nowhere_else(monkeypatch, decoder: Decoder) -> None:
    device: Any = Anywhere()
    monkeypatch.setattr("backend.engine.model.graph_capture.CudaGraphs", lambda _: rerun)
    monkeypatch.setattr("backend.engine.model.graph_capture.agree", lambda *_: True)
    assert isinstance(recorded(decoder, device, rows=1, positions=0), GraphedDecoder)
    assert recorded(decoder, CPU, rows=1, positions=0) is decoder


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_steps_are_recorded_and_say_what_plain_ones_say(recognizer) -> None:
    device = recognizer.model.device
    assert isinstance(recorded(recognizer.decoder, device, rows=1, positions=0), GraphedDecoder)
    assert agree(recognizer.decoder, GraphedDecoder(recognizer.decoder, graph_capture.CudaGraphs(device)), device)
