"""Transfers to the device keep values, shapes and dtypes."""

from __future__ import annotations

import numpy as np
import torch

from backend.engine.ops.transfer import send, send_arrays


def test_arrays_of_any_shape_arrive_as_they_are() -> None:
    arrays = np.arange(6).reshape(2, 3), np.array([7]), np.zeros((0, 4), np.int64), np.arange(8).reshape(2, 2, 2).T
    sent = send_arrays(torch.device("cpu"), *arrays)
    assert [each.tolist() for each in sent] == [each.tolist() for each in arrays]
    assert [tuple(each.shape) for each in sent] == [each.shape for each in arrays]


def test_the_dtype_changes_only_where_one_is_given() -> None:
    device = torch.device("cpu")
    assert send(torch.ones(2, dtype=torch.int64), device).dtype is torch.int64
    assert send(torch.ones(2), device, torch.bfloat16).dtype is torch.bfloat16
    assert send(torch.ones(2), torch.device("meta")).is_meta
