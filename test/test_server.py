"""The watchdog of the model thread, and what is refused before torch is imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from backend import server
from backend.audio.decoding.pool import DecoderPool
from backend.errors import LoadRefused
from backend.options.load_options import LoadOptions
from backend.process.observed_time import ObservedTime


class Stepping:
    """A scheduler at one step."""

    dead = ""
    stalled_s = 0.0


@pytest.fixture
def watched(monkeypatch) -> Callable[..., Any]:
    """`watched(moments, stall_s)`: what the watchdog says of one endless step when it looks at these moments only."""

    async def watch(moments: list[float], stall_s: float) -> str:
        scheduler = Stepping()
        left = iter(moments)

        def clock() -> float:
            now = next(left, math.nan)
            if math.isnan(now):
                scheduler.dead, now = "the test has ended", moments[-1]
            scheduler.stalled_s = now - moments[0]
            return now

        monkeypatch.setattr(server, "ObservedTime", lambda: ObservedTime(clock))
        monkeypatch.setattr(server, "_WATCHDOG_INTERVAL_S", 0.0)
        return await server._engine_failure(scheduler, stall_s)  # type: ignore[arg-type]

    return watch


async def test_a_process_that_was_frozen_in_a_step_has_not_hung(watched) -> None:
    assert await watched([0.0, 0.5, 600.0, 600.5, 1800.0], 5.0) == "the test has ended"


async def test_a_hang_is_found_also_by_a_watchdog_that_comes_late(watched) -> None:
    said = await watched([0.0, 0.5, 600.0, *(600.0 + 2.0 * look for look in range(1, 9))], 5.0)
    assert said.startswith("it has been at one step for 5 s")


class ImportedTorch(Exception):
    """The engine was asked for."""


@pytest.fixture
def lazy(monkeypatch, decoder_pool: DecoderPool) -> server.LazyLoader:
    def real(_loader: server.LazyLoader) -> Any:
        raise ImportedTorch

    monkeypatch.setattr(server.LazyLoader, "_real", real)
    return server.LazyLoader(decoder_pool)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"model": "no-model", "model_file": ""}, "neither a folder with a checkpoint nor a hub id"),
        ({"model": ""}, "no model is named"),
        ({"forced_aligner": "not-there"}, "^option 'forced_aligner'"),
        ({"forced_aligner": "asr"}, "^option 'forced_aligner': .* is a Qwen3-ASR model"),
        ({"model_file": "foreign"}, "'whisper'"),
        ({"model_file": "aligner", "task": "transcribe"}, "is a Qwen3-ForcedAligner model"),
    ],
)
def test_what_the_disk_refuses_is_refused_before_torch_is_imported(
    lazy, asr_folder, aligner_folder, tmp_path, changes: dict[str, Any], cause: str
) -> None:
    fields: dict[str, Any] = {
        "model": "demo",
        "model_file": str(asr_folder),
        "model_path": str(asr_folder.parent),
        **changes,
    }
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    folders = {"aligner": str(aligner_folder), "foreign": str(tmp_path)}
    fields["model_file"] = folders.get(fields["model_file"], fields["model_file"])
    with pytest.raises(LoadRefused, match=cause):
        lazy.inspect(LoadOptions(**fields))


def test_what_can_be_loaded_is(lazy, asr_folder, aligner_folder) -> None:
    with pytest.raises(ImportedTorch):
        lazy.inspect(LoadOptions("demo", model_file=str(asr_folder), forced_aligner=str(aligner_folder)))
