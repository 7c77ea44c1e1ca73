"""CUDA graphs are used where they compute what eager steps compute, and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from backend.engine.model.cuda_graphs import Capture, GraphedDecoder, GraphPlan, Step
from backend.engine.model.decoder import Decoder
from backend.engine.model.graph_capture import CudaGraphs, captured, with_cuda_graphs

CPU = torch.device("cpu")
PLAN = GraphPlan(rows=4, capacities=(16, 64))


def eager(step: Step) -> Step:
    """The step itself in place of its capture."""
    return step


def frozen(step: Step) -> Step:
    once = step().clone()
    return lambda: once


def frozen_but_one(step: Step) -> Step:
    return frozen(step) if step().shape[0] == 2 else step


@pytest.mark.parametrize("capture", [frozen, frozen_but_one, lambda step: lambda: step() * torch.nan])
def test_a_graph_that_computes_something_else_is_not_used(decoder: Decoder, capture: Capture) -> None:
    assert captured(decoder, PLAN, eager) is not None
    assert captured(decoder, PLAN, capture) is None


def test_the_check_leaves_no_row_behind(decoder: Decoder) -> None:
    graphed: Any = captured(decoder, PLAN, eager)
    memory = graphed._memory
    assert not memory.kv.any()
    assert memory.lengths.tolist() == [0] * PLAN.rows


class Anywhere:
    """Stands for a CUDA device, with this machine's memory."""

    type = "cuda"


def refusing(_: Any) -> Capture:
    raise RuntimeError("no graphs here")


def failing(step: Step) -> Step:
    raise MemoryError("of a capture")


@pytest.mark.parametrize(
    ("graphs", "free", "cause"),
    [
        (refusing, 1e12, "cannot be captured"),
        (lambda _: failing, 1e12, "cannot be captured"),
        (lambda _: frozen, 1e12, "do not compute"),
        (lambda _: eager, 1e3, "too little memory"),
    ],
)
def test_without_good_graphs_the_eager_decoder_is_used(
    monkeypatch, caplog, decoder: Decoder, graphs: Any, free: float, cause: str
) -> None:
    device: Any = Anywhere()
    monkeypatch.setattr("backend.engine.model.graph_capture.CudaGraphs", graphs)
    monkeypatch.setattr("backend.engine.model.graph_capture.free_bytes", lambda _: free)
    with caplog.at_level(logging.WARNING):
        assert with_cuda_graphs(decoder, device, rows=1, chunk_s=2) is decoder
    assert cause in caplog.text
    assert "eager" in caplog.text


def test_good_graphs_are_used_on_cuda_and_nowhere_else(monkeypatch, decoder: Decoder) -> None:
    device: Any = Anywhere()
    monkeypatch.setattr("backend.engine.model.graph_capture.CudaGraphs", lambda _: eager)
    monkeypatch.setattr("backend.engine.model.graph_capture.free_bytes", lambda _: 1e12)
    assert isinstance(with_cuda_graphs(decoder, device, rows=1, chunk_s=2), GraphedDecoder)
    assert with_cuda_graphs(decoder, CPU, rows=1, chunk_s=2) is decoder


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_captured_steps_compute_what_eager_ones_compute(recognizer, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        made = [with_cuda_graphs(recognizer.decoder, recognizer.model.device, rows=8, chunk_s=15) for _ in range(2)]
        assert all(isinstance(each, GraphedDecoder) for each in made)
        del made
        assert captured(recognizer.decoder, PLAN, CudaGraphs(recognizer.model.device)) is not None
    assert not caplog.records
