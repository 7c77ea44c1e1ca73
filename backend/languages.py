"""The languages Qwen3-ASR knows: their codes, their names, and what people write instead.

The model and the aligner speak English names ("German"), the gateway and its users ISO 639 codes ("de").
Source: the model card of Qwen3-ASR (30 languages) and of Qwen3-ForcedAligner (11 of them).
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

_LONGEST = 64  # characters; no name of a language has more, and this is looked at where Health answers
_CODES = {name.lower(): code for code, name in NAMES.items()}
# What else people send: ISO 639-3 for Mandarin, the older codes of Filipino and Indonesian, everyday names.
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

    "" and "auto" mean: detect it (None). Raises UnsupportedLanguage for anything else.
    """
    if len(language) > _LONGEST:
        raise UnsupportedLanguage(NAMES)
    wanted = language.strip().lower().replace("_", "-")
    if wanted in ("", "auto"):
        return None
    for spelling in (wanted, wanted.split("-")[0]):
        code = _ALIASES.get(spelling) or _CODES.get(spelling) or (spelling if spelling in NAMES else None)
        if code:
            return code
    raise UnsupportedLanguage(NAMES)


def code_of_name(name: str) -> str | None:
    """The code of a language as the model names it; None for "None" and for names it should not know."""
    return _CODES.get(name.strip().lower())
