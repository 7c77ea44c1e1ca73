"""The models that fail by plan: what they hear, and when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.audio.decoding.decode import decode
from backend.errors import LoadRefused
from backend.options.load_options import LoadOptions
from backend.serving.protocols import Passage, Utterance, recognize
from backend.wire import backend_pb2 as pb
from devtools.stress.client import contract_violations, noise, noise_requests
from devtools.stress.fakes import CONTROL_TOKENS, UNCLEAN, HashRecognizer, PlannedLoader, ShareAligner, text_of
from devtools.stress.plan import Fault, Plan, Where, prompt_for


def utterance(seed: int = 1, prompt: str = "for a trial", *, marked: bool = False) -> Utterance:
    return Utterance(noise(seed, 0.1, marked=marked), None, prompt, 64)


def test_a_text_belongs_to_its_samples_its_prompt_and_its_language() -> None:
    sound = noise(1, 0.1)
    texts = {text_of(sound), text_of(noise(2, 0.1)), text_of(sound[:-1]), text_of(sound, "x"), text_of(sound, "", "de")}
    assert len(texts) == 5
    assert text_of(sound) == text_of(sound.copy())
    assert {text_of(sound, f"a{token}b") for token in CONTROL_TOKENS} == {UNCLEAN}


def test_the_samples_of_a_recording_arrive_as_they_were_made(tmp_path: Path) -> None:
    (request,) = noise_requests(tmp_path, [5], 0.3, steps=2, marked=True)
    decoded = decode(str(request.path), max_seconds=60)
    assert text_of(decoded.samples, request.prompt) == request.text


def test_a_plan_travels_as_a_name() -> None:
    plan = Plan(steps=2, faults=(Fault("step", "hang", at=7), Fault("add", "slow", once=True)), leaks=True)
    assert Plan.of_name(plan.as_name()) == plan
    for no_plan in ("", "Qwen/Qwen3-ASR-0.6B", "{}", "[1]", '{"faults": [1]}'):
        with pytest.raises(LoadRefused):
            PlannedLoader().inspect(LoadOptions(no_plan))


@pytest.mark.parametrize(
    ("fault", "struck"),
    [
        (Fault("step", "slow", at=3), [3]),
        (Fault("step", "slow", at=3, lasts=True), [3, 4, 5]),
        (Fault("step", "slow"), [2, 4]),
        (Fault("step", "slow", once=True), [2]),
    ],
)
def test_a_fault_strikes_when_it_is_due(fault: Fault, struck: list[int]) -> None:
    calls = [(1, 0), (2, 1), (3, 0), (4, 2), (5, 0)]  # the second and fourth have something marked in them
    assert [call for call, marked in calls if fault.strikes(call, marked)] == struck


def test_only_calls_for_a_trial_are_counted() -> None:
    recognizer = HashRecognizer(Plan(faults=(Fault("step", "exception", at=1),)))
    assert recognize(recognizer, [utterance(prompt="")])[0].text  # a warm-up of the backend's own
    with pytest.raises(ValueError, match="by plan"):
        recognize(recognizer, [utterance()])


def test_a_request_says_how_long_it_takes() -> None:
    session = HashRecognizer(Plan(steps=1, step_s=0.0)).session()
    brief, long = utterance(1, prompt_for(2)), utterance(2, prompt_for(4))
    session.add([brief, long])
    assert [[of is brief for of, _ in session.step()] for _ in range(4)] == [[], [True], [], [False]]


def test_the_aligner_gives_times_inside_the_passage_or_fails() -> None:
    passages = [
        Passage(noise(1, 1.0, marked=True), "Heard this.", "en"),
        Passage(noise(2, 1.0), "Heard that.", "en"),
    ]
    units = ShareAligner(Plan()).align(passages)
    assert [[unit.text for unit in some] for some in units] == [
        ["Heard", "this"],
        ["Heard", "that"],
    ]
    assert max(unit.end_s for some in units for unit in some) <= 1.0
    assert len(ShareAligner(Plan(faults=(Fault("align", "too few answers"),))).align(passages)) == 1


def test_a_build_that_leaks_keeps_everything() -> None:
    recognizer = HashRecognizer(Plan(leaks=True))
    recognize(recognizer, [utterance(1), utterance(2)])
    assert len(recognizer.leaked) == 2


def test_a_reply_that_breaks_the_contract_is_seen() -> None:
    def reply(*spans: tuple[int, int], text: str = "One. Two.") -> pb.TranscriptResult:
        parts = ("One.", " Two.")
        segments = [
            pb.TranscriptSegment(id=number, start=start, end=end, text=parts[number].strip(), tokens=[1])
            for number, (start, end) in enumerate(spans)
        ]
        return pb.TranscriptResult(text=text, segments=segments, duration=1.0)

    assert contract_violations(reply((0, 5), (5, 1_000_000_000))) == []
    assert contract_violations(reply((0, 5), (4, 9)))  # they overlap
    assert contract_violations(reply((0, 5), (5, 5)))  # no length
    assert contract_violations(reply((0, 5), (5, 2_000_000_000)))  # beyond the end
    assert contract_violations(reply((0, 5), text="Other."))
    assert contract_violations(reply())  # a text without segments


@pytest.mark.parametrize("where", ["load recognizer", "load aligner"])
def test_every_load_of_a_failing_plan_fails(where: Where) -> None:
    failing = LoadOptions(Plan(faults=(Fault(where, "out of memory", at=1),)).as_name())
    loads = {"load recognizer": PlannedLoader().load_recognizer, "load aligner": PlannedLoader().load_aligner}
    for _ in range(2):
        with pytest.raises(MemoryError):
            loads[where](failing)
    assert [name for name, load in loads.items() if name != where and load(failing)]
