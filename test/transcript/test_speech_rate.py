"""Texts of equal length in speech have about equally many spoken letters, in any script and in any spelling."""

from __future__ import annotations

import unicodedata

import pytest

from backend.transcript.speech_rate import spoken_letters

# The beginning of article 1 of the Universal Declaration of Human Rights.
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
    "ja": "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}


@pytest.mark.parametrize("code", ARTICLE)
def test_a_sentence_has_about_as_many_in_every_language(code: str) -> None:
    assert 45 <= spoken_letters(ARTICLE[code]) <= 90


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("", 0), ("… — ♪", 0), ("Hm.", 2), ("Straße", 6), ("1984", 12), ("½", 3), ("我们", 6), ("々", 3), ("カメラ", 6),
        ("コーヒー", 8), ("한국", 6), ("की", 2), ("ที่", 3),
    ],
)  # fmt: skip
def test_letters_count_by_their_script(text: str, letters: int) -> None:
    assert spoken_letters(text) == letters


@pytest.mark.parametrize("text", ["déjà vu", "한국어", "Việt Nam", "ガギグ"])
def test_a_text_has_as_many_in_either_normal_form(text: str) -> None:
    assert spoken_letters(unicodedata.normalize("NFD", text)) == spoken_letters(unicodedata.normalize("NFC", text))
