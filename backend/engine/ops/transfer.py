"""From the host to the device, where possible without waiting for what the device has still to do."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def send(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The host's tensor on the device, in `dtype` or its own.

    CUDA reads memory that is not pinned before the call returns, so the tensor may be freed or changed at once. Other
    devices may read later, so there the call waits.
    """
    return tensor.to(device, dtype or tensor.dtype, non_blocking=device.type == "cuda")


def send_arrays(device: torch.device, *arrays: NDArray[np.int64]) -> list[torch.Tensor]:
    """The arrays on the device, by one copy."""
    sent = send(torch.from_numpy(np.concatenate([array.ravel() for array in arrays])), device)
    parts = torch.split(sent, [array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
