"""What can be wrong with a server, as fixed texts: nothing that a server says is ever repeated.

Bodies of errors may hold samples of the recording, and the gateway acts on words such as "connection refused".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`cause`: what the server does, and `remedy`: what helps.

    `leaves_out`: the server gets no passages for a while. `is_setup`: no waiting helps, so a load is refused.
    """

    cause: str
    remedy: str
    leaves_out: bool = True
    is_setup: bool = False


class ServerFailure(Exception):
    """A server did not do what it was asked for."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.cause)
        self.fault = fault


UNREACHABLE = Fault("cannot be reached", "check engine_url, and that the server runs")
UNTRUSTED = Fault(
    "shows a certificate that is not trusted",
    "set SSL_CERT_FILE to that of its authority",
    is_setup=True,
)
TIMED_OUT = Fault("did not answer in time", "look at its log, or raise engine_timeout_seconds")
CUT_OFF = Fault("ended its answer in the middle", "look at its log")
BUSY = Fault("has too much to do", "lower engine_concurrency, or add servers to engine_url")
FAILED = Fault("failed", "look at its log")
WRONG_KEY = Fault("refuses the API key", "set engine_api_key_env or engine_api_key_file", is_setup=True)
NOT_FOUND = Fault("does not know the model or the way to it", "check engine_url and engine_model", is_setup=True)
REFUSED = Fault("refused a passage", "look at its log", leaves_out=False)
FOREIGN = Fault("answers as no vLLM server does", "check that engine_url names one", is_setup=True)
NO_MODEL = Fault("serves no model of that name", "set engine_model to what it serves", is_setup=True)
SEVERAL_MODELS = Fault("serves several models", "name one by engine_model", is_setup=True)
NOT_CONTINUED = Fault(
    "does not go on from a given language",
    "start it with --chat-template and deploy/qwen3-asr.jinja of this backend's sources",
    leaves_out=False,
    is_setup=True,
)
CANCELLED = Fault("is no longer asked", "", leaves_out=False)


def fault_of_status(status: int) -> Fault:
    """The fault of an HTTP status other than 200."""
    if status in (401, 403):
        return WRONG_KEY
    if status in (404, 405):
        return NOT_FOUND
    if status in (429, 503):
        return BUSY
    if status >= 500:
        return FAILED
    return REFUSED if status >= 400 else FOREIGN  # redirects are not followed: the key is meant for one server
