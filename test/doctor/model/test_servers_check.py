"""The doctor and a load judge the same servers alike."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from backend.doctor.child_process import Report
from backend.doctor.model import servers_check
from backend.doctor.model.model_check import look_up_model
from backend.errors import LoadRefused
from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options
from backend.remote.remote_loader import load_remote
from backend.remote.server_report import report
from devtools.vllm_server import Asked, Said, VllmServer, tagged

DOWN = {"fault": "die"}
NO_KEY = "engine_api_key_env:NOT_SET"


def answer(asked: Asked) -> Said:
    return tagged("Good morning.", asked)


@pytest.mark.parametrize(
    ("made", "options", "levels", "words", "remedy"),
    [
        ([{}], [], ["OK"], "would be used", ""),
        ([{}, {}], [], ["OK", "OK"], "would be used", ""),
        ([DOWN], [], ["FAIL"], "cannot be reached", "check engine_url"),
        ([DOWN, {}], [], ["WARN", "OK"], "cannot be reached: a load leaves it out", "check engine_url"),
        ([{"key": "k"}, {}], [], ["FAIL", "OK"], "refuses the API key", "engine_api_key_env"),
        ([{"models": ("a", "b")}], [], ["FAIL"], "serves several models", "engine_model"),
        ([{"models": ("a", "b")}], ["engine_model:a"], ["OK"], "would be used", ""),
        ([{"has_template": False}, DOWN], [], ["FAIL", "WARN"], "does not go on", "--chat-template"),
        ([{"fault": "hang"}], ["engine_timeout_seconds:1"], ["FAIL"], "did not answer in time", "its log"),
        ([{"fault": "no language tag"}], [], ["WARN"], "without naming a language", "Qwen3-ASR"),
        ([{}], [NO_KEY], ["FAIL"], "engine_api_key_env", "docs/scale-out.md"),
    ],
)
def test_the_doctor_fails_what_a_load_refuses(made, options, levels, words: str, remedy: str, asr_folder: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(VllmServer(answer=answer, **each).running()) for each in made]
        pairs = [f"engine_url:{','.join(server.url for server in servers)}", *options]
        findings = servers_check.judge(Report(report(str(asr_folder), pairs)))
        assert [finding.level for finding in findings] == levels
        if NO_KEY not in options:
            assert all(server.url in finding.value for server, finding in zip(servers, findings, strict=True))
        assert words in findings[0].value
        assert remedy in findings[0].remedy
        assert all(finding.remedy for finding in findings if finding.level != "OK")
        load = with_options(LoadOptions(str(asr_folder)), pairs, "")
        if "FAIL" in levels:
            with pytest.raises(LoadRefused):
                load_remote(load)
        else:
            load_remote(load)


def test_what_ends_the_look_at_the_servers_is_the_finding() -> None:
    [finding] = servers_check.judge(Report(failure="no answer within 300 s"))
    assert (finding.level, finding.value) == ("FAIL", "failed: no answer within 300 s")
    [finding] = servers_check.judge(Report({"refusal": "the tokenizer lacks <asr_text>", "servers": []}))
    assert (finding.level, finding.value) == ("FAIL", "the tokenizer lacks <asr_text>")


@pytest.mark.slow
def test_the_servers_are_asked_by_a_process_of_its_own(asr_folder: Path) -> None:
    """With the key of its environment, and from a model that was named as on the command line."""
    with VllmServer(answer=answer).running() as server:
        model = look_up_model(LoadOptions(str(asr_folder), engine_urls=(server.url,)))
        found = servers_check.probe(model, [f"engine_url:{server.url}"], 10.0)
    assert found.failure == ""
    assert [finding.level for finding in servers_check.judge(found)] == ["OK"]
    assert [asked.language for asked in server.asked] == [None, "English"]
