"""CUDA graphs are used where they compute what eager steps compute, and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from backend.engine.model import graph_capture
from backend.engine.model.cuda_graphs import GraphedDecoder, Step
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import logits_agree, with_cuda_graphs

CPU = torch.device("cpu")


def eager(step: Step) -> Step:
    """The step itself in place of its capture."""
    return step


def test_a_graph_that_computes_something_else_is_not_used(decoder: Decoder) -> None:
    def frozen(step: Step) -> Step:
        once = step()
        return lambda: once

    sizes = []

    def recording(step: Step) -> Step:
        sizes.append(step().shape[0])
        return step

    assert logits_agree(decoder, GraphedDecoder(decoder, recording), CPU)
    assert sizes == [4, 8, 1]
    assert not logits_agree(decoder, GraphedDecoder(decoder, frozen), CPU)
    assert not logits_agree(decoder, GraphedDecoder(decoder, lambda step: lambda: step() * torch.nan), CPU)


class Anywhere:
    """Stands for a CUDA device, with this machine's memory."""

    type = "cuda"


@pytest.mark.parametrize("fault", ["cannot be captured", "computes something else"])
def test_without_good_graphs_the_eager_decoder_is_used(monkeypatch, caplog, decoder: Decoder, fault: str) -> None:
    device: Any = Anywhere()

    def refusing(_: Any) -> Any:
        if fault == "cannot be captured":
            raise RuntimeError("no graphs here")
        return eager

    monkeypatch.setattr("backend.engine.model.graph_capture.CudaGraphs", refusing)
    monkeypatch.setattr("backend.engine.model.graph_capture.logits_agree", lambda *_: False)
    with caplog.at_level(logging.WARNING):
        assert with_cuda_graphs(decoder, device, rows=1, positions=0) is decoder
    assert "eager" in caplog.text


def test_good_graphs_are_used_on_cuda_and_nowhere_else(monkeypatch, decoder: Decoder) -> None:
    device: Any = Anywhere()
    monkeypatch.setattr("backend.engine.model.graph_capture.CudaGraphs", lambda _: eager)
    monkeypatch.setattr("backend.engine.model.graph_capture.logits_agree", lambda *_: True)
    assert isinstance(with_cuda_graphs(decoder, device, rows=1, positions=0), GraphedDecoder)
    assert with_cuda_graphs(decoder, CPU, rows=1, positions=0) is decoder


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_captured_steps_compute_what_eager_ones_compute(recognizer) -> None:
    device = recognizer.model.device
    assert isinstance(with_cuda_graphs(recognizer.decoder, device, rows=1, positions=0), GraphedDecoder)
    assert logits_agree(
        recognizer.decoder, GraphedDecoder(recognizer.decoder, graph_capture.CudaGraphs(device)), device
    )
