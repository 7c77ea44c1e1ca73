"""Every option of a model's configuration: its field of LoadOptions, its values, its default and its meaning.

docs/options.md lists the same rows; test/test_options.py compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.options.load_options import MAX_CHUNK_S, MIN_CHUNK_S
from backend.options.option_values import (
    ABSOLUTE_PATH,
    ATTENTIONS,
    DEVICES,
    DTYPES,
    ENDS_OF_UTTERANCE,
    ENVIRONMENT_VARIABLE,
    REVISION,
    SWITCH,
    TASKS,
    URLS,
    Values,
    integer,
    milliseconds,
    number,
    one_of,
    zero_or,
)


@dataclass(frozen=True)
class Option:
    """A row of docs/options.md: the field of LoadOptions that it sets, its values, its default and its meaning.

    `repeatable`: its value is a tuple, to which each `name:value` pair of the model's `options` adds.
    """

    field: str
    values: Values[Any]
    default: str
    meaning: str
    repeatable: bool = False


BATCH = integer(1, 256)
_WEEK_S = 7 * 24 * 3600
OPTIONS: dict[str, Option] = {
    "forced_aligner": Option(
        "forced_aligner",
        Values("a hub id or a folder", lambda _, value: value),
        "none",
        "The Qwen3-ForcedAligner checkpoint; a relative folder lies below the models folder. What is no aligner is "
        "refused at LoadModel; without the option there are no word times.",
    ),
    "revision": Option(
        "revision",
        REVISION,
        "main",
        "Of the model's hub id: a branch, a tag or a commit. A folder has none. What was inspected is what is loaded.",
    ),
    "forced_aligner_revision": Option("forced_aligner_revision", REVISION, "main", "The same of the aligner's hub id."),
    "task": Option(
        "task",
        one_of(TASKS),
        "by checkpoint",
        "transcribe: speech to text. align: the request's `prompt` is a text, lyrics or a script, and gets its times; "
        "it needs `forced_aligner`. By checkpoint: align for a Qwen3-ForcedAligner as the model, transcribe otherwise.",
    ),
    "device": Option(
        "device",
        one_of(DEVICES),
        "auto",
        "Where the models compute: cpu, cuda (NVIDIA; AMD by ROCm, too), mps (Apple) or xpu (Intel); a device that is "
        "not there is refused. auto: a GPU, and the CPU where torch is built without one.",
    ),
    "torch_dtype": Option(
        "dtype",
        one_of(DTYPES),
        "auto",
        "Data type of the weights; auto: bf16 where the device computes it well, fp16 on Turing (fp32 if the "
        "model overflows in it), fp32 otherwise.",
    ),
    "attn_implementation": Option(
        "attention",
        one_of(ATTENTIONS),
        "auto",
        "Attention of the encoder: torch's (auto, sdpa, off, false; eager is the same), or flash_attention_2 (on, "
        "true), which is refused if flash-attn cannot be imported or does not know the GPU (before Ampere).",
    ),
    "batch_max_size": Option(
        "batch_max_size",
        BATCH,
        "by device",
        "Most passages that are recognised or aligned together. By default 8; on a GPU 32 from 12 GB of memory and 64 "
        "from 24 GB; with `low_vram` 2. -1: the default.",
    ),
    "max_inference_batch_size": Option("batch_max_size", BATCH, "by device", "Another name of `batch_max_size`."),
    "batch_max_wait_ms": Option(
        "batch_wait_s",
        milliseconds(10_000),
        "0",
        "Milliseconds that a new batch waits for more passages; 0: it starts at once, and passages join it while it "
        "runs.",
    ),
    "cuda_graphs": Option(
        "cuda_graphs",
        one_of(SWITCH),
        "on",
        "Capture and replay the decode steps on CUDA and ROCm, if a check at load shows that replayed steps are right; "
        "reserves the memory of the largest batch's KV cache.",
    ),
    "max_new_tokens": Option(
        "max_new_tokens",
        integer(1, 8192),
        "by length",
        "Token budget of a passage, if it is less than the one by length; a passage that exhausts it is split and "
        "recognised again.",
    ),
    "max_chunk_seconds": Option(
        "max_chunk_s",
        number(MIN_CHUNK_S, MAX_CHUNK_S),
        "by checkpoint",
        "Longest passage that is given to the models, in seconds, at most 60 if times are asked for; longer passages "
        "have more context. By checkpoint: `chunk_length` of its preprocessor_config.json, 30 in the published ones.",
    ),
    "max_audio_seconds": Option(
        "max_audio_s",
        number(1, 24 * 3600),  # the audio that admission control lets into memory (pipeline/admission.py)
        "21600",
        "Longest recording that is accepted, in seconds.",
    ),
    "max_audio_memory_mb": Option(
        "max_audio_memory_mb",
        integer(16, 16_000_000),
        "half of the memory",
        "Megabytes that the decoded audio of all requests may take, the search for speech included: 484 for an hour. "
        "By default half of the machine's memory, or of its container's. What is not free is not taken in any case.",
    ),
    "aligner_retry_seconds": Option(
        "aligner_retry_s",
        number(0, 24 * 3600),
        "60",
        "Seconds between a failed load of the aligner and the next attempt.",
    ),
    "aligner_idle_seconds": Option(
        "aligner_idle_s",
        zero_or(1, _WEEK_S),
        "0",
        "Seconds after the last request for times until the aligner is released; the next loads it again. 0: never.",
    ),
    "idle_unload_seconds": Option(
        "idle_unload_s",
        zero_or(1, _WEEK_S),
        "0",
        "Seconds after the last request until all weights are released; the next one loads them again, in its own "
        "time. 0: never.",
    ),
    "idle_exit_seconds": Option(
        "idle_exit_s",
        zero_or(60, _WEEK_S),
        "0",
        "Seconds after the last request until the process ends, with exit code 0; the gateway starts it again. Without "
        "effect where LOCALAI_BACKEND_PARENT_WATCH is off. 0: never.",
    ),
    "segment_gap_threshold": Option(
        "segment_gap_s",
        number(0.01, 3600),
        "max(4 × median gap, 0.3)",
        "Pause that ends a segment, in seconds.",
    ),
    "max_segment_seconds": Option(
        "max_segment_s",
        number(0.5, 3600),
        "off",
        "Longer segments, in seconds, are cut at clause marks, then at their widest gap.",
    ),
    "max_segment_chars": Option(
        "max_segment_chars",
        integer(1, 10_000),
        "off",
        "Longer segments, in characters, are cut at clause marks, then at their widest gap.",
    ),
    "subtitles": Option(
        "subtitles",
        one_of(SWITCH),
        "off",
        "Segments are captions that can be read: slices of the text within the bounds of the `subtitle_…` options that "
        "end at sentences and clause marks where they can; `max_segment_…` do not count then.",
    ),
    "subtitle_line_chars": Option(
        "subtitle_line_chars", integer(10, 200), "42", "Most characters of a line of a caption."
    ),
    "subtitle_wide_line_chars": Option(
        "subtitle_wide_line_chars",
        integer(5, 100),
        "16",
        "The same for Chinese, Japanese and Korean characters, which are twice as wide.",
    ),
    "subtitle_lines": Option(
        "subtitle_lines",
        integer(1, 2),
        "2",
        "Most lines of a caption. The caption is one line of text; whoever shows it wraps it.",
    ),
    "subtitle_min_seconds": Option(
        "subtitle_min_s", number(0, 10), "0.84", "A caption is shown at least this long, in seconds: 5/6 s."
    ),
    "subtitle_max_seconds": Option(
        "subtitle_max_s", number(1, 60), "7", "A caption is shown at most this long, in seconds."
    ),
    "subtitle_max_chars_per_second": Option(
        "subtitle_max_chars_per_s",
        number(5, 100),
        "20",
        "Highest reading speed, in characters a second of the time that a caption is shown.",
    ),
    "subtitle_gap_seconds": Option(
        "subtitle_gap_s", number(0, 1), "0.08", "Least time between two captions, in seconds: two frames."
    ),
    "engine_url": Option(
        "engine_urls",
        URLS,
        "none",
        "vLLM servers that recognise in place of a model here, which then needs no weights; several with commas, or as "
        "several options. The passages of all requests are shared out among them. See "
        "[scale-out](scale-out.md#recognition-on-vllm-servers).",
        repeatable=True,
    ),
    "engine_model": Option(
        "engine_model",
        Values("a name", lambda _, value: value),
        "the one it serves",
        "The model's name on those servers (`--served-model-name`), where one serves several.",
    ),
    "engine_api_key_env": Option(
        "engine_api_key_env",
        ENVIRONMENT_VARIABLE,
        "none",
        "Name of the backend's environment variable that holds the servers' API key.",
    ),
    "engine_api_key_file": Option(
        "engine_api_key_file",
        ABSOLUTE_PATH,
        "none",
        "File whose first line is the servers' API key, such as a mounted secret.",
    ),
    "engine_concurrency": Option(
        "engine_concurrency",
        integer(1, 256),
        "16",
        "Most passages that are at one of those servers at a time.",
    ),
    "engine_timeout_seconds": Option(
        "engine_timeout_s",
        number(1, 600),
        "60",
        "Seconds that one of those servers has for a passage; then it is tried on another one.",
    ),
    "vad": Option(
        "vad",
        one_of(SWITCH),
        "on",
        "Voice activity detection; off: everything is given to the model, silence and noise too.",
    ),
    "vad_threshold": Option(
        "vad_threshold",
        number(0.05, 0.95),
        "0.5",
        "Likelihood from which a frame of 32 ms is speech; a lower value detects more speech.",
    ),
    "vad_min_speech_seconds": Option(
        "vad_min_speech_s", number(0, 5), "0.1", "Shorter speech, in seconds, is not counted as speech."
    ),
    "vad_min_silence_seconds": Option(
        "vad_min_silence_s", number(0, 5), "0.1", "Shorter silence, in seconds, does not interrupt speech."
    ),
    "vad_margin_seconds": Option(
        "vad_margin_s", number(0, 5), "1", "Seconds of audio that are kept on both sides of speech."
    ),
    "live_step_seconds": Option(
        "live_step_s",
        number(0.25, 5),
        "1",
        "Live: seconds of new sound after which an utterance is decoded again; a machine that is too slow waits "
        "longer.",
    ),
    "live_endpoint_seconds": Option(
        "live_endpoint_s",
        number(0.3, 3),
        "0.6",
        "Live: silence, in seconds, that ends an utterance; its text is complete then.",
    ),
    "live_hold_words": Option(
        "live_hold_words",
        integer(0, 10),
        "2",
        "Live: words at the end of an answer that are held back while its utterance goes on, because the sound that "
        "follows may change them.",
    ),
    "live_quiet_seconds": Option(
        "live_quiet_s",
        number(1, 3600),
        "30",
        "Live: a stream on which no sound arrives for so many seconds is ended, with its final result.",
    ),
    "live_max_streams": Option(
        "live_max_streams",
        integer(1, 1000),
        "32",
        "Live: streams at once; more are refused, and the gateway then has no live captions for the whole session.",
    ),
    "live_eou": Option(
        "live_eou",
        one_of(ENDS_OF_UTTERANCE),
        "sentence",
        "When a reply says that an utterance has ended (`eou`): sentence: at a pause behind a text that ends a "
        "sentence; pause: at every pause; off: never. Replies about files follow their text.",
    ),
    "live_words": Option(
        "live_words",
        one_of(SWITCH),
        "off",
        "Live: send each utterance's words with their times, where a stream does not ask for them itself; needs the "
        "aligner.",
    ),
}
