"""Checkpoints that are damaged, absurd or hostile are refused with their cause, without network and without leaks."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import struct
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from instances import lean_of
from safetensors.torch import load_file, save_file

from backend.audio.decoding.pool import DecoderPool
from backend.engine.loader import CheckpointLoader
from backend.engine.model.qwen_model import QwenModel
from backend.errors import CheckpointRefused
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.transcriber import Transcriber
from backend.serving.protocols import Recognizer
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler

pytestmark = pytest.mark.slow

connections: list[object] = []
watched: list[bool] = [False]


def _watch(event: str, arguments: tuple) -> None:
    if watched[0] and event in ("socket.connect", "socket.getaddrinfo"):
        connections.append(arguments[1] if event == "socket.connect" else arguments[0])


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def offline() -> Iterator[None]:
    """Fails a test in which a host name was looked up or a connection was made."""
    connections.clear()
    watched[0] = True
    yield
    watched[0] = False
    assert not connections


@pytest.fixture
def copy(asr_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(asr_folder, tmp_path / "copy"))


def load(folder: Path, **options) -> Recognizer:
    loader, wanted = CheckpointLoader(), LoadOptions(model=str(folder), threads=2, **options)
    loader.inspect(wanted)
    return loader.load_recognizer(wanted)


def edited(file: str, **keys: object) -> Callable[[Path], None]:
    """Sets keys of a JSON file; `a__b` is b inside a."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        for path, value in keys.items():
            *parents, last = path.split("__") if not path.startswith("_") else [path]
            part = content
            for parent in parents:
                part = part[parent]
            part[last] = value
        (folder / file).write_text(json.dumps(content))

    return edit


