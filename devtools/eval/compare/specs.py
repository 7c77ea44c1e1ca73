"""The systems of one report: SYSTEMS="int8: quantization=int8; small: model=Qwen/Qwen3-ASR-0.6B; old: rev=HEAD~5".

The first system is what MODEL, ALIGNER, OPTIONS and QUANTIZATION say. Each further one is like it but for what it
names: `model=`, `aligner=`, `quantization=`, `rev=` (another commit of this project) and options as `name:value`.
`package` alone is the qwen-asr package with the first system's models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from backend.wire.backend_pb2 import ModelOptions
from devtools.transcribe.checkpoints import chosen_aligner, load_options

BACKEND, PACKAGE = "backend", "package"  # names of the first system, and of the package
TAKEN = frozenset({"truth", "ratio"})  # other rows of the table and of the page
_NAME = re.compile(r"[\w.+-]{1,24}")
_FIELDS = ("model", "aligner", "quantization", "rev")


class SpecError(Exception):
    """SYSTEMS cannot be used; the message says why, and what to do."""


@dataclass(frozen=True)
class Spec:
    """`aligner` None: the demo's with the demo's model, else none. `revision`: another commit of this project."""

    name: str
    model: str
    aligner: str | None = None
    options: tuple[str, ...] = ()
    quantization: str = ""
    revision: str = ""
    is_package: bool = False

    def load(self) -> ModelOptions:
        """LoadModel's request. Raises NotLoadable."""
        aligner = chosen_aligner(self.model, self.aligner)
        if self.is_package:
            return load_options(self.model, aligner)
        return load_options(self.model, aligner, self.options, self.quantization)

    def beside(self, first: Spec) -> str:
        """In what it differs from the first system, for people."""
        if self.is_package:
            return "the qwen-asr package, one file at a time"
        names = {"model": "model", "aligner": "aligner", "quantization": "quantization", "revision": "commit"}
        fields = [(name, getattr(self, key), getattr(first, key)) for key, name in names.items()]
        found = [f"{name} {value or 'none'}" for name, value, other in fields if value != other]
        found += [option for option in self.options if option not in first.options]
        return ", ".join(found) or "the same again"


def further(text: str, first: Spec) -> list[Spec]:
    """The systems that SYSTEMS names. Raises SpecError."""
    return [_spec(part.strip(), first) for part in text.split(";") if part.strip()]


def check(specs: Sequence[Spec]) -> None:
    """Raises SpecError where two have one name, or a name cannot be shown."""
    names = [spec.name for spec in specs]
    for name in names:
        if _NAME.fullmatch(name) is None or name in TAKEN:
            raise SpecError(f'SYSTEMS: "{name}" is no name for a system; up to 24 letters, digits and . _ + -')
        if names.count(name) > 1:
            raise SpecError(f'SYSTEMS: there are two systems "{name}"; give each a name of its own')


def _spec(part: str, first: Spec) -> Spec:
    name, has_colon, words = part.partition(":")
    name = name.strip()
    if not has_colon:
        if name == PACKAGE:
            return replace(first, name=PACKAGE, is_package=True, revision="")
        raise SpecError(f'SYSTEMS: "{part}" says nothing about the system; write "{name}: quantization=int8" or alike')
    fields, options = _fields(name, words.split())
    changed = {"revision" if key == "rev" else key: value for key, value in fields.items()}
    spec = replace(first, name=name, options=_merged(first.options, options), is_package=False, **changed)
    if spec == replace(first, name=name):
        raise SpecError(f'SYSTEMS: "{name}" is the first system again; name what is different')
    return spec


class _Named(NamedTuple):
    fields: dict[str, str]
    options: list[str]


def _fields(name: str, words: Iterable[str]) -> _Named:
    found = _Named({}, [])
    for word in words:
        key, has_sign, value = word.partition("=")
        if has_sign and key in _FIELDS:
            found.fields[key] = value
        elif re.match(r"\w+:", word):
            found.options.append(word)
        else:
            known = ", ".join(f"{field}=" for field in _FIELDS)
            raise SpecError(f'SYSTEMS: "{word}" of "{name}" is not known; known: {known} and options as name:value')
    return found


def _merged(first: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """An option that both have is the system's own."""
    names = {option.partition(":")[0] for option in own}
    return (*(option for option in first if option.partition(":")[0] not in names), *own)
