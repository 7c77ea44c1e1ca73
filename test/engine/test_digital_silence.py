"""Zeros around speech, as files have them, add no word to what the demo recogniser hears."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from backend.audio.chunks import split
from backend.audio.vad import Speech, SpeechRules, all_speech, detect
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Utterance

RATE = 16_000
SHORT_S = 8.0


@pytest.fixture(scope="module")
def spoken(recordings: Path) -> list[tuple[np.ndarray, str]]:
    """The demo set's short recordings, and a command of three words that begins demo.wav's third sentence."""
    entries = [json.loads(line) for line in (recordings / "manifest.jsonl").read_text().splitlines()]
    found = [(soundfile.read(recordings / e["audio"], dtype="float32")[0], e["text"]) for e in entries if e["text"]]
    return [(samples, text) for samples, text in found if samples.size < SHORT_S * RATE]


def speech_in(samples: np.ndarray, load: LoadOptions) -> Speech:
    if not load.vad:
        return all_speech(samples)
    rules = SpeechRules.of(load)
    return asyncio.run(detect(samples, rules))


@pytest.mark.parametrize("vad", [True, False], ids=["vad", "no vad"])
@pytest.mark.parametrize("margin_s", [0.3, 1.0, 2.0, 20.0])
def test_zeros_on_both_sides_change_no_word(recognizer, spoken, margin_s: float, vad: bool) -> None:
    load = LoadOptions(model="", vad=vad)
    zeros = np.zeros(round(margin_s * RATE), np.float32)
    heard: list[str] = []
    for samples, _ in spoken:
        padded = np.concatenate([zeros, samples, zeros])
        chunks = split(padded, max_s=recognizer.chunk_s, speech=speech_in(padded, load), margin_s=load.vad_margin_s)
        answers = recognizer.recognize([Utterance(chunk.samples, None, "", 380) for chunk in chunks])
        heard.append(" ".join(filter(None, (answer.text for answer in answers))))
    assert heard == [text for _, text in spoken]
