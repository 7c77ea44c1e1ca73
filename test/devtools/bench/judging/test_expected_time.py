"""How long a run will take, by a table or by the last run."""

from __future__ import annotations

from pathlib import Path

from devtools.bench import __main__ as command
from devtools.bench.__main__ import MEASURES, main
from devtools.bench.benchmark import Benchmark
from devtools.bench.judging.expected_time import DEMO_S, expected, remember
from devtools.bench.measurement import Row
from devtools.machine_load import Load, LoadWatch


def test_every_measure_of_the_demo_has_a_time() -> None:
    assert DEMO_S.keys() == MEASURES.keys()


def test_more_rounds_take_longer(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    one, five = (expected(Benchmark(runs=runs, formats=("bf16",)), ["long"], path) for runs in (1, 5))
    assert one.endswith("on two cores; other machines differ")
    assert one != five


def test_the_last_run_here_knows_better(tmp_path: Path) -> None:
    path, bench = tmp_path / "deep/durations.json", Benchmark(runs=1)
    remember(bench, "clip", 600.0, path)
    remember(bench, "long", 1200.0, path)
    assert expected(bench, ["clip", "long"], path) == "about 30 min, as the last time here"
    assert "as the last time" not in expected(Benchmark(runs=2), ["clip"], path)
    path.write_text("no JSON")
    assert "as the last time" not in expected(bench, ["clip"], path)


def test_a_shape_that_never_ran_here_is_not_guessed(tmp_path: Path) -> None:
    said = expected(Benchmark(shape="1.7b"), ["clip"], tmp_path / "none.json")
    assert said == "how long it takes is not known: clip has never run here with these settings"


def test_the_command_says_it_first_and_names_a_busy_machine(monkeypatch, tmp_path: Path, capsys) -> None:
    said_before: list[str] = []

    def clip(bench: Benchmark):
        said_before.append(capsys.readouterr().err)
        yield Row("clip", "ours bf16", "today", "s", pairs=((1.0, 2.0),))

    monkeypatch.setattr(command, "MEASURES", {"clip": clip})
    monkeypatch.setattr(command, "busiest", lambda: [("cc1plus", 0.9)])
    monkeypatch.setattr(command, "remember", lambda *_: None)
    monkeypatch.setattr(LoadWatch, "load", lambda _: Load(1.5, 2))
    assert main(["--quick", "--only", "clip", "--out", str(tmp_path / "results.json")]) == 0
    assert "bench: clip: about" in said_before[0]
    assert "busy machine: others used 1.5 of 2 processors (cc1plus 0.9)" in said_before[0]
    printed = capsys.readouterr().out
    assert "1 of 1 goals met" in printed
    assert "The machine was busy" in printed
