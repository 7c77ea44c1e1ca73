from __future__ import annotations

import pytest

from backend.errors import UnsupportedLanguage
from backend.languages import ALIGNABLE, NAMES, code_of, code_of_name


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("de", "de"), ("de-DE", "de"), ("zh_CN", "zh"), ("ZH-Hant-TW", "zh"), ("German", "de"), ("GERMAN", "de"),
        (" english ", "en"), ("yue", "yue"), ("zh-yue", "yue"), ("cmn", "zh"), ("tl", "fil"), ("Filipino", "fil"),
        ("auto", None), ("", None), ("AUTO", None),
    ],
)  # fmt: skip
def test_a_language_is_given_by_code_region_or_name(written: str, code: str | None) -> None:
    assert code_of(written) == code


@pytest.mark.parametrize("written", ["xx", "klingon", "english please", "q", "de;DE", "None"])
def test_the_error_of_an_unknown_language_does_not_repeat_it(written: str) -> None:
    with pytest.raises(UnsupportedLanguage) as caught:
        code_of(written)
    assert written not in str(caught.value).split()
    assert f"{written}," not in str(caught.value)
    assert "de, " in str(caught.value)


def test_the_tables_agree() -> None:
    assert len(NAMES) == 30
    assert len(ALIGNABLE) == 11
    assert set(NAMES) > ALIGNABLE
    assert all(code_of_name(name) == code for code, name in NAMES.items())
    assert code_of_name("None") is None
