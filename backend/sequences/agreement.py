"""How far two decodes of the same sound agree: LocalAgreement (Liu et al. 2020) over tokens."""

from __future__ import annotations

from collections.abc import Sequence


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """With how many equal tokens both begin."""
    shorter = min(len(first), len(second))
    return next((at for at in range(shorter) if first[at] != second[at]), shorter)
