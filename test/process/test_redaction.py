from __future__ import annotations

import soundfile

from backend.errors import OutOfMemory
from backend.process.redaction import redacted_traceback

SECRET = "/tmp/secret name.wav"


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        try:
            if cause is not None:
                raise cause
        finally:
            raise error
    except Exception as caught:  # noqa: BLE001 - whatever the test raised
        return caught


def test_a_traceback_has_frames_and_kinds_but_nothing_of_the_client() -> None:
    shown = redacted_traceback(raised(ValueError(SECRET), FileNotFoundError(2, "No such file or directory", SECRET)))
    assert "secret" not in shown
    assert "FileNotFoundError: ENOENT, No such file or directory" in shown
    assert shown.index("FileNotFoundError") < shown.index("ValueError")
    assert "test_redaction.py" in shown
    assert "in raised" in shown


def test_library_messages_about_their_input_are_left_out() -> None:
    for error in (
        KeyError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        soundfile.LibsndfileError(2, SECRET),  # a RuntimeError, too
        OSError(SECRET),
        type("Foreign", (OSError,), {"__module__": "av.error"})(1, SECRET),
    ):
        assert "secret" not in redacted_traceback(raised(error)), error


def test_what_the_system_refused_is_kept_whoever_raised_it() -> None:
    foreign = type("Foreign", (OSError,), {"__module__": "av.error"})(28, SECRET)
    for error in (OSError(28, "No space left on device", SECRET), foreign, ValueError(f"{SECRET} (os error 28)")):
        shown = redacted_traceback(raised(error))
        assert shown.endswith(": ENOSPC, No space left on device")
        assert "secret" not in shown
    assert redacted_traceback(raised(ModuleNotFoundError("No module named 'grpc'", name="grpc"))).endswith("'grpc'")


def test_messages_about_the_machine_are_kept() -> None:
    assert redacted_traceback(raised(RuntimeError("CUDA error: illegal address"))).endswith(
        "RuntimeError: CUDA error: illegal address"
    )
    assert "out of memory for this request" in redacted_traceback(raised(OutOfMemory()))


def test_a_cyclic_chain_of_causes_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    assert redacted_traceback(first).count("ValueError") == 1
