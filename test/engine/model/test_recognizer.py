"""How an answer of the recogniser ends: at an end token, at its token budget, or in a loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from backend.audio import waveform
from backend.engine.loader import CheckpointLoader
from backend.engine.model.recognizer import QwenRecognizer
from backend.options.load_options import LoadOptions
from backend.serving.protocols import SAMPLE_RATE, Utterance


@pytest.fixture(scope="module")
def endless(asr_folder: Path) -> QwenRecognizer:
    """The demo recogniser with an end token that it never generates."""
    recognizer = CheckpointLoader().load_recognizer(LoadOptions(model=str(asr_folder), dtype="float32"))
    recognizer.eos_ids = [10**6]
    return recognizer


@pytest.fixture(scope="module")
def pangram(recordings: Path) -> Utterance:
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    return Utterance(samples[: round(6.3 * 16_000)], None, "", 400)


def test_samples_have_the_rate_that_the_mel_features_are_computed_for(recognizer) -> None:
    assert SAMPLE_RATE == waveform.SAMPLE_RATE == 16_000


# Of Qwen3-ASR's published checkpoints, for a system message and one recording.
RENDERED = (
    "<|im_start|>system\nfox {and} {{ dog }}<|im_end|>\n"
    "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)


def test_the_prompt_is_what_the_chat_templates_render(recognizer, package_processor, pangram) -> None:
    utterance = replace(pangram, prompt="fox {and} {{ dog }}")
    messages = [
        {"role": "system", "content": utterance.prompt},
        {"role": "user", "content": [{"type": "audio", "audio": ""}]},
    ]
    rendered = package_processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert recognizer._prompt(utterance) == rendered == RENDERED
    assert recognizer._prompt(replace(utterance, language="zh")) == RENDERED + "language Chinese<asr_text>"


def test_a_model_that_never_ends_is_stopped_in_its_loop_far_below_its_token_budget(endless, pangram) -> None:
    (found,) = endless.recognize([pangram])
    assert found.text.startswith("The quick brown fox jumps over the lazy dog.")
    assert found.looped
    assert not found.finished
    assert len(found.tokens) < 100


def test_a_short_or_penalised_row_does_not_change_its_neighbours(recognizer, endless, pangram) -> None:
    short = replace(pangram, max_new_tokens=8)
    penalised = replace(pangram, repetition_penalty=1.1)
    cut, whole, again = recognizer.recognize([short, pangram, penalised])
    assert (cut.text, cut.finished, cut.looped) == ("The quick brown fox jumps", False, False)
    assert whole == recognizer.recognize([pangram])[0]
    assert whole.finished
    assert again.text == whole.text


@pytest.mark.parametrize("tag", ["language English", "language None", "language"])
def test_an_answer_that_was_cut_inside_its_tag_has_no_text(recognizer, pangram, tag: str) -> None:
    ids = recognizer.processor.tokenizer.encode(tag).ids
    assert recognizer._parse_answer(pangram, ids, False, False).text == ""
    forced = replace(pangram, language="en")
    assert recognizer._parse_answer(
        forced, ids, False, False
    ).text  # with a forced language there is no tag, and this is the text
