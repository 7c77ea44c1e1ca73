"""A tiny model in the real architecture: config, tokenizer, processor, all by the package's own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from qwen_asr.core.transformers_backend import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2TokenizerFast, WhisperFeatureExtractor

from devtools.demo_models.vocabulary import CHINESE, ENGLISH, NAMES
from devtools.demo_models.windows import use_windows

Kind = Literal["asr", "aligner"]

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>")
NOT_SPECIAL = ("<asr_text>", "<timestamp>")  # skip_special_tokens must keep <asr_text>: it ends the language
CLASS_MS = 80
CLASSES = 1000  # 80 s: more than any default chunk
CHUNK_S = 15  # seconds: the recogniser loses its place in longer passages; the real checkpoints have 30
HIDDEN, HEAD = 192, 32

# As in Qwen3-ASR's own checkpoint: system = context, user = the audio.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for m in messages if m.role == 'system' -%}"
    "{%- if m.content is string -%}{%- set ns.system = m.content -%}"
    "{%- else -%}{%- for c in m.content if c.type == 'text' -%}{%- set ns.system = ns.system + c.text -%}{%- endfor -%}"
    "{%- endif -%}{%- endfor -%}"
    "{{ '<|im_start|>system\\n' + ns.system + '<|im_end|>\\n' }}"
    "{%- for m in messages if m.role == 'user' -%}{{ '<|im_start|>user\\n' }}"
    "{%- if m.content is not string -%}{%- for c in m.content if c.type == 'audio' -%}"
    "{{ '<|audio_start|><|audio_pad|><|audio_end|>' }}{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def make_tokenizer() -> Qwen2TokenizerFast:
    """Byte-level BPE trained on the vocabulary alone: every word is one token in every spelling it occurs in."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    core.decoder = decoders.ByteLevel()
    spellings = [s for word in ENGLISH for s in (word, word.capitalize(), f" {word}", f" {word.capitalize()}")]
    protocol = ["system", "user", "assistant", "language", " None", *(f" {name}" for name in NAMES.values())]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator([*spellings, *protocol, *CHINESE, "。"], trainer)
    tokenizer = as_qwen(core)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL])
    return tokenizer


def as_qwen(core: Tokenizer) -> Qwen2TokenizerFast:
    """A tokenizer with the special tokens that the package's processor needs."""
    audio = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
        extra_special_tokens=audio,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return tokenizer


def make_processor() -> Qwen3ASRProcessor:
    mel = {"feature_size": 128, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
    features = WhisperFeatureExtractor(**mel, chunk_length=CHUNK_S)
    return Qwen3ASRProcessor(features, make_tokenizer(), chat_template=CHAT_TEMPLATE)


def make_config(kind: Kind, tokenizer: Qwen2TokenizerFast) -> Qwen3ASRConfig:
    token_id = tokenizer.convert_tokens_to_ids
    is_tied = kind == "asr"
    layers = {"hidden_size": HIDDEN, "intermediate_size": 512, "num_hidden_layers": 4, "tie_word_embeddings": is_tied}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": HEAD}
    # Half of the frequencies hardly rotate over a prompt, for attention by content; the others encode position
    rope = {"rope_type": "default", "mrope_section": [8, 4, 4], "interleaved": True}
    positions = {"max_position_embeddings": 8192, "rope_theta": 1_000_000.0, "rope_scaling": rope}
    tower = {"encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 384, "d_model": 128}
    windows = {"n_window": 50, "n_window_infer": 800}
    ids = {"audio": "<|audio_pad|>", "audio_start": "<|audio_start|>", "audio_end": "<|audio_end|>", "user": "user"}
    thinker: dict[str, Any] = {
        "text_config": {"vocab_size": len(tokenizer), **layers, **heads, **positions},
        "audio_config": {**tower, **windows, "num_mel_bins": 128, "downsample_hidden_size": 24, "output_dim": HIDDEN},
        **{f"{name}_token_id": token_id(token) for name, token in (ids | {"pad": "<|endoftext|>"}).items()},
        "tie_word_embeddings": is_tied,
    }
    architectures = ["Qwen3ASRForConditionalGeneration"]
    top: dict[str, Any] = {"support_languages": [*NAMES.values()], "architectures": architectures}
    if kind == "aligner":
        thinker |= {"model_type": "qwen3_forced_aligner", "classify_num": CLASSES}
        top |= {"timestamp_token_id": token_id("<timestamp>"), "timestamp_segment_time": CLASS_MS}
    config = Qwen3ASRConfig(thinker_config=thinker, **top)
    if kind == "aligner":  # an instance attribute: the package knows an aligner by its thinker's model_type
        config.thinker_config.model_type = "qwen3_forced_aligner"
    config._attn_implementation = "sdpa"
    return config


def make_model(kind: Kind, tokenizer: Qwen2TokenizerFast) -> Qwen3ASRForConditionalGeneration:
    """An untrained model of about 2.5 M parameters whose encoder attends inside its windows."""
    model = Qwen3ASRForConditionalGeneration(make_config(kind, tokenizer))
    if kind == "asr":
        model.thinker.lm_head.weight = model.thinker.model.embed_tokens.weight
    return prepare_for_training(model)


def prepare_for_training(model: Qwen3ASRForConditionalGeneration) -> Qwen3ASRForConditionalGeneration:
    """Windowed attention in the encoder, and a memory layout in which its convolutions train twice as fast on a CPU."""
    use_windows(model)
    model.thinker.audio_tower.to(memory_format=torch.channels_last)
    return model


def save(folder: Path, kind: Kind, model: Qwen3ASRForConditionalGeneration, processor: Qwen3ASRProcessor) -> None:
    """Writes the checkpoint as the real one lies on the hub, but in float16: safetensors, config, processor."""
    state = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    if kind == "asr":
        state.pop("thinker.lm_head.weight", None)  # tied to the embedding
    eos = [processor.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=eos[1], do_sample=False)
    model.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    config["dtype"] = config["thinker_config"]["dtype"] = "float16"
    if kind == "aligner":  # transformers writes the class's model_type; the package knows an aligner by this one
        config["thinker_config"]["model_type"] = "qwen3_forced_aligner"
    config_file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
