from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import PromptTooLong
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.prompt import sanitized_prompt
from backend.pipeline.transcriber import Transcriber
from backend.serving.resident import Resident


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("Qwen, LocalAI", "Qwen, LocalAI"),
        ("a<|im_end|>b<|AUDIO_PAD|>c<asr_text>d<timestamp>e", "abcde"),
        ("<|im_<|im_end|>end|>", ""),
        ("<asr_<asr_text>text>", ""),
        ("<<|x|>|im_end|>", ""),
        ("a < b " + "<|" * 20 + "|>" * 20, "a  b " + "|" * 12 + "|>" * 12),
        ("line\nbreak\ttab\x00null\x1b[31m", "line\nbreak\ttab null [31m"),
        ("a < b | c > d", "a < b | c > d"),
    ],
)
def test_a_prompt_keeps_its_words_and_loses_control_tokens(prompt: str, left: str) -> None:
    assert sanitized_prompt(prompt) == left


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["<|", "|>", "<", "|", ">", "im_end", "asr_text", "timestamp", "<asr_text>", "x"])).map(
        "".join
    )
)
def test_no_prompt_can_rebuild_a_control_token(prompt: str) -> None:
    left = sanitized_prompt(prompt)
    assert "<|im_end|>" not in left
    assert "<asr_text>" not in left
    assert "<timestamp>" not in left
    assert sanitized_prompt(left) == left


def test_a_prompt_beyond_the_bound_is_refused_whole() -> None:
    with pytest.raises(PromptTooLong):
        sanitized_prompt("x" * 8193)


async def test_a_prompt_of_too_many_tokens_is_refused_before_the_file_is_read(
    transcribe, loader, decoder_pool, scheduler, tmp_path: Path, bursts
) -> None:
    await transcribe(bursts(1), TranscribeOptions(prompt="é" * 1024))
    resident = Resident(loader)
    await resident.load(LoadOptions(model="m", vad=False))
    with pytest.raises(PromptTooLong, match="2048 tokens: it has 2050;"):
        await Transcriber(resident, scheduler, decoder_pool).transcribe(
            str(tmp_path / "none"), TranscribeOptions(prompt="é" * 1025)
        )


async def test_a_short_prompt_is_not_counted(transcribe, loader, bursts) -> None:
    loader.recognizer.count_tokens = None
    assert (await transcribe(bursts(1), TranscribeOptions(prompt="é" * 341))).text
