"""The language of an utterance beside those that the stream has heard before, as passages beside their recording's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulated_speech import SimulatedScheduler, Stream, WordModel, name, sound_of
from virtual_time import run

from backend.options.load_options import TranscribeOptions
from backend.pipeline.recognized_chunk import OTHER_LANGUAGE
from backend.serving.protocols import Recognition, Utterance

pytestmark = pytest.mark.usefixtures("level_detector")

PAUSE = [-1, -1, -1]
ENGLISH, SHORT, OTHER, LONG = range(20), [50, 51, 52, 53, 54, 55], [56, 57, 58, 59], range(60, 72)
FOREIGN = frozenset(range(50, 80))


class TwoLanguages(WordModel):
    """Hears the words of FOREIGN as German, unless it is told a language: then it is others that it hears."""

    def __init__(self) -> None:
        super().__init__(lambda words: [word + 30 if word in FOREIGN and self.told else word for word in words])
        self.told: str | None = None

    def answer(self, utterance: Utterance) -> Recognition:
        self.told = utterance.language
        found = super().answer(utterance)
        foreign = any(name(number) in found.text.lower() for number in FOREIGN)
        language = utterance.language or ("de" if foreign else "en")
        return replace(found, language=language) if found.text else found


def heard(plan: list[int], options: TranscribeOptions = TranscribeOptions()) -> tuple[list[int], Stream, list[Any]]:  # noqa: B008
    """The numbers of the words that were said, the stream, and the forced languages of its decodes."""
    scheduler = SimulatedScheduler(TwoLanguages())

    async def live() -> Stream:
        async with Stream(scheduler, options=options) as stream:
            await stream.send(sound_of(plan))
            await stream.end()
            return stream

    stream = run(live())
    assert stream.text == stream.transcripts[0].text
    numbers = {name(number): number for number in range(100)}
    words = [numbers[word.strip(".").lower()] for word in stream.text.split()]
    return words, stream, [utterance.language for _, utterance, _ in scheduler.utterances]


def test_a_short_utterance_in_another_language_is_heard_again_in_the_streams() -> None:
    words, stream, forced = heard([*ENGLISH, *PAUSE, *SHORT, *PAUSE, *ENGLISH])
    assert words == [*ENGLISH, *(word + 30 for word in SHORT), *ENGLISH]
    assert forced.count("en") == 1
    assert any(OTHER_LANGUAGE in warning for warning in stream.transcripts[0].warnings)
    assert stream.stats.rewrites == 0  # none of it had left


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ([*SHORT, *PAUSE, *ENGLISH], "nothing was heard before"),
        ([*ENGLISH, *PAUSE, *LONG], "it is long and clear"),
        ([*ENGLISH, *PAUSE, *LONG, *PAUSE, *OTHER], "it is the second in a row"),
        ([*ENGLISH, *PAUSE, *LONG, *PAUSE, *LONG, *PAUSE, *ENGLISH, *ENGLISH, *PAUSE, *OTHER], "two in a row were"),
        ([*SHORT, *PAUSE, *range(5), *PAUSE, *OTHER], "neither has clearly most of the speech"),
    ],
)
def test_an_utterance_in_another_language_stands(plan: list[int], why: str) -> None:
    words, _, forced = heard(plan)
    assert words == [number for number in plan if number >= 0], why
    assert set(forced) == {None}


def test_a_language_that_is_given_is_not_doubted() -> None:
    words, _, forced = heard([*ENGLISH, *PAUSE, *SHORT], TranscribeOptions(language="de"))
    assert words == [*ENGLISH, *(word + 30 for word in SHORT)]
    assert set(forced) == {"de"}
