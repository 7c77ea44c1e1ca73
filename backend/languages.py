"""The languages of Qwen3-ASR: their ISO 639 codes, their English names, and accepted aliases.

The model and the aligner use English names ("German"), the gateway and its users ISO 639 codes ("de").
Source: the model cards of Qwen3-ASR (30 languages) and of Qwen3-ForcedAligner (11 of them).
"""

from __future__ import annotations

from backend.errors import UnsupportedLanguage

NAMES: dict[str, str] = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fil": "Filipino",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "mk": "Macedonian",
    "ms": "Malay",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}
ALIGNABLE = frozenset({"zh", "yue", "en", "fr", "de", "it", "ja", "ko", "pt", "ru", "es"})
_SCRIPTS: dict[str, frozenset[str]] = {  # by Unicode's names; every other language is written in Latin letters
    "ar": frozenset({"ARABIC"}),
    "el": frozenset({"GREEK"}),
    "fa": frozenset({"ARABIC"}),
    "hi": frozenset({"DEVANAGARI"}),
    "ja": frozenset({"HIRAGANA", "KATAKANA", "CJK"}),
    "ko": frozenset({"HANGUL", "CJK"}),
    "mk": frozenset({"CYRILLIC"}),
    "ru": frozenset({"CYRILLIC"}),
    "th": frozenset({"THAI"}),
    "yue": frozenset({"CJK"}),
    "zh": frozenset({"CJK"}),
}
_LATIN = frozenset({"LATIN"})

_MAX_CHARS = 64  # more than any name of a language; longer values are not parsed on the event loop's thread
_CODES = {name.lower(): code for code, name in NAMES.items()}
# Accepted as well: ISO 639-3 for Mandarin, the older codes of Filipino and Indonesian, everyday names.
_ALIASES = {
    "cmn": "zh",
    "mandarin": "zh",
    "tl": "fil",
    "tagalog": "fil",
    "in": "id",
    "farsi": "fa",
    "zh-yue": "yue",
}


def code_of(language: str) -> str | None:
    """The code of a language given as code, code with region (`de-DE`, `zh_CN`) or English name, in any case.

    None for "" and "auto", which ask for detection. Raises UnsupportedLanguage for anything else.
    """
    if len(language) > _MAX_CHARS:
        raise UnsupportedLanguage(NAMES)
    normalized = language.strip().lower().replace("_", "-")
    if normalized in ("", "auto"):
        return None
    for spelling in (normalized, normalized.split("-")[0]):
        code = _ALIASES.get(spelling) or _CODES.get(spelling) or (spelling if spelling in NAMES else None)
        if code:
            return code
    raise UnsupportedLanguage(NAMES)


def scripts_of(code: str) -> frozenset[str]:
    """The scripts in which a language is written, as transcript/scripts.script_of names them."""
    return _SCRIPTS.get(code, _LATIN)


def code_of_name(name: str) -> str | None:
    """The code of a language as the model names it; None for "None" (no speech) and for names not in the table."""
    return _CODES.get(name.strip().lower())
