"""The Prometheus metrics; metrics_listener.py serves them.

- Nothing is counted here. A scrape reads what the requests' totals, the scheduler and the resident model hold anyway,
  in the listener's own threads, so metrics cost a request nothing.
- docs/operations.md lists every name; a test compares.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from itertools import accumulate, product
from math import inf
from typing import Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, StateSetMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from backend.audio.decoding import causes
from backend.errors import named
from backend.live.live_transcriber import LiveTranscriber
from backend.options.load_options import LoadOptions
from backend.process import request_warning
from backend.process.histogram import Histogram
from backend.process.request_stats import Totals
from backend.process.version import VERSION
from backend.serving.loading.aligner_loading import AlignerState
from backend.serving.resident import ModelState, Resident
from backend.serving.scheduler import Scheduler
from backend.wire.status import STATUS

_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # upper bounds of the histogram; the last is the largest batch_max_size
# Series that are there, with 0, before the first event: an increase from nothing to 1 is none to Prometheus.
_METHODS = ("AudioTranscription", "AudioTranscriptionStream", "AudioTranscriptionLive", "LoadModel")
_REQUESTS = dict.fromkeys(product(_METHODS, ["OK", *dict.fromkeys(status.name for status in STATUS.values())]), 0)
_WARNINGS = dict.fromkeys(request_warning.KINDS, 0)
_REFUSED_RECORDINGS = dict.fromkeys(causes.KINDS.values(), 0)


class BackendCollector(Collector):
    """Reads the current values at each scrape."""

    def __init__(self, totals: Totals, scheduler: Scheduler, resident: Resident, live: LiveTranscriber) -> None:
        self._totals = totals
        self._live = live
        self._scheduler = scheduler
        self._resident = resident

    def collect(self) -> Iterable[Metric]:
        yield _info("qwen_asr_build_info", "1; the labels say what runs.", _build())
        yield _model_info(self._resident.options)
        yield from self._request_metrics(self._totals)
        yield from _times_and_kinds(self._totals)
        yield from self._live_metrics()
        yield from self._model_metrics()

    def _request_metrics(self, totals: Totals) -> Iterable[Metric]:
        yield _counters(
            "qwen_asr_requests",
            "Calls that ended, by method and gRPC code.",
            ("method", "code"),
            _REQUESTS | totals.requests,
        )
        yield _counters(
            "qwen_asr_rejections",
            "Requests and loads that were refused or failed, by cause.",
            ("reason",),
            totals.rejections,
        )
        yield _gauges("qwen_asr_requests_in_flight", "Calls that are being answered.", "method", totals.in_flight)
        yield _counters(
            "qwen_asr_stage_seconds", "Time that ended requests spent in each stage.", ("stage",), totals.stage_s
        )
        yield _histograms(
            "qwen_asr_first_delta_seconds",
            "Seconds from a call to its first delta, by method.",
            ("method",),
            totals.first_delta_s,
        )
        yield CounterMetricFamily(
            "qwen_asr_rewrites",
            "Passages of which a part had been sent when they were recognised again.",
            value=totals.rewrites,
        )
        yield CounterMetricFamily("qwen_asr_audio_seconds", "Seconds of audio transcribed.", value=totals.audio_s)

    def _live_metrics(self) -> Iterable[Metric]:
        live = self._live
        yield GaugeMetricFamily("qwen_asr_live_streams", "Live streams that are open.", value=live.streams)
        yield GaugeMetricFamily("qwen_asr_live_speaking", "Live streams in which somebody speaks.", value=live.speaking)
        yield GaugeMetricFamily(
            "qwen_asr_live_behind_seconds",
            "Seconds of sound that the live stream is behind that is most behind.",
            value=live.behind_s,
        )
        yield _histograms(
            "qwen_asr_live_step_seconds",
            "Seconds that decodes of growing live windows took, of streams that ended.",
            (),
            self._totals.live_step_s,
        )

    def _model_metrics(self) -> Iterable[Metric]:
        engine, (passages, waiting_s) = self._scheduler.engine_stats, self._scheduler.waiting
        yield CounterMetricFamily("qwen_asr_compute_seconds", "Seconds in which models ran.", value=engine.compute_s)
        yield GaugeMetricFamily("qwen_asr_queue_passages", "Passages that wait for the model.", value=passages)
        yield GaugeMetricFamily("qwen_asr_queue_audio_seconds", "Seconds of audio in them.", value=waiting_s)
        yield _histogram("qwen_asr_batch_rows", "Passages that ran together, for each step of the model.", engine.steps)
        yield CounterMetricFamily(
            "qwen_asr_splits",
            "Batches of several passages that ran out of memory, after which smaller ones run for a while.",
            value=engine.oom_events,
        )
        yield CounterMetricFamily(
            "qwen_asr_retries", "Passages that failed with others and were run again alone.", value=engine.retries
        )
        aligner = StateSetMetricFamily("qwen_asr_aligner_state", "1 for the state that the aligner is in.")
        state = self._resident.aligner_state
        aligner.add_metric((), {possible: possible == state for possible in get_args(AlignerState)})
        yield aligner
        model = StateSetMetricFamily("qwen_asr_model_state", "1 for the state that the model is in.")
        model.add_metric((), {possible: possible == self._resident.state for possible in get_args(ModelState)})
        yield model
        yield _counters(
            "qwen_asr_idle_releases", "Idle weights that were released.", ("what",), self._resident.releases
        )
        yield CounterMetricFamily(
            "qwen_asr_reloads", "Loads of a model that had been released for idleness.", value=self._resident.reloads
        )
        yield _gauges("qwen_asr_weight_bytes", "Bytes of weights in memory.", "model", self._resident.weight_bytes)


def _times_and_kinds(totals: Totals) -> Iterable[Metric]:
    yield _histograms(
        "qwen_asr_request_seconds",
        "Seconds from a call to its status, by method and outcome.",
        ("method", "outcome"),
        totals.request_s,
    )
    yield _histograms(
        "qwen_asr_queue_seconds",
        "Seconds in which a request's passages waited for the model and none of them ran, by method.",
        ("method",),
        totals.queue_s,
    )
    yield _counters("qwen_asr_warnings", "Requests with a warning of the kind.", ("kind",), _WARNINGS | totals.warnings)
    yield _counters(
        "qwen_asr_refused_recordings",
        "Recordings that could not be read, by kind.",
        ("kind",),
        _REFUSED_RECORDINGS | totals.refused_recordings,
    )


def _build() -> dict[str, str]:
    try:
        torch = metadata.version("torch")  # of the installed package: importing it takes seconds
    except metadata.PackageNotFoundError:
        torch = "none"
    return {"version": VERSION, "python": platform.python_version(), "torch": torch}


def _model_info(options: LoadOptions | None) -> Metric:
    """Of the loaded model, as LoadModel named it; no series while none is loaded."""
    names = ("model", "forced_aligner", "dtype", "quantization")
    family = GaugeMetricFamily("qwen_asr_model_info", "1; the labels say which model is loaded.", labels=names)
    if options is not None:
        labels = named(options.model), named(options.forced_aligner), options.dtype, options.quantization
        family.add_metric(labels, 1)
    return family


def _info(name: str, description: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(name, description, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), 1)
    return family


def _histograms(name: str, description: str, labels: tuple[str, ...], histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, description, labels=labels)
    for values, buckets, total in histogram.series():
        shown = [("+Inf" if bound == inf else str(bound), count) for bound, count in buckets]
        family.add_metric(values, buckets=shown, sum_value=total)
    return family


def _counters(name: str, description: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    """One series for each key of `values`: the label's value, or the tuple of the labels' values."""
    family = CounterMetricFamily(name, description, labels=labels)
    for key, value in dict(values).items():  # an atomic copy: the event loop's thread may add keys meanwhile
        family.add_metric(key if isinstance(key, tuple) else (key,), value)
    return family


def _gauges(name: str, description: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, description, labels=(label,))
    for key, value in dict(values).items():
        family.add_metric((key,), value)
    return family


def _histogram(name: str, description: str, counts: Mapping[int, int]) -> Metric:
    counts = dict(counts)
    cumulative = accumulate(
        sum(count for rows, count in counts.items() if low < rows <= high)
        for low, high in zip((0, *_BUCKETS), (*_BUCKETS, float("inf")), strict=True)
    )
    bounds = (*(str(bound) for bound in _BUCKETS), "+Inf")
    total = sum(rows * count for rows, count in counts.items())
    return HistogramMetricFamily(name, description, buckets=list(zip(bounds, cumulative, strict=True)), sum_value=total)
