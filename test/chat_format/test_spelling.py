"""Answers that go on: what is spelled of their first tokens is a prefix of what they turn out to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from backend.chat_format.spelling import TEXT_TAG, Spelling


def bytes_alone() -> Tokenizer:
    """A token for every byte, so that most characters are several tokens; and the tag and an end, as in Qwen's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: number for number, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(TEXT_TAG, special=False)])
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return tokenizer


TOKENIZER = bytes_alone()
SPELLING = Spelling(TOKENIZER)


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


@given(
    st.text(max_size=30), st.sampled_from(["language English<asr_text>", "language Chinese<asr_text>", "language ", ""])
)
def test_a_part_of_an_answer_is_a_prefix_of_its_text(text: str, tag: str) -> None:
    answer = ids(tag + text)
    whole = SPELLING.spell(answer, None, ended=True)
    for count in range(len(answer) + 1):
        part = SPELLING.spell(answer[:count], None, ended=False)
        assert whole.text.startswith(part.text)
        assert part.language in (None, whole.language)
        assert not part.text or part.language == whole.language


@given(st.lists(st.integers(0, 257), max_size=60), st.sampled_from([None, "en"]))
def test_any_tokens_at_all_are_spelled_from_the_front(tokens: list[int], language: str | None) -> None:
    """Bytes that are no character, tags anywhere, end tokens in the middle."""
    ended = SPELLING.spell(tokens, language, ended=True)
    before = ""
    for count in range(len(tokens) + 1):
        text = SPELLING.spell(tokens[:count], language, ended=False).text
        assert text.startswith(before)
        assert "\ufffd" not in text
        before = text
    assert ended.text.startswith(before)


def test_the_tag_and_unfinished_characters_are_held_back() -> None:
    answer = ids("language Chinese<asr_text>你好")
    texts = [SPELLING.spell(answer[:count], None, ended=False) for count in range(len(answer) + 1)]
    assert [text for _, text in texts[-7:]] == ["", "", "", "你", "你", "你", "你好"]
    assert [language for language, _ in texts[-7:]] == ["zh"] * 7
    assert texts[-8] == (None, "")


@pytest.mark.parametrize("tag", ["language English", "language None", "language", "lang"])
def test_an_answer_without_a_tag_is_known_to_be_text_at_its_end_alone(tag: str) -> None:
    assert SPELLING.spell(ids(tag), None, ended=False).text == ""
    assert SPELLING.spell(ids(tag), None, ended=True).text == ("lang" if tag == "lang" else "")
    assert SPELLING.spell(ids(tag), "en", ended=False).text == tag


def test_tokens_are_slices_of_their_text() -> None:
    text = "Zoë 你好"
    tokens = SPELLING.tokens_of(text)
    assert len(tokens) == len(text.encode())
    assert {text[token.begin : token.end] for token in tokens} == set(text)
