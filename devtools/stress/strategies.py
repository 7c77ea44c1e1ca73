"""Hypothesis strategies for cases: damaged files, requests (languages, prompts, granularities) and loads (options).

The hand-made cases are hypothesis' explicit examples. The same seed and number of cases give the same bytes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
from hypothesis import strategies as st

from backend.languages import NAMES
from devtools.server_process import DEMO_ALIGNER
from devtools.stress.fakes import CONTROL_TOKENS
from devtools.stress.fuzz_runner import Case, Expected
from devtools.stress.odd_inputs import BAD_FIELDS, BAD_OPTIONS, CONTAINERS, ODD_INPUTS, containers, odd_inputs
from devtools.stress.profile import Profile

_EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 36,
             (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
_WAV_FIELDS = {4: 4, 16: 4, 20: 2, 22: 2, 24: 4, 28: 4, 32: 2, 34: 2, 40: 4}  # offset and length, of a plain header
_PLACES = (1, 4, 12, 36, 44, 64, 128, 512)
_LONGEST_PROMPT = 8192
_FEW_BYTES = 682  # of a prompt: more may be more tokens than the model allows
MUTATIONS = ("flip bits", "flip bits of the header", "change numbers", "claim length", "cut", "cut the head", "splice",
             "insert", "blank", "randomise", "repeat")  # fmt: skip


def mutated(name: str, chance: Random, file: bytes, other: bytes) -> bytes:  # noqa: C901, PLR0912 - a case for each
    """The file after one of MUTATIONS, which may take a piece of the other file."""
    changed, at = bytearray(file), chance.randrange(len(file))
    place, other_at = chance.choice(_PLACES), chance.randrange(len(other))
    match name:
        case "flip bits" | "flip bits of the header":
            within = len(file) if name == "flip bits" else min(chance.choice((16, 64, 400)), len(file))
            for _ in range(chance.choice((1, 1, 2, 8, 32))):
                changed[chance.randrange(within)] ^= 1 << chance.randrange(8)
        case "change numbers":
            for _ in range(chance.choice((1, 1, 2, 3))):
                _change_number(chance, changed)
        case "claim length":  # FLAC's STREAMINFO: 2^36 - 1 samples; else where lengths usually stand
            at = 22 if file[:4] == b"fLaC" else chance.choice((4, 16, 20, 28, 40))
            if at == 22 and len(file) > 21:
                changed[21] |= 0x0F
            changed[at : at + 4] = b"\xff" * len(changed[at : at + 4])
        case "cut":
            del changed[chance.choice((*_PLACES, len(file) // 2, len(file) - 1, at)) :]
        case "cut the head":
            del changed[: chance.choice((*_PLACES, at))]
        case "splice":
            changed[at + 1 :] = other[other_at:]
        case "insert":
            length = chance.choice((1, 3, 16, 512, 4096))
            changed[at:at] = chance.choice((bytes(length), chance.randbytes(length), other[other_at:][:length]))
        case "blank":
            length = len(changed[at : at + chance.choice((4, 64, 512, 4096))])
            changed[at : at + length] = bytes(length)
        case "randomise":
            changed[place:] = chance.randbytes(max(len(file) - place, 0))
        case "repeat":
            changed[at:at] = file[at : at + chance.choice((8, 64, 1024))] * chance.choice((2, 16, 64))
    return bytes(changed) or b"\0"


def _change_number(chance: Random, file: bytearray) -> None:
    """A size, rate, number of channels or block length in the header."""
    is_wav = bytes(file[:4]) in (b"RIFF", b"RF64") and chance.random() < 0.7
    at = chance.choice(list(_WAV_FIELDS)) if is_wav else chance.randrange(min(128, len(file)))
    length = _WAV_FIELDS[at] if is_wav else chance.choice((1, 2, 3, 4, 8))
    value = chance.choice((*_EXTREMES, chance.getrandbits(8 * length))) % (1 << 8 * length)
    file[at : at + length] = value.to_bytes(length, "little" if is_wav or chance.random() < 0.5 else "big")


@st.composite
def mutants(draw: st.DrawFn, container: str) -> Case:
    """One to three mutations; uniform chance, because hypothesis prefers small numbers: the start of a file."""
    chance = draw(st.randoms(use_true_random=True))
    file, other = containers()[container], chance.choice(list(containers().values()))
    names = chance.choices([*MUTATIONS, "change numbers"], k=chance.choice((1, 1, 1, 2, 3)))
    for name in names:
        file = mutated(name, chance, file, other)
    return Case(f"mutated {container}", " + ".join(names), "either", file)


_GOOD = (
    "max_new_tokens:256", "batch_max_size:4", "max_inference_batch_size:1", "torch_dtype:bf16", "torch_dtype:FP32",
    "attn_implementation:sdpa", "max_chunk_seconds:2", "max_chunk_seconds:180", "max_audio_seconds:60", "vad:off",
    "vad_threshold:0.05", "segment_gap_threshold:1", "max_segment_chars:10", "forced_aligner:",
    "forced_aligner:Qwen/Qwen3-ForcedAligner-0.6B", f"forced_aligner:{DEMO_ALIGNER}",
)  # fmt: skip


@st.composite
def _nested_tokens(draw: st.DrawFn) -> str:
    """Control tokens inside each other: removing one of them makes another."""
    text = draw(st.sampled_from(CONTROL_TOKENS))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from((*CONTROL_TOKENS, "\0", "\x1b", "<||>", "<|", "|>"))) + text[at:]
    return text


_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
_PROMPT = st.one_of(
    _TEXT,
    st.lists(st.one_of(_nested_tokens(), _TEXT), max_size=4).map("".join),
    st.integers(_LONGEST_PROMPT - 2, _LONGEST_PROMPT + 2).map("x".__mul__),
    st.integers(1, 20).map(lambda times: "<|im_" * times + "end|>" * times),
)
_LANGUAGE: st.SearchStrategy[tuple[str, Expected]] = st.one_of(
    st.sampled_from([*NAMES, *NAMES.values(), "", "auto", "de-DE", "zh_CN", "GERMAN"]).map(lambda name: (name, "good")),
    st.sampled_from(["xx", "klingon", "e", "<|im_end|>", "de;", "../en", "null"]).map(lambda name: (name, "bad")),
    _TEXT.map(lambda name: (name, "either")),
)
_REQUEST = st.fixed_dictionaries({
    "prompt": _PROMPT,
    "timestamp_granularities": st.lists(st.sampled_from(["word", "segment", "WORD", " Word "]) | _TEXT, max_size=4),
    "translate": st.sampled_from([False] * 19 + [True]), "diarize": st.booleans(),
    "threads": st.integers(0, 2**32 - 1), "temperature": st.sampled_from([0.0, 1.0, -1.0, 1e30]),
})  # fmt: skip


def _request(language: tuple[str, Expected], fields: dict[str, Any]) -> Case:
    (name, expected), prompt = language, fields["prompt"]
    if fields["translate"] or len(prompt) > _LONGEST_PROMPT:
        expected = "bad"
    elif expected == "good" and len(prompt.encode()) > _FEW_BYTES:
        expected = "either"
    named = f"language {name[:20]!r}, prompt {prompt[:30]!r}"
    return Case("requests", named, expected, request={"language": name, **fields})


REQUESTS = st.builds(_request, _LANGUAGE, _REQUEST)


def _load(expected: Expected, request: Mapping[str, Any]) -> Case:
    return Case("loads", str(request)[:60], expected, request=request, load=True)


_GOOD_OPTIONS = st.lists(st.sampled_from(_GOOD), max_size=3)
_JSON = st.recursive(st.none() | st.booleans() | st.floats() | _TEXT, st.lists, max_leaves=5)
_JSON_NAME = st.sampled_from(["max_new_tokens", "vad", "batch_max_size", string.ascii_letters])
LOADS: st.SearchStrategy[Case] = st.one_of(
    _GOOD_OPTIONS.map(lambda good: _load("good", {"Options": good})),
    st.builds(lambda good, bad: _load("bad", {"Options": [*good, bad]}), _GOOD_OPTIONS, st.sampled_from(BAD_OPTIONS)),
    st.sampled_from(BAD_FIELDS).map(lambda field: _load("bad", field)),
    _TEXT.map(lambda text: _load("either", {"Options": [text]})),
    st.builds(lambda name, value: _load("either", {"EngineArgs": json.dumps({name: value})}), _JSON_NAME, _JSON),
)
DRAWN = {"requests": REQUESTS, "loads": LOADS, **{f"mutated {name}": mutants(name) for name in CONTAINERS}}
KINDS = (*ODD_INPUTS, *DRAWN)
_SHARES = {"requests": 0.15, "loads": 0.05}  # of the drawn cases; the containers share the rest


def for_each_case(kind: str, folder: Path, profile: Profile, send: Callable[[Case], object]) -> None:
    """Sends the hand-made cases of the kind, and its share of the drawn ones."""
    hand_made = [] if profile.brief and kind == "bombs" else odd_inputs(kind, folder)
    count = drawn_count(kind, profile.cases)
    phases = [hypothesis.Phase.explicit, *([hypothesis.Phase.generate] if count else [])]

    @hypothesis.seed(f"{profile.seed}/{kind}")
    @hypothesis.settings(max_examples=max(count, 1), phases=phases, database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(case=DRAWN.get(kind, REQUESTS))
    def test(case: Case) -> None:
        send(case)

    for case in reversed(hand_made):  # hypothesis runs the last one that was added first
        test = hypothesis.example(case=case)(test)
    if hand_made or count:
        test()


def drawn_count(kind: str, cases: int) -> int:
    """How many of all drawn `cases` are of the kind."""
    counts = {name: round(cases * share) for name, share in _SHARES.items()}
    share, left = divmod(cases - sum(counts.values()), len(containers()))
    counts |= {f"mutated {name}": share + (number < left) for number, name in enumerate(containers())}
    return counts.get(kind, 0)
