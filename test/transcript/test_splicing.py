"""Where a later answer is entered behind text that has been sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.transcript.splicing import continuation


@pytest.mark.parametrize(
    ("sent", "answer", "rest"),
    [
        ("The quick", "The quick brown fox.", " brown fox."),  # nothing differs
        ("The Quick", "the quick, brown fox.", " brown fox."),  # case and marks alone
        ("The quack brown", "The quick brown fox.", " fox."),
        ("We saw the cat", "We saw the dog barking.", " barking."),  # as many words
        ("We went to the river and then it was", "We went to the river. And then we swam home.", " home."),
        ("uh the quick", "The quick brown fox.", " brown fox."),  # a word too many was sent
        ("quick brown", "The quick brown fox.", " fox."),  # one too few
        ("one two three", "alpha beta gamma delta", " delta"),  # nothing in common
        ("one two three", "alpha beta", ""),
        ("one two three", "", ""),
        ("one", "...", ""),
        ("你好吗", "您好吗？再见。", "再见。"),
        ("你好 hello", "你好 hallo再见", " 再见"),
        ("你好", "hello there you", " you"),
        ("Hello you", "hello 你好吗", " 好吗"),
        ("one two", "three four… five", " five"),
        ("no no", "no no no no stop", " no no stop"),
        ("Café au", "cafe\u0301 au lait", " lait"),
    ],
)
def test_what_follows_the_sent_text(sent: str, answer: str, rest: str) -> None:
    assert continuation(sent, answer) == rest


WORDS = st.sampled_from(["one", "two", "Three,", "four.", "五", "六。", "seven seven"])


@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, max_size=12))
def test_the_rest_is_the_end_of_the_answer_and_keeps_words_apart(sent: list[str], answer: list[str]) -> None:
    said, later = " ".join(sent), " ".join(answer)
    rest = continuation(said, later)
    assert later.endswith(rest.lstrip())
    assert rest == rest.rstrip()
    assert not (rest and said[-1].isascii() and rest[0].isascii() and rest[0].isalnum())


@given(st.lists(WORDS, min_size=1, max_size=12), st.integers(1, 12))
def test_an_answer_that_agrees_goes_on_where_the_sent_text_ends(words: list[str], count: int) -> None:
    whole = " ".join(words)
    sent = " ".join(words[:count])
    assert sent + continuation(sent.upper(), whole) == whole
