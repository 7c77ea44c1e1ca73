"""Where two decodes of the same sound part."""

from __future__ import annotations

import pytest

from backend.sequences.agreement import common_prefix


@pytest.mark.parametrize(
    ("first", "second", "agreed"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([4], [5], 0), ([1, 2], (1, 2), 2)],
)
def test_the_equal_tokens_at_the_front_are_counted(first, second, agreed: int) -> None:
    assert common_prefix(first, second) == common_prefix(second, first) == agreed
