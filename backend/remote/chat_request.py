"""The request for a passage: a chat completion in the form that vLLM takes."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.chat_format.prompt_format import pad_samples
from backend.serving.protocols import SAMPLE_RATE, Utterance

_FLOAT, _CHANNELS, _SAMPLE_BYTES = 3, 1, 4


def chat_request(utterance: Utterance, model: str, beginning: str, max_tokens: int) -> bytes:
    """JSON. `beginning`: of the answer, which the model goes on from; "" without one.

    The system message is sent even if it is empty, as the model was trained. Samples are sent as they are, in 32 bits:
    so the server computes what a local model would.
    """
    sound = base64.b64encode(_wav(pad_samples(utterance.samples))).decode("ascii")
    audio = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": utterance.prompt},
        {"role": "user", "content": [audio]},
    ]
    request = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "repetition_penalty": utterance.repetition_penalty,  # always: a server may have a default of its own
        "skip_special_tokens": False,  # the mark between the language and the text is one
        "stream": True,
    }
    if beginning:
        messages.append({"role": "assistant", "content": beginning})
        request |= {"add_generation_prompt": False, "continue_final_message": True}
    return json.dumps(request).encode("ascii")


def _wav(samples: NDArray[np.float32]) -> bytes:
    """A WAV file of 32-bit floats, one channel."""
    data = samples.astype("<f4", copy=False).tobytes()
    frame_bytes = _CHANNELS * _SAMPLE_BYTES
    format_chunk = struct.pack(
        "<HHIIHHH", _FLOAT, _CHANNELS, SAMPLE_RATE, SAMPLE_RATE * frame_bytes, frame_bytes, 8 * _SAMPLE_BYTES, 0
    )
    chunks = _chunk(b"fmt ", format_chunk) + _chunk(b"fact", struct.pack("<I", samples.size)) + _chunk(b"data", data)
    return _chunk(b"RIFF", b"WAVE" + chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content