def written(file: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return edit


def removed(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def header(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes the header of the weights' file, and leaves its data as they are."""

    def edit(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        found = json.loads(data[8 : 8 + length])
        changed = change(found)
        text = changed if isinstance(changed, bytes) else json.dumps(found).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return edit


def twice(found: dict) -> bytes:
    return json.dumps(found).encode()[:-1] + b',"' + UP.encode() + b'":' + json.dumps(found[UP]).encode() + b"}"


UP = "thinker.model.layers.2.mlp.up_proj.weight"
DOWN = "thinker.model.layers.2.mlp.down_proj.weight"
NORM = "thinker.model.norm.weight"
UNREADABLE = r"config\.json .* cannot be read"
WORDS = ("tokenizer.json", "vocab.json", "merges.txt")
TEXT, SOUND = "thinker_config__text_config__", "thinker_config__audio_config__"


class Evil:
    def __reduce__(self) -> tuple:
        return os._exit, (99,)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    # code
    "auto_map in config.json": (edited("config.json", auto_map={"AutoModel": "evil.Model"}), "auto_map"),
    "auto_map deep inside": (edited("config.json", **{TEXT + "auto_map": {"AutoConfig": "x"}}), "auto_map"),
    "auto_map of the tokenizer": (edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["x", None]}), "auto_map"),
    "auto_map of the mel": (edited("preprocessor_config.json", auto_map={"AutoProcessor": "x"}), "auto_map"),
    "kernel": (edited("config.json", _attn_implementation_internal="evil/kernel"), "_attn_implementation_internal"),
    "kernel, too": (edited("config.json", _attn_implementation="evil/kernel"), "_attn_implementation"),
    "kernel by parts": (
        edited("config.json", attn_implementation={"text_config": "evil/kernel"}),
        "attn_implementation",
    ),
    "kernel inside": (edited("config.json", **{SOUND + "attn_implementation": "evil/k@main:f"}), "attn_implementation"),
    "kernel in generation": (edited("generation_config.json", _attn_implementation="evil/k"), "_attn_implementation"),
    "pickle": (
        lambda f: [removed("model.safetensors")(f), written("pytorch_model.bin", pickle.dumps(Evil()))(f)],
        "safetensors",
    ),
    "pickle by the name of weights": (written("model.safetensors", pickle.dumps(Evil())), "damaged"),
    "pickle in the index": (
        written("model.safetensors.index.json", b'{"weight_map": {"a": "pytorch_model.bin"}}'),
        "pytorch_model.bin is missing",
    ),
    # sizes
    "hidden_size 10^9": (edited("config.json", **{TEXT + "hidden_size": 10**9}), "hidden_size"),
    "hidden_size -1": (edited("config.json", **{TEXT + "hidden_size": -1}), "hidden_size"),
    "hidden_size text": (edited("config.json", **{TEXT + "hidden_size": "192"}), "hidden_size"),
    "hidden_size true": (edited("config.json", **{TEXT + "hidden_size": True}), "hidden_size"),
    "hidden_size 191": (
        edited("config.json", **{TEXT + "hidden_size": 191}),
        "its config says|not be loaded",
    ),
    "a million layers": (edited("config.json", **{TEXT + "num_hidden_layers": 10**6}), "num_hidden_layers"),
    "positions without end": (edited("config.json", **{SOUND + "max_source_positions": 10**9}), "max_source_positions"),
    "no heads": (edited("config.json", **{TEXT + "num_attention_heads": 0}), "num_attention_heads"),
    "n_fft": (edited("preprocessor_config.json", n_fft=10**9), "n_fft"),
    "hop of nothing": (edited("preprocessor_config.json", hop_length=0), "hop_length"),
    "mel of another size": (edited("preprocessor_config.json", feature_size=80), "128 mel bins"),
    "NaN in a config": (
        edited("config.json", **{TEXT + "hidden_size": float("nan")}),
        UNREADABLE,
    ),
    "digits without end": (written("config.json", b'{"a": ' + b"9" * 10_000 + b"}"), UNREADABLE),
    "brackets without end": (written("config.json", b"[" * 200_000), UNREADABLE),
    "config without end": (written("config.json", b" " * (1 << 25)), UNREADABLE),
    "config not UTF-8": (written("config.json", b"\xff\xfe{}"), UNREADABLE),
    "no thinker": (edited("config.json", thinker_config=None), "could not be loaded"),
    # weights
    "header of 2^60 bytes": (written("model.safetensors", struct.pack("<Q", 1 << 60) + b"{}"), "damaged"),
    "no bytes": (written("model.safetensors", b""), "model.safetensors is empty"),
    "header alone": (written("model.safetensors", struct.pack("<Q", 2) + b"{}"), "missing or incomplete"),
    "header is no JSON": (header(lambda _: b"x" * 100), "damaged"),
    "offsets outside": (header(lambda h: h[UP].update(data_offsets=[0, 1 << 40])), "cut short"),
    "offsets backwards": (header(lambda h: h[UP].update(data_offsets=[100, 0])), "damaged"),
    "overlap": (header(lambda h: h[UP].update(data_offsets=h[NORM]["data_offsets"])), "damaged"),
    "a tensor twice": (header(twice), "twice"),
    "shape of 2^62": (header(lambda h: h[UP].update(shape=[1 << 62, 4])), "damaged"),
    "unknown dtype": (header(lambda h: h[UP].update(dtype="F3")), "damaged"),
    "a missing tensor": (tensors(lambda t: t.pop(UP)), "lacks weights"),
    "another shape": (tensors(lambda t: t.update({UP: t[UP].T.contiguous()})), "lacks weights"),
    "no dimension": (tensors(lambda t: t.update({NORM: torch.zeros(())})), "lacks weights"),
    "eight bits": (tensors(lambda t: t.update({UP: t[UP].to(torch.int8)})), "quantised"),
    "booleans": (tensors(lambda t: t.update({UP: t[UP] > 0})), "quantised"),
    "NaN": (tensors(lambda t: t[DOWN].view(-1)[7].fill_(torch.nan)), DOWN),
    "infinity": (tensors(lambda t: t[UP].view(-1)[7].fill_(torch.inf)), UP),
    # the rest
    "no tokenizer": (
        lambda f: [removed(n)(f) for n in ("tokenizer.json", "vocab.json", "merges.txt")],
        "tokenizer.json .or vocab.json and merges.txt. is missing",
    ),
    "tokenizer cut short": (lambda f: os.truncate(f / "tokenizer.json", 1000), "tokenizer.json is cut short"),
    "no preprocessor": (removed("preprocessor_config.json"), "preprocessor_config.json is missing"),
    "no generation config": (removed("generation_config.json"), "could not be loaded"),
    "no end": (edited("generation_config.json", eos_token_id=None), "ends an answer"),
    "an end that is no token": (edited("generation_config.json", eos_token_id=[10**6]), "ends an answer"),
    "samples at another rate": (edited("preprocessor_config.json", sampling_rate=8000), "16000 samples a second"),
    "an activation": (edited("config.json", **{SOUND + "activation_function": "relu"}), "'relu' is not known"),
    "the decoder's activation": (edited("config.json", **{TEXT + "hidden_act": "gelu"}), "'gelu' is not known"),
    "positions": (edited("config.json", **{TEXT + "rope_scaling": {"rope_type": "yarn"}}), "type 'yarn'"),
    "windows of nothing": (edited("config.json", **{SOUND + "n_window_infer": 99}), "'n_window_infer'"),
    "heads that do not divide": (edited("config.json", **{TEXT + "num_key_value_heads": 4}), "no multiple of"),
    "no norm": (edited("config.json", **{TEXT + "rms_norm_eps": 0}), "'rms_norm_eps'"),
    "no audio token": (edited("config.json", thinker_config__audio_token_id="541"), "'audio_token_id'"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_bad_checkpoint_is_refused_with_its_cause(copy: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(copy)
    with pytest.raises(CheckpointRefused, match=said) as caught:
        load(copy, dtype="float32")
    assert len(str(caught.value)) < 600


def test_activations_that_overflow_are_found_by_the_first_transcription(copy: Path) -> None:
    tensors(lambda t: [weights.fill_(6e4) for name, weights in t.items() if "down_proj" in name])(copy)
    with pytest.raises(CheckpointRefused, match=r"NaN or inf logits .* torch_dtype:fp32"):
        load(copy, dtype="float16")


def test_weights_that_are_too_large_for_the_dtype_are_named(copy: Path) -> None:
    tensors(lambda t: t.update({UP: t[UP].to(torch.float32) * 1e30}))(copy)
    with pytest.raises(CheckpointRefused, match=f"{UP}.* too large for float16"):
        load(copy, dtype="float16")


def test_a_refused_model_does_not_stay_in_memory(copy: Path, asr_folder: Path) -> None:
    BAD["NaN"][0](copy)
    before = _models()
    with pytest.raises(CheckpointRefused, match=DOWN):
        load(copy)
    gc.collect()
    assert _models() == before
    assert load(asr_folder).weight_bytes > 4_000_000


async def test_after_every_bad_load_the_old_model_transcribes_as_before(
    copy: Path, asr_folder: Path, recordings: Path, decoder_pool: DecoderPool
) -> None:
    """Through the resident models and the transcriber, as LoadModel and a request go."""
    resident, scheduler = Resident(CheckpointLoader()), Scheduler()
    transcriber = Transcriber(resident, scheduler, decoder_pool)
    good = LoadOptions(model=str(asr_folder), threads=2)
    await resident.load(good)
    recognizer = weakref.ref(lean_of(resident).recognizer)
    before = await transcriber.transcribe(str(recordings / "demo.wav"), TranscribeOptions())
    assert before.text == json.loads((recordings / "demo.json").read_text())["text"]
    BAD["auto_map of the mel"][0](copy)
    with pytest.raises(CheckpointRefused, match="auto_map"):
        await resident.load(LoadOptions(model=str(copy)))
    assert lean_of(resident).recognizer is recognizer()  # the old model was not dropped for it
    shutil.copy(asr_folder / "preprocessor_config.json", copy)
    BAD["NaN"][0](copy)
    with pytest.raises(CheckpointRefused, match=DOWN):
        await resident.load(LoadOptions(model=str(copy)))
    assert resident.identity == str(asr_folder)
    assert await transcriber.transcribe(str(recordings / "demo.wav"), TranscribeOptions()) == before
    shutil.copy(asr_folder / "model.safetensors", copy)
    await resident.load(LoadOptions(model=str(copy), threads=2))
    assert await transcriber.transcribe(str(recordings / "demo.wav"), TranscribeOptions()) == before
    scheduler.stop()


def _models() -> int:
    gc.collect()
    return sum(type(o) is QwenModel for o in gc.get_objects())


def test_a_good_checkpoint_may_name_a_known_attention_implementation(copy: Path) -> None:
    edited("config.json", attn_implementation="sdpa")(copy)
    assert load(copy).weight_bytes > 4_000_000


def test_pickled_files_beside_good_weights_are_not_opened(copy: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (copy / name).write_bytes(pickle.dumps(Evil()))
    assert load(copy).weight_bytes > 4_000_000


@pytest.mark.parametrize("template", [b"{{ raise_exception('x') }}", b"{{ ''.__class__.__mro__[1].__subclasses__() }}"])
def test_a_chat_template_is_a_program_and_not_run(copy: Path, template: bytes) -> None:
    written("chat_template.jinja", template)(copy)
    assert load(copy).weight_bytes > 4_000_000
