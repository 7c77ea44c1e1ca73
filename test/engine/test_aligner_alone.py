"""Which loads align known texts: a model that is only an aligner, and which combinations are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from backend.engine.loader import CheckpointLoader
from backend.errors import CheckpointRefused, LoadRefused
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Passage


@pytest.mark.parametrize(
    ("model", "fields", "kind"),
    [
        ("asr", {}, "recognizer"),
        ("asr", {"task": "transcribe"}, "recognizer"),
        ("asr", {"task": "align", "forced_aligner": "aligner"}, "recognizer"),
        ("aligner", {}, "aligner"),
        ("aligner", {"task": "align"}, "aligner"),
    ],
)
def test_the_checkpoint_says_what_a_model_does(recordings, model, fields, kind) -> None:
    models = recordings.parent / "models"
    if "forced_aligner" in fields:
        fields = fields | {"forced_aligner": str(models / fields["forced_aligner"])}
    assert CheckpointLoader().inspect(LoadOptions(str(models / model), **fields)) == kind


@pytest.mark.parametrize(
    ("model", "fields", "said"),
    [
        ("asr", {"task": "align"}, "option 'task' align needs the option forced_aligner, such as Qwen/"),
        (
            "aligner",
            {"task": "transcribe"},
            "name it in the option forced_aligner, and Qwen/Qwen3-ASR-0.6B as the model",
        ),
        (
            "aligner",
            {"forced_aligner": "x/y"},
            "option 'forced_aligner' is one too many: the model is an aligner itself",
        ),
        ("aligner", {"quantization": "int8"}, "int8 is for recognisers"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_remedy(recordings, model, fields, said) -> None:
    folder = recordings.parent / "models" / model
    with pytest.raises(LoadRefused) as caught:
        CheckpointLoader().inspect(LoadOptions(str(folder), **fields))
    assert said in str(caught.value)


def test_an_aligner_alone_whose_files_do_not_fit_each_other_is_refused_at_the_load(
    aligner_folder, tmp_path: Path
) -> None:
    folder = tmp_path / "aligner"
    shutil.copytree(aligner_folder, folder)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, "feature_size": 80}))
    with pytest.raises(CheckpointRefused):
        CheckpointLoader().load_aligner(LoadOptions(str(folder), dtype="float32"))


def test_words_that_are_not_spoken_have_no_certainty(aligner_folder, demo) -> None:
    aligner = CheckpointLoader().load_aligner(LoadOptions(str(aligner_folder), dtype="float32"))
    words = tuple(word for word, _, _ in demo["words"])
    samples = demo["samples"]
    (said, too_much) = (
        aligner.align([Passage(samples, "", "en", units)])[0] for units in (words, words + ("nine", "red") * 11)
    )
    assert np.mean([unit.certainty for unit in said]) > 0.8
    assert np.mean([unit.certainty for unit in too_much[len(words) + 2 :]]) < 0.3
    assert all(0 <= unit.certainty <= 1 + 1e-6 for unit in too_much)


@pytest.fixture
def demo(recordings) -> dict:
    import soundfile

    truth = json.loads((recordings / "demo.json").read_text())
    samples, _ = soundfile.read(recordings / "demo.wav", dtype="float32")
    return {**truth, "samples": samples}
