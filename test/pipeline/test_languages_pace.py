"""Speech at its normal pace, faster and slower, in languages of many and of few tokens: what it is not taken for.

Tokens per character, and tokens a second at the normal pace, were counted with Qwen3-ASR's tokenizer on article 1 of
the Universal Declaration of Human Rights, with published or estimated syllables a second. Fast is 1.5 times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from answers import seconds, times

from backend.options.load_options import TranscribeOptions
from backend.pipeline.recognized_chunk import PROMPT_LEAKAGE
from backend.process.request_warning import kinds_of
from backend.serving.protocols import Recognition, Token, Utterance

FAST, SLOW = 1.5, 0.5
TAG_TOKENS = 8  # of "language Macedonian<asr_text>" and the end of the answer, at most


@dataclass(frozen=True)
class Language:
    code: str
    tokens_per_char: float
    tokens_per_s: float  # at the normal pace
    phrase: str

    def said_in(self, seconds_of_speech: float, pace: float) -> Recognition:
        """What is recognised of so much speech, `pace` times as fast as normal."""
        count = round(seconds_of_speech * pace * self.tokens_per_s)
        length = round(count / self.tokens_per_char)
        separator = "" if self.code in ("zh", "ja", "th") else " "
        text = (f"{self.phrase}{separator}" * (length // len(self.phrase) + 1))[:length]
        tokens = (Token(1, at * length // count, (at + 1) * length // count) for at in range(count))
        return Recognition(text, self.code, True, tuple(tokens))


LANGUAGES = [
    Language("el", 0.84, 17.6, "όλοι οι άνθρωποι γεννιούνται ελεύθεροι"),
    Language("hi", 0.91, 16.4, "सभी मनुष्यों को गौरव और अधिकारों के मामले में"),
    Language("fa", 0.56, 9.1, "تمام افراد بشر آزاد به دنیا می‌آیند"),
    Language("fi", 0.39, 8.6, "kaikki ihmiset syntyvät vapaina"),
    Language("th", 0.60, 8.5, "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน"),
    Language("cs", 0.43, 8.3, "všichni lidé se rodí svobodní"),
    Language("mk", 0.42, 7.8, "сите човечки суштества се раѓаат слободни"),
    Language("tr", 0.34, 7.7, "bütün insanlar hür doğarlar"),
    Language("hu", 0.38, 7.1, "minden emberi lény szabadon születik"),
    Language("pl", 0.36, 7.0, "wszyscy ludzie rodzą się wolni"),
    Language("da", 0.36, 7.0, "alle mennesker er født frie"),
    Language("de", 0.30, 6.0, "alle Menschen sind frei geboren"),
    Language("ru", 0.30, 6.0, "все люди рождаются свободными"),
    Language("es", 0.30, 6.0, "todos los seres humanos nacen libres"),
    Language("en", 0.20, 4.0, "all human beings are born free"),
    Language("zh", 0.60, 4.0, "人人生而自由在尊严和权利上一律平等"),
    Language("ja", 0.50, 4.0, "すべての人間は生れながらにして自由である"),
]


@pytest.fixture(params=LANGUAGES, ids=lambda language: language.code)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param


@pytest.fixture
def transcribe_speech(transcribe, loader, bursts, language: Language):
    """`await transcribe_speech(pace, length_s)`: one passage, whose prompt is the phrase that its text repeats.

    So the text is taken for prompt leakage exactly if it is thought to be more than anybody can say. The recogniser
    ends no answer beyond its token budget.
    """

    async def run(pace: float, length_s: float):
        def answer(utterance: Utterance) -> Recognition:
            found = language.said_in(seconds(utterance), pace)
            fits = len(found.tokens) + TAG_TOKENS <= utterance.max_new_tokens
            return Recognition(found.text, found.language, fits, found.tokens)

        loader.recognizer.answer = answer
        prompt = TranscribeOptions(prompt=language.phrase)
        return await transcribe(bursts(length_s), prompt, vad=True, max_chunk_s=length_s)

    return run


@pytest.mark.parametrize("length_s", [15, 30])
@pytest.mark.parametrize("pace", [1, FAST])
async def test_speech_at_any_pace_fits_its_budget_and_is_not_suspected(
    transcribe_speech, loader, pace: float, length_s: float
) -> None:
    transcript = await transcribe_speech(pace, length_s)
    assert transcript.warnings == ()
    assert len(loader.recognizer.utterances) == 1


@pytest.mark.parametrize("length_s", [15, 30])
async def test_slow_speech_is_not_too_little_text(transcribe_speech, loader, length_s: float) -> None:
    transcript = await transcribe_speech(SLOW, length_s)
    assert transcript.warnings == ()
    assert len(loader.recognizer.utterances) == 1


async def test_a_recited_prompt_is_found_in_every_language(transcribe_speech) -> None:
    """Three times as much text as the time allows."""
    transcript = await transcribe_speech(3, 1)
    assert transcript.warnings == (times(1, PROMPT_LEAKAGE),)


async def test_a_twentieth_of_a_text_is_too_little_in_every_language(transcribe_speech) -> None:
    transcript = await transcribe_speech(0.05, 15)
    assert any("too_little_text" in kinds_of(warning) for warning in transcript.warnings)


async def test_a_name_that_is_spelt_out_is_not_too_little_text(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: "S T R A C Z Y N."
    assert (await transcribe(bursts(5), TranscribeOptions(), vad=True)).warnings == ()


async def test_digits_that_are_dictated_are_not_too_little_text(transcribe, loader, bursts) -> None:
    loader.recognizer.answer = lambda _: "0 8 1 5 4 7."
    assert (await transcribe(bursts(7), TranscribeOptions(), vad=True)).warnings == ()
