"""Bad inputs through the running server: `make fuzz`, and its short form with three hundred drawn cases."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.procfs import MIB
from devtools.stress import fuzz
from devtools.stress.client import EXACT, statuses
from devtools.stress.fuzz_runner import MEMORY_LIMIT_MIB, TIME_LIMIT_S, Case, FuzzRunner, save
from devtools.stress.profile import Profile
from devtools.stress.results import Results, Run
from devtools.stress.strategies import KINDS, for_each_case

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runner(run: Run) -> Iterator[FuzzRunner]:
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:  # noqa: SIM117
        with FuzzRunner(Path(folder), run.out.parent / "failures", run.profile.seed) as runner:
            yield runner


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_refused_and_sound_is_transcribed(
    kind: str, runner: FuzzRunner, profile: Profile, results: Results
) -> None:
    first = len(runner.sent)
    for_each_case(kind, runner.folder, profile, runner.send)
    sent = runner.sent[first:]
    if not sent:
        pytest.skip("the short form has no bombs, and the installed wheels cannot write every container")
    (slowest, slow, _), (largest, large, _) = (
        max(sent, key=key) for key in (lambda each: each[1].took_s, lambda each: each[1].growth_bytes)
    )
    replies, failed = [reply for _, reply, _ in sent], [failure for _, _, failure in sent if failure]
    figures = {
        "outcomes": dict(collections.Counter(reply.status for reply in replies)), "failures": failed,
        "slowest": slowest, "slowest_s": slow.took_s, "largest": largest, "most_bytes": large.growth_bytes,
    }  # fmt: skip
    costs = f"{slow.took_s:.2f} s; {max(large.growth_bytes, 0) / MIB:.0f} MiB"
    note = "; ".join([*failed[:5], *([f"and {len(failed) - 5} more"] if failed[5:] else [])])
    is_timed = all(": took " in failure for failure in failed)
    results.measure = kind
    shown, what = f"{statuses(replies)}; {costs}", f"{len(sent)} inputs"
    results.check(what, shown, "no failure", not failed, note, is_timed=is_timed, **figures)


@pytest.mark.fuzz
async def test_no_input_ends_the_server_or_touches_another_request(runner: FuzzRunner, results: Results) -> None:
    replies = [reply for _, reply, _ in runner.sent]
    large = sum(reply.growth_bytes > MEMORY_LIMIT_MIB * MIB for reply in replies)
    slow = sum(reply.took_s > TIME_LIMIT_S for reply in replies)
    results.measure = "all inputs"
    results.none("deaths of the server", runner.restarts)
    results.none(f"longer than {TIME_LIMIT_S:g} s", slow, is_timed=True)
    results.none(f"more than {MEMORY_LIMIT_MIB} MiB", large)
    results.measure = "a bystander"
    results.none(f"inexact of {runner.answered}", len(runner.inexact), ", ".join(sorted(set(runner.inexact))))
    results.measure, golden = "golden request", await runner.server.golden()
    results.check("at the end", golden, EXACT, golden == EXACT)


def test_the_kinds_of_inputs() -> None:
    known = {"as they are", "no sound", "rates", "channels", "playlists", "paths", "requests", "loads"}
    assert known <= {*KINDS}


def test_a_saved_case_is_sent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("no sound", "empty, and expected to be sound", "good", b"")
    path = save(case, tmp_path, 1, 1, [])
    assert fuzz.main(["--replay", str(path)]) == 1
    said = capsys.readouterr().out
    assert "INVALID_ARGUMENT qwen-asr: cannot read the audio: the file is empty" in said


def test_what_is_no_saved_case_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert fuzz.main(["--replay", str(tmp_path / "x.json")]) == 1
    assert "is no saved case" in capsys.readouterr().out
