"""The metrics that alerts are written by, and the examples in docs/monitoring: all of their names exist."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backend import errors
from backend.audio.decoding import causes
from backend.errors import CheckpointRefused
from backend.live import utterance_pieces, utterance_recognition
from backend.pipeline import alignment, recognized_chunk, sound_tracks
from backend.process.histogram import Histogram
from backend.process.request_stats import OUTCOMES
from backend.process.request_warning import KINDS, RequestWarning, kinds_of
from backend.process.version import VERSION
from backend.wire import backend_pb2 as pb

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs/monitoring"
Samples = dict[str, list[tuple[dict[str, str], float]]]


def fetched(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
        return str(reply.read().decode())


async def scrape(service) -> Samples:
    """Labels and values by the names that queries use."""
    samples: Samples = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(fetched, service.serving.listener.port)):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def by(samples: Samples, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Values by the values of `labels`, without zeros and without the buckets' bounds."""
    return {tuple(found[label] for label in labels): value for found, value in samples.get(name, []) if value}


@pytest.fixture
async def metered(serve):
    return await serve(metrics="127.0.0.1:0")


async def test_requests_are_timed_by_method_and_outcome(metered, wav, loader, log) -> None:
    await metered.load()
    await metered.load(Options=["nonsense:1"])
    for _ in range(3):
        await metered.transcribe(wav())
    await metered.refusal("/nowhere")

    def fail(_utterance: object) -> str:
        raise RuntimeError("broken")

    loader.recognizer.answer = fail
    await metered.refusal(wav())
    await log.after(7)
    samples = await scrape(metered)
    assert by(samples, "qwen_asr_request_seconds_count", "method", "outcome") == {
        ("LoadModel", "ok"): 1,
        ("LoadModel", "refused"): 1,
        ("AudioTranscription", "ok"): 3,
        ("AudioTranscription", "refused"): 1,
        ("AudioTranscription", "failed"): 1,
    }
    sums = by(samples, "qwen_asr_request_seconds_sum", "method", "outcome")
    logged = sum(line["total_ms"] for line in log.requests if line["code"] == "OK" and "audio_s" in line)
    assert sums["AudioTranscription", "ok"] == pytest.approx(logged / 1000, abs=0.001)
    buckets = {
        labels["le"]: value
        for labels, value in samples["qwen_asr_request_seconds_bucket"]
        if (labels["method"], labels["outcome"]) == ("AudioTranscription", "ok")
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets["+Inf"], list(buckets)[-1]) == (3, "+Inf")
    assert by(samples, "qwen_asr_queue_seconds_count", "method") == {("AudioTranscription",): 4}  # read, failed or not


async def test_a_call_that_its_client_left_is_cancelled(metered, wav, loader, log) -> None:
    await metered.load()
    loader.recognizer.gate = threading.Event()
    call = metered.stub.AudioTranscription(pb.TranscriptRequest(dst=str(wav())), timeout=20)
    await asyncio.to_thread(loader.recognizer.entered.wait, 20)
    call.cancel()
    await log.after(2)
    loader.recognizer.gate.set()
    counts = by(await scrape(metered), "qwen_asr_request_seconds_count", "method", "outcome")
    assert counts["AudioTranscription", "cancelled"] == 1


async def test_a_refused_load_is_not_counted_as_ok(metered, log) -> None:
    await metered.load(Options=["nonsense:1"])
    await log.after(1)
    assert by(await scrape(metered), "qwen_asr_requests_total", "method", "code") == {
        ("LoadModel", "INVALID_ARGUMENT"): 1
    }


async def test_warnings_are_counted_by_kind_once_a_request(metered, wav, loader, log) -> None:
    await metered.load()
    await metered.transcribe(wav(), timestamp_granularities=["word"])
    await metered.load(Options=["forced_aligner:x"])
    loader.refusals["aligner"] = CheckpointRefused("no aligner")
    for _ in range(2):
        await metered.transcribe(wav(), timestamp_granularities=["word"])
    await log.after(5)
    assert by(await scrape(metered), "qwen_asr_warnings_total", "kind") == {
        ("no_aligner",): 1,
        ("aligner_unavailable",): 2,
    }


