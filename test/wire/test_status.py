from __future__ import annotations

import inspect

import grpc
import pytest

from backend import errors
from backend.wire.status import STATUS, retry_after_s, status_of

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.AsrError)]


def test_every_error_has_a_status() -> None:
    for kind in ALL:
        if kind is not errors.AsrError:
            assert any(above in STATUS for above in kind.__mro__), kind
            assert isinstance(status_of(kind.__new__(kind)), grpc.StatusCode)


def test_the_codes_that_make_the_gateway_drop_a_model_are_kept_for_what_they_mean() -> None:
    assert grpc.StatusCode.UNAVAILABLE not in STATUS.values()
    assert [k for k, code in STATUS.items() if code is grpc.StatusCode.FAILED_PRECONDITION] == [errors.ModelNotLoaded]
    assert [k for k, code in STATUS.items() if code is grpc.StatusCode.NOT_FOUND] == [errors.IdentityMismatch]


def test_no_fixed_message_holds_a_text_that_the_gateway_acts_on() -> None:
    fixed = [kind() for kind in ALL if "__init__" in vars(kind) and len(inspect.signature(kind).parameters) == 0]
    assert len(fixed) >= 7
    for error in fixed:
        for text in ("connection refused", "connection reset", "no such host", "model identity mismatch"):
            assert text not in str(error)
        assert ("model not loaded" in str(error)) == isinstance(error, errors.ModelNotLoaded)


@pytest.mark.parametrize(
    ("error", "backlog_s", "after_s"),
    [
        (errors.Overloaded(), 0.0, 2),
        (errors.Overloaded(), 41.2, 42),
        (errors.TooLittleAudioMemory(), 7.0, 7),
        (errors.Overloaded(), 1e9, 600),
        (errors.Stopping(), 41.2, 5),
        (errors.OutOfMemory(), 41.2, 0),
        (errors.UnsupportedLanguage(["en"]), 41.2, 0),
        (errors.ModelNotLoaded(), 41.2, 0),
        (errors.EngineFailure(), 41.2, 0),
    ],
)
def test_only_what_passes_by_itself_is_worth_another_try(
    error: errors.AsrError, backlog_s: float, after_s: int
) -> None:
    assert retry_after_s(error, backlog_s) == after_s
