"""The kinds of a request's warnings, by which they are counted: the texts hold numbers and names, so they cannot be.

docs/operations.md lists the kinds; a test compares.
"""

from __future__ import annotations

from typing import Self

KINDS = (
    # of the file
    "damaged_file", "cancelled_channels", "unread_bytes", "several_tracks", "no_speech",
    # of passages
    "truncated_answer", "repetition_loop", "too_little_text", "other_language", "no_text", "prompt_leakage",
    "loop_collapsed", "still_truncated", "still_no_text", "already_sent", "realigned", "spread",
    "settled_early", "unrecognized",
    # of the request's language
    "asked_language",
    # of times
    "not_heard", "no_aligner", "aligner_unavailable", "aligner_failed", "aligner_language",
    "aligner_late",
    "other",
)  # fmt: skip


class RequestWarning(str):
    """A text of x-asr-warning, or a part of one, with its kinds: of KINDS, one or more."""

    kinds: tuple[str, ...]

    def __new__(cls, text: str, *kinds: str) -> Self:
        warning = super().__new__(cls, text)
        warning.kinds = kinds
        return warning


def kinds_of(text: str) -> tuple[str, ...]:
    """The kinds of a warning; ("other",) of a text without."""
    return text.kinds if isinstance(text, RequestWarning) else ("other",)
