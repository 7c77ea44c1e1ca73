"""What a load over servers proves, refuses and says."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from backend.chat_format.prompt_format import PROMPT
from backend.errors import InvalidOption
from backend.options.load_options import LoadOptions
from backend.remote import servers as servers_module
from backend.remote.api_key import ApiKey, read_api_key
from devtools.vllm_server import Asked, Said, VllmServer, tagged

TEMPLATE = Path(__file__).parents[2] / "deploy/qwen3-asr.jinja"
KEY = "sk-hunter2"


def answer(asked: Asked) -> Said:
    return tagged("Good morning.", asked)


async def refusal(backend, servers: list[VllmServer], *options: str, **fields) -> str:
    with pytest.raises(AssertionError) as caught:
        await backend(servers, *options, **fields)
    text = str(caught.value)
    for harmful in ("connection refused", "connection reset", "no such host", "unavailable", KEY):
        assert harmful not in text.lower()
    return text


@pytest.mark.parametrize(
    ("made", "options", "cause"),
    [
        ({"key": "other"}, ["engine_api_key_env:TEST_KEY"], "refuses the API key.*engine_api_key"),
        ({"key": "other"}, [], "refuses the API key"),
        ({"models": ("a", "b")}, [], "several models.*engine_model"),
        ({"models": ()}, [], "as no vLLM server does"),
        ({"models": ("a",)}, ["engine_model:b"], "no model of that name"),
        ({"has_template": False}, [], "--chat-template"),
        ({"fault": "starts anew"}, [], "--chat-template"),
        ({"fault": "web page"}, [], "as no vLLM server does"),
        ({"fault": "die"}, [], "cannot be reached"),
        ({"fault": "hang"}, ["engine_timeout_seconds:1"], "did not answer in time"),
        ({}, ["engine_api_key_env:NOT_SET"], "engine_api_key_env"),
        ({}, ["engine_api_key_file:/nowhere/key"], "engine_api_key_file"),
    ],
)
async def test_a_load_that_cannot_work_is_refused_with_the_remedy(
    vllm, backend, monkeypatch, made: dict, options: list[str], cause: str
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    assert re.search(cause, await refusal(backend, [vllm(**made)], *options))
    if made.get("fault") not in ("die", "hang"):  # these may come back
        assert re.search(cause, await refusal(backend, [vllm(**made), vllm(key=made.get("key", ""))], *options))


async def test_a_server_that_is_down_at_the_load_joins_later(vllm, backend, wav, log, monkeypatch) -> None:
    monkeypatch.setattr(servers_module, "LEFT_OUT_S", 0.05)
    late = VllmServer(answer=answer)
    with late.running():
        pass
    up = vllm(answer=answer)
    service = await backend([late, up])
    assert "cannot be reached" in log.text
    assert (await service.transcribe(wav())).text == "Good morning."
    with late.running(late.port):
        while len(late.asked) < 3:  # two were its proof
            await service.transcribe(wav())
    assert "answers again" in log.text


async def test_one_of_several_models_is_named(vllm, backend, wav) -> None:
    server = vllm(models=("a", "b"), answer=answer)
    service = await backend([server], "engine_model:b")
    assert (await service.transcribe(wav())).text == "Good morning."
    assert {asked.fields["model"] for asked in server.asked} == {"b"}


async def test_the_key_is_read_from_a_file(vllm, backend, wav, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    server = vllm(key=KEY, answer=answer)
    service = await backend([server], f"engine_api_key_file:{tmp_path / 'key'}")
    assert (await service.transcribe(wav())).text == "Good morning."


@pytest.mark.parametrize("content", ["", "\n", "a\rb", "\x00", "schlüssel", "x" * 5000])
def test_what_is_no_key_is_refused_and_not_shown(content: str) -> None:
    with pytest.raises(InvalidOption, match="engine_api_key_env") as caught:
        read_api_key(LoadOptions("m", engine_api_key_env="K"), {"K": content})
    assert "schl" not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    assert KEY not in repr(ApiKey(KEY))
    assert ApiKey(KEY).headers == {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("as_text", [True, False])
def test_the_template_for_the_servers_makes_the_models_own_prompt(as_text: bool) -> None:
    """vLLM gives a template either texts or lists of parts, by what it finds in it."""
    audio = "<|audio_start|><|audio_pad|><|audio_end|>"

    def content(text: str) -> object:
        return text if as_text else [{"type": "text", "text": text}]

    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text())
    messages = [
        {"role": "system", "content": content("Names: Fox")},
        {"role": "user", "content": audio if as_text else [{"type": "audio"}]},
    ]
    prompt = PROMPT.format(system="Names: Fox")
    assert template.render(messages=messages, add_generation_prompt=True) == prompt
    beginning = "language English<asr_text>The quick"
    messages.append({"role": "assistant", "content": content(beginning)})
    rendered = template.render(messages=messages, add_generation_prompt=False)
    assert rendered[: rendered.rindex(beginning) + len(beginning)] == prompt + beginning  # as transformers cuts it