async def test_recordings_that_cannot_be_read_are_counted_by_kind(metered, tmp_path, log) -> None:
    await metered.load()
    (tmp_path / "text.wav").write_text("no sound at all")
    for path in ("/nowhere", "/nowhere/else", tmp_path, tmp_path / "text.wav"):
        await metered.refusal(path)
    await log.after(5)
    assert by(await scrape(metered), "qwen_asr_refused_recordings_total", "kind") == {
        ("missing",): 2,
        ("not_a_file",): 1,
        ("not_audio",): 1,
    }


async def test_what_runs_and_what_is_loaded_is_shown(metered) -> None:
    (build,) = (await scrape(metered))["qwen_asr_build_info"]
    assert build[0]["version"] == VERSION == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert build[0]["python"] == platform.python_version()
    assert build[0]["torch"][0].isdigit()
    assert "qwen_asr_model_info" not in await scrape(metered)
    await metered.load(Model='Qwen/"Q"\n', Quantization="int8", Options=["forced_aligner:al", "torch_dtype:bf16"])
    labels = {"model": 'Qwen/"Q"\\n', "forced_aligner": "al", "dtype": "bfloat16", "quantization": "int8"}
    assert (await scrape(metered))["qwen_asr_model_info"] == [(labels, 1)]
    await metered.stub.Free(pb.HealthMessage())
    assert "qwen_asr_model_info" not in await scrape(metered)


