"""Nanoseconds: whole, in order, and never beyond the duration that the client sees."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import LoadRefused
from backend.pipeline.transcript_builder import Transcript
from backend.transcript.segments import SegmentRules, merge
from backend.transcript.words import spread
from backend.wire import backend_pb2 as pb
from backend.wire import messages


def transcript(text: str, duration_s: float, *, has_words: bool = True) -> Transcript:
    segments = tuple(merge(text, spread(text, [(0.0, duration_s)]), SegmentRules()))
    words = tuple(segment.words if has_words else () for segment in segments)
    return Transcript(text, "en", duration_s, segments, tuple((1,) for _ in segments), words, ())


@settings(max_examples=150)
@given(duration_s=st.floats(0.05, 30_000), sentences=st.integers(1, 12))
def test_times_are_whole_nanoseconds_in_order_within_the_duration(duration_s: float, sentences: int) -> None:
    reply = messages.transcript_result(transcript("One two three. " * sentences, duration_s))
    seen_ns = struct.unpack("f", struct.pack("f", duration_s))[0] * 1e9
    edges = [t for s in reply.segments for w in s.words for t in (w.start, w.end)]
    assert edges == sorted(edges)
    assert all(w.end > w.start for s in reply.segments for w in s.words)
    assert all(s.end > s.start for s in reply.segments)
    assert edges[0] >= 0
    assert edges[-1] <= seen_ns
    assert [s.id for s in reply.segments] == list(range(sentences))


def test_a_second_is_a_thousand_million_nanoseconds() -> None:
    reply = messages.transcript_result(transcript("Word", 1.5))
    assert (reply.segments[0].start, reply.segments[0].end, reply.duration) == (0, 1_500_000_000, 1.5)


def test_the_response_has_words_only_if_the_transcript_has_them() -> None:
    reply = messages.transcript_result(transcript("One. Two.", 2.0, has_words=False))
    assert [s.text for s in reply.segments] == ["One.", "Two."]
    assert not any(s.words for s in reply.segments)


def test_fields_without_effect_change_no_transcription() -> None:
    usual = messages.transcribe_options(pb.TranscriptRequest(language="de", prompt="names"))
    asked = pb.TranscriptRequest(language="de", prompt="names", temperature=0.9, threads=64, diarize=True)
    assert messages.transcribe_options(asked) == usual


@pytest.mark.parametrize(("written", "index"), [("", None), ("1", 1), ("cuda:2", 2)])
def test_main_gpu_is_an_index(written: str, index: int | None) -> None:
    assert messages.load_options(pb.ModelOptions(Model="m", MainGPU=written)).main_gpu == index


@pytest.mark.parametrize("written", ["-1", "cuda", "GPU-123", "1,2", "٣x"])
def test_a_main_gpu_that_is_no_index_is_refused(written: str) -> None:
    with pytest.raises(LoadRefused, match="MainGPU"):
        messages.load_options(pb.ModelOptions(Model="m", MainGPU=written))


def test_threads_are_limited_by_the_machine_with_a_warning(caplog) -> None:
    assert messages.load_options(pb.ModelOptions(Model="m", Threads=1)).threads == 1
    assert messages.load_options(pb.ModelOptions(Model="m", Threads=-1)).threads is None
    assert not caplog.text
    threads = messages.load_options(pb.ModelOptions(Model="m", Threads=2**31 - 1)).threads
    cores = os.cpu_count()
    assert threads is not None
    assert cores is not None
    assert cores <= threads <= 8 * cores
    assert f"Threads: 2147483647 are more than this machine has a use for; {threads} are used" in caplog.text


def test_enforce_eager_disables_cuda_graphs_unless_the_option_is_set() -> None:
    assert messages.load_options(pb.ModelOptions(Model="m")).cuda_graphs
    assert not messages.load_options(pb.ModelOptions(Model="m", EnforceEager=True)).cuda_graphs
    told = pb.ModelOptions(Model="m", EnforceEager=True, Options=["cuda_graphs:on"])
    assert messages.load_options(told).cuda_graphs


def test_fields_of_other_engines_are_logged_and_ignored(caplog) -> None:
    caplog.set_level("INFO")
    usual = messages.load_options(pb.ModelOptions(Model="m"))
    assert not caplog.text
    asked = pb.ModelOptions(Model="m", SwapSpace=4, GPUMemoryUtilization=0.9, TensorParallelSize=1)
    assert messages.load_options(asked) == usual
    for field in ("SwapSpace", "GPUMemoryUtilization"):
        assert f"{field} is another engine's" in caplog.text


def test_low_vram_means_smaller_batches_unless_they_are_set() -> None:
    usual = messages.load_options(pb.ModelOptions(Model="m"))
    low = messages.load_options(pb.ModelOptions(Model="m", LowVRAM=True))
    told = messages.load_options(pb.ModelOptions(Model="m", LowVRAM=True, Options=["batch_max_size:5"]))
    assert (usual.batch_max_size, low.batch_max_size) == (None, 2)  # None: by device
    assert told.batch_max_size == 5
