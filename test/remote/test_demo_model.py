"""The demo's own recogniser behind a server: what arrives there and what comes back is what a local model has."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from backend.engine.loader import CheckpointLoader
from backend.languages import code_of_name
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Utterance, recognize
from devtools import compare_vllm, scale_out
from devtools.vllm_server import Asked, Said


@pytest.fixture(scope="module")
def spoken(request):
    """Answers of the demo's recogniser, one at a time."""
    folder = request.getfixturevalue("asr_folder")
    model = CheckpointLoader().load_recognizer(LoadOptions("demo", model_file=str(folder), dtype="float32", threads=1))
    one_at_a_time = threading.Lock()

    def answer(asked: Asked) -> Said:
        language = code_of_name(asked.language) if asked.language else None
        with one_at_a_time:
            (said,) = recognize(model, [Utterance(asked.samples, language, asked.prompt, asked.max_tokens)])
        text = model.processor.tokenizer.decode(list(said.ids), skip_special_tokens=False)
        return Said(text, "stop" if said.finished else "length")

    return answer


@pytest.mark.slow
def test_texts_are_those_of_a_local_model(vllm, spoken, recordings: Path, capsys) -> None:
    """Recordings, with and without a forced language and a prompt; eight at once; streams."""
    servers = [vllm(answer=spoken) for _ in range(2)]
    urls = ",".join(server.url for server in servers)
    files = [str(recordings / name) for name in ("demo.wav", "chinese.wav", "noise.wav")]
    assert compare_vllm.main([urls, *files]) == 0, capsys.readouterr().out
    assert "0 of 17 transcripts differ" in capsys.readouterr().out


@pytest.mark.slow
def test_another_text_is_found(vllm, spoken, recordings: Path, capsys) -> None:
    def answer(asked: Asked) -> Said:
        said = spoken(asked)
        return Said(re.sub("fox", "ox", said.text), said.finish)

    assert compare_vllm.main([vllm(answer=answer).url, str(recordings / "demo.wav")]) == 1
    assert "brown ox" in capsys.readouterr().out


def test_the_speed_of_several_servers_is_measured(capsys) -> None:
    """Of servers that take no time, so the figure says nothing."""
    few = ["--servers", "2", "--concurrency", "2", "--waves", "1", "--seconds", "0", "--runs", "1"]
    assert scale_out.main(few) == 0
    assert "2 servers" in capsys.readouterr().out