async def test_what_alerts_are_for_is_there_with_zero_before_it_happens(metered) -> None:
    """Prometheus sees no increase where a series begins with 1."""
    samples = await scrape(metered)
    zeros = {name: [labels for labels, value in found if value == 0] for name, found in samples.items()}
    assert {labels["kind"] for labels in zeros["qwen_asr_warnings_total"]} == set(KINDS)
    assert {labels["kind"] for labels in zeros["qwen_asr_refused_recordings_total"]} == set(causes.KINDS.values())
    requests = {(labels["method"], labels["code"]) for labels in zeros["qwen_asr_requests_total"]}
    assert {("LoadModel", "INVALID_ARGUMENT"), ("AudioTranscription", "INTERNAL")} < requests


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/-/healthy", "/metricsx", "/../metrics"])
async def test_there_is_one_page(metered, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(fetched, metered.serving.listener.port, path)
    assert caught.value.code == 404
    assert "qwen_asr_" in await asyncio.to_thread(fetched, metered.serving.listener.port, "/metrics?x=1")


def test_a_value_counts_up_to_the_first_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram((1.0, 10.0))
    for value in (0.0, 1.0, 1.1, 10.0, 11.0):
        histogram.observe(("a",), value)
    histogram.observe(("b",), 2.0)
    found = {labels: (buckets, total) for labels, buckets, total in histogram.series()}
    buckets, total = found[("a",)]
    assert buckets == [(1.0, 2), (10.0, 4), (float("inf"), 5)]
    assert total == pytest.approx(23.1)
    assert found[("b",)] == ([(1.0, 0), (10.0, 1), (float("inf"), 1)], 2.0)


def texts() -> Iterator[str]:
    """The constants that warnings are made of."""
    for module in (recognized_chunk, alignment, sound_tracks, utterance_recognition, utterance_pieces):
        yield from (value for name, value in vars(module).items() if name.isupper() and isinstance(value, str))


def test_every_text_of_a_warning_has_a_kind_that_is_known() -> None:
    plain = [text for text in texts() if not isinstance(text, RequestWarning)]
    assert plain == [sound_tracks.TRACKS, utterance_pieces.UNRECOGNIZED]  # with numbers: the warnings get kinds
    found = {kind for text in texts() for kind in kinds_of(text)} | {
        "several_tracks",
        "unrecognized",
        "not_heard",
        "no_aligner",
        "asked_language",
        "other",
    }
    assert found | {errors.AlignerUnavailable("").kind} == set(KINDS)
    assert kinds_of("a text of another room") == ("other",)


def test_the_operations_page_lists_every_kind_and_outcome() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    listed = set(re.findall(r"`(\w+)`", page[page.index("### Kinds") : page.index("## Probes")]))
    assert listed == {*KINDS, *causes.KINDS.values()}
    row = next(line for line in page.splitlines() if line.startswith("| `qwen_asr_request_seconds`"))
    assert all(outcome in row for outcome in OUTCOMES)


# The examples

DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
QUERIES = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])),
]
SELECTOR = re.compile(r"\b((?:qwen_asr|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
OF_THE_SCRAPER = {"instance", "job"}


@pytest.fixture
async def used(metered, wav, log) -> Samples:
    """What a server shows after a call of each kind, and one that was refused."""
    await metered.load()
    await metered.transcribe(wav(), timestamp_granularities=["word"])
    call = metered.stub.AudioTranscriptionStream(pb.TranscriptRequest(dst=str(wav())))
    assert [reply async for reply in call]
    await metered.refusal("/nowhere")
    await log.after(4)
    return await scrape(metered)


async def test_the_examples_ask_for_metrics_and_labels_that_exist(used: Samples) -> None:
    for query in QUERIES:
        found = SELECTOR.findall(query)
        assert found or query.startswith("up{"), query
        for name, matchers in found:
            assert name in used, f"{name} in {query}"
            known = {label for labels, _ in used[name] for label in labels}
            assert {label for label, _, _ in MATCHER.findall(matchers)} <= known | OF_THE_SCRAPER, query


def test_the_examples_ask_for_values_that_exist() -> None:
    known = {
        "method": {method.name for method in pb.DESCRIPTOR.services_by_name["Backend"].methods},
        "code": {code.name for code in grpc.StatusCode},
        "outcome": set(OUTCOMES),
        "kind": {*KINDS, *causes.KINDS.values()},
        "reason": {name for name, value in vars(errors).items() if isinstance(value, type)},
    }
    for query in QUERIES:
        for _, matchers in SELECTOR.findall(query):
            for label, operator, text in MATCHER.findall(matchers):
                if label in known:
                    for value in text.split("|") if "~" in operator else [text]:
                        assert any(re.fullmatch(value, possible) for possible in known[label]), f"{value} in {query}"


def test_every_metric_of_requests_has_its_place_on_the_dashboard() -> None:
    shown = " ".join(QUERIES)
    rows = [line for line in (ROOT / "docs/operations.md").read_text().splitlines() if line.startswith("| `qwen_asr_")]
    for name in re.findall(r"`(qwen_asr_\w+)`", " ".join(row.split(" | ")[0] for row in rows)):
        assert name in shown, name


def test_the_alerts_are_whole() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 8
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    tried = re.findall(r'alertname="(\w+)"', (MONITORING / "alerts_test.yml").read_text())
    assert sorted(tried) == sorted(rule["alert"] for rule in RULES)


def test_the_dashboard_has_what_grafanas_schema_asks_for() -> None:
    """The JSON model of a dashboard, by Grafana's documentation; the fields that an import needs."""
    assert DASHBOARD["id"] is None  # Grafana gives it
    assert {"uid", "title", "tags", "timezone", "schemaVersion", "version", "time", "refresh"} <= set(DASHBOARD)
    assert DASHBOARD["schemaVersion"] >= 36  # since then a data source is an object
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        place = panel["gridPos"]
        assert place["w"] >= 1 <= place["h"]
        assert 0 <= place["x"] <= 24 - place["w"]
        assert panel["type"] in ("row", "timeseries", "stat", "table")
        assert panel["title"]
        if panel["type"] == "row":
            assert panel["panels"] == []  # open: its panels follow it
            continue
        assert panel["datasource"] == source
        assert panel["description"]
        assert set(panel["fieldConfig"]) == {"defaults", "overrides"}
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFG"][: len(panel["targets"])]
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert "$instance" in target["expr"]
            used = set(re.findall(r"\$(?!__)\{?(\w+)", target["expr"]))
            assert used <= set(variables), target["expr"]


def test_no_panel_of_the_dashboard_covers_another() -> None:
    def overlaps(one: dict[str, int], other: dict[str, int]) -> bool:
        sides = (("x", "w"), ("y", "h"))
        return all(one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in sides)

    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert not [pair for pair in combinations(places, 2) if overlaps(*pair)]
