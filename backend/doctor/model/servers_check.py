"""The servers that `engine_url` names: whether each can be reached and used, by the proof that a load makes."""

from __future__ import annotations

from collections.abc import Sequence

from backend.doctor.child_process import Report, report_of
from backend.doctor.findings import Finding, fail, ok, warn
from backend.doctor.model.model_check import CheckpointFacts

_SMALL_FILES_S = 300.0  # to fetch and read the tokenizer
_ANSWERS = 4.0  # most waits for a server's answer in a proof, and one to spare


def probe(model: CheckpointFacts, pairs: Sequence[str], answer_timeout_s: float) -> Report:
    """`pairs`: the options. `answer_timeout_s`: engine_timeout_seconds."""
    timeout_s = _SMALL_FILES_S + _ANSWERS * answer_timeout_s
    return report_of("backend.remote.server_report", timeout_s, model.name, *pairs)


def judge(report: Report) -> list[Finding]:
    """`report`: of backend/remote/server_report.py."""
    refusal = report.facts.get("refusal", f"failed: {report.failure}")
    if refusal:
        return [fail("servers", refusal, "follow the cause; docs/scale-out.md has the options")]
    return [_server(number, **server) for number, server in enumerate(report.facts["servers"], start=1)]


def _server(number: int, *, url: str, cause: str, remedy: str, refuses: bool, has_tag: bool) -> Finding:
    name = f"server {number}"
    if refuses:
        return fail(name, f"{url} {cause}", remedy)
    if cause:
        return warn(name, f"{url} {cause}: a load leaves it out, and asks it again later", remedy)
    if not has_tag:
        return warn(name, f"{url} answered noise without naming a language", "check that it serves a Qwen3-ASR")
    return ok(name, f"{url} answers as it must, and would be used")
