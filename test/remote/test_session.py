"""The recogniser behind the Recognizer protocol, as the scheduler and live transcription use it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from backend.errors import RecognitionServersFailed
from backend.options.load_options import LoadOptions
from backend.remote.remote_loader import load_remote
from backend.serving.model_instance import Equipped, Lean
from backend.serving.protocols import Batching, Recognition, Utterance, recognize
from devtools.vllm_server import VllmServer, tagged

TAG = "language English<asr_text>"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.1, 0.1, round(seconds * 16_000)).astype(np.float32)


@pytest.fixture
def recognizer(vllm, asr_folder: Path):
    """`recognizer(server, ...)` over these."""

    def load(*servers: VllmServer, **options):
        urls = tuple(server.url for server in servers)
        return load_remote(LoadOptions("demo", model_file=str(asr_folder), engine_urls=urls, **options))

    return load


def test_each_utterance_gets_its_own_answer(vllm, recognizer) -> None:
    servers = [vllm(answer=lambda asked: tagged(f"{asked.samples.size} samples.", asked)) for _ in range(2)]
    utterances = [Utterance(noise(1 + number / 10), None, "", 64) for number in range(12)]
    texts = [recognition.text for recognition in recognize(recognizer(*servers), utterances)]
    assert texts == [f"{utterance.samples.size} samples." for utterance in utterances]


def test_sound_that_grows_is_decoded_with_its_last_answer(vllm, recognizer) -> None:
    """As live transcription does it: what two answers agree on is fixed, and begins the next one."""
    texts = iter(["The quick", "The quick brown fox", "The quick brown fox jumps"])
    server = vllm(answer=lambda asked: tagged("Noise.", asked))
    model = recognizer(server)
    said: list[str] = []
    server.answer = lambda asked: tagged(said[0], asked)
    draft: tuple[int, ...] = ()
    fixed = 0
    for seconds, text in enumerate(texts, start=1):
        said[:] = [text]
        utterance = Utterance(noise(seconds), None, "", 64, draft=draft, fixed=fixed)
        (recognition,) = recognize(model, [utterance])
        assert recognition.text == text
        assert model.spell(recognition.ids, None).text == text
        draft, fixed = recognition.ids, recognition.agreed
    assert [asked.beginning for asked in server.asked[-3:]] == ["", "", f"{TAG}The quick"]


def test_a_listener_is_told_more_and_more_tokens(vllm, recognizer) -> None:
    server = vllm(answer=lambda asked: tagged("The quick brown fox jumps over the lazy dog.", asked))
    model = recognizer(server)
    heard: list[tuple[int, ...]] = []
    server.fault = "slow"
    utterance = Utterance(noise(1), None, "", 64, listener=lambda ids: heard.append(tuple(ids)))
    (recognition,) = recognize(model, [utterance])
    assert len(heard) > 2
    assert [len(ids) for ids in heard] == sorted({len(ids) for ids in heard})
    assert all(recognition.text.startswith(model.spell(ids, None).text) for ids in heard)


def test_one_passage_that_fails_does_not_end_the_others(vllm, recognizer) -> None:
    server = vllm(answer=lambda asked: tagged("Fine.", asked))
    model = recognizer(server)
    session = model.session()
    bad, good = Utterance(noise(1), None, "bad", 64), Utterance(noise(1, 1), None, "good", 64)
    server.gate = lambda asked: setattr(server, "fault", "400 with samples" if asked.prompt == "bad" else "")
    results: dict[str, object] = {}
    for utterance in (bad, good):
        session.add([utterance])
        while len(session):
            results |= {ended.prompt: result for ended, result in session.step()}
    assert isinstance(results["bad"], RecognitionServersFailed)
    answered = results["good"]
    assert isinstance(answered, Recognition)
    assert answered.text == "Fine."


def test_batch_max_size_is_about_the_aligner_alone(loader, recognizer, vllm) -> None:
    model = recognizer(vllm(), vllm(), engine_concurrency=5)
    options = LoadOptions("demo", engine_urls=("http://a", "http://b"), batch_max_size=2)
    assert (model.batching, model.weight_bytes) == (Batching(rows=10), 0)
    assert Lean(options, model).recognition.max_batch == 10
    assert Equipped(options, model, loader.aligner).alignment.max_batch == 2
    assert Equipped(LoadOptions("demo", engine_urls=("http://a",)), model, loader.aligner).alignment.max_batch == 8


def test_a_server_is_known_by_number_and_url_in_the_log(vllm, recognizer, caplog) -> None:
    server = vllm()
    model = recognizer(server)
    server.fault = "500"
    with caplog.at_level(logging.WARNING), pytest.raises(RecognitionServersFailed):
        recognize(model, [Utterance(noise(1), None, "", 64)])
    assert f"recognition server 1 ({server.url}) failed" in caplog.text
