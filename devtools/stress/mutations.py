"""Ways in which a file is damaged, by accident or on purpose. Each takes a source of chance, the file, another one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

Mutation: TypeAlias = Callable[[Random, bytes, bytes], bytes]

_HEADER = 128  # bytes in which most containers say what they hold
_EXTREMES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 36,
             (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
_WAV_FIELDS = {4: 4, 16: 4, 20: 2, 22: 2, 24: 4, 28: 4, 32: 2, 34: 2, 40: 4}  # offset: length, of a plain header
_PLACES = (1, 4, 12, 36, 44, 64, 128, 512)


def flipped(chance: Random, file: bytes, _other: bytes) -> bytes:
    """Bits, anywhere."""
    return _flipped(chance, file, len(file))


def flipped_header(chance: Random, file: bytes, _other: bytes) -> bytes:
    return _flipped(chance, file, min(chance.choice((16, 64, 400)), len(file)))


def _flipped(chance: Random, file: bytes, within: int) -> bytes:
    changed = bytearray(file)
    for _ in range(chance.choice((1, 1, 2, 8, 32))):
        changed[chance.randrange(within)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: Random, file: bytes, _other: bytes) -> bytes:
    """In the header, in the middle, or just before the end."""
    return file[: min(chance.choice((*_PLACES, len(file) // 2, len(file) - 1, chance.randrange(len(file)))), len(file))]


def beheaded(chance: Random, file: bytes, _other: bytes) -> bytes:
    return file[chance.choice((*_PLACES, chance.randrange(len(file)))) :]


def rewritten(chance: Random, file: bytes, _other: bytes) -> bytes:
    """Numbers of the header: sizes, rates, channels, block lengths, claims of 2^36 samples."""
    changed = bytearray(file)
    for _ in range(chance.choice((1, 1, 2, 3))):
        is_wav = file[:4] in (b"RIFF", b"RF64") and chance.random() < 0.7
        at = chance.choice(list(_WAV_FIELDS)) if is_wav else chance.randrange(min(_HEADER, len(file)))
        length = _WAV_FIELDS[at] if is_wav else chance.choice((1, 2, 3, 4, 8))
        value = chance.choice((*_EXTREMES, chance.getrandbits(8 * length))) % (1 << 8 * length)
        changed[at : at + length] = value.to_bytes(length, "little" if is_wav or chance.random() < 0.5 else "big")
    return bytes(changed)


def claiming(chance: Random, file: bytes, _other: bytes) -> bytes:
    """FLAC's STREAMINFO says 2^36 - 1 samples; other containers get all ones where their lengths usually stand."""
    changed = bytearray(file)
    if file[:4] == b"fLaC":
        changed[21] |= 0x0F
        changed[22:26] = b"\xff" * 4
    else:
        at = chance.choice((4, 16, 20, 28, 40))
        changed[at : at + 4] = b"\xff" * 4
    return bytes(changed[: max(len(file), 1)])


def spliced(chance: Random, file: bytes, other: bytes) -> bytes:
    """The head of one and the tail of another."""
    return file[: chance.randrange(len(file)) + 1] + other[chance.randrange(len(other)) :]


def inserted(chance: Random, file: bytes, other: bytes) -> bytes:
    """Zeros, random bytes, or a piece of another file in the middle."""
    at, length = chance.randrange(len(file)), chance.choice((1, 3, 16, 512, 4096))
    begin = chance.randrange(len(other))
    piece = chance.choice((bytes(length), chance.randbytes(length), other[begin : begin + length]))
    return file[:at] + piece + file[at:]


def blanked(chance: Random, file: bytes, _other: bytes) -> bytes:
    """Zeros in place of what stood there."""
    at, length = chance.randrange(len(file)), chance.choice((4, 64, 512, 4096))
    return file[:at] + bytes(len(file[at : at + length])) + file[at + length :]


def randomised(chance: Random, file: bytes, _other: bytes) -> bytes:
    """A good header, and chance behind it."""
    header = chance.choice(_PLACES)
    return file[:header] + chance.randbytes(max(len(file) - header, 0))


def repeated(chance: Random, file: bytes, _other: bytes) -> bytes:
    """A piece of it many times over."""
    at, length = chance.randrange(len(file)), chance.choice((8, 64, 1024))
    return file[:at] + file[at : at + length] * chance.choice((2, 16, 64)) + file[at:]


MUTATIONS: tuple[Mutation, ...] = (
    flipped, flipped_header, cut, beheaded, rewritten, rewritten, claiming, spliced, inserted, blanked, randomised,
    repeated,
)  # fmt: skip


def mutated(chance: Random, file: bytes, other: bytes) -> tuple[bytes, str]:
    """The file after one to three mutations, and their names."""
    names = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        mutation = chance.choice(MUTATIONS)
        file = mutation(chance, file, other) or b"\0"
        names.append(mutation.__name__)
    return file, " + ".join(names)
