"""Damages bytes as accidents and attackers do; the same seed always gives the same bytes."""

import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence

# Numbers that a length, a count or an offset should not be, in one to eight bytes.
_LIES = (0, 1, 2, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**64 - 1)
# What a number in a text should not be.
_WORDS = (
    *(
        b"0",
        b"-1",
        b"1e400",
        b"-1e400",
        b"NaN",
        b"Infinity",
        b"99999999999999999999",
        b"9" * 5000,
        b"0.5",
        b"2147483648",
    ),
    *(
        b"null",
        b"true",
        b'"x"',
        b"[]",
        b"{}",
        b"[[[]]]",
        b'"\\ud800"',
        b'"\\u0000"',
        b'"../../x"',
        b"[" * 20000,
        b'{"a":' * 5000,
    ),
)
_TOKEN = re.compile(rb'-?\d[\d.e+-]*|"[^"\n]{0,60}"|true|false|null')


def mutated(data: bytes, seed: int) -> bytes:
    """Returns the bytes after one to four random changes that the seed decides."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_CHANGES)(data, rng)
    return data


def mutated_text(data: bytes, seed: int) -> bytes:
    """Returns a text, such as JSON, CSV or XML, after random changes of words and bytes."""
    rng = random.Random(seed)
    words = (_swap_token, _swap_token, _drop_token, _move_token)
    for _ in range(rng.choice((1, 1, 1, 2))):
        data = rng.choice(words if rng.random() < 0.75 else _CHANGES)(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    """Returns a place in the bytes; in half of the cases one of the first 200, where the headers are."""
    return rng.randrange(max(1, min(len(data), 200) if rng.random() < 0.5 else len(data)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 3, 30))):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.randrange(1, 64) :]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """Copies a part of the bytes to another place."""
    start, at = _place(data, rng), _place(data, rng)
    return data[:at] + data[start : start + rng.randrange(1, 400)] + data[at + rng.choice((0, 50)) :]


def _lie(data: bytes, rng: random.Random) -> bytes:
    """Writes a number that a length should not be, in either order of bytes."""
    at, count = _place(data, rng), rng.choice((1, 2, 4, 8))
    number = rng.choice(_LIES) % 256**count
    return data[:at] + number.to_bytes(count, rng.choice(("little", "big"))) + data[at + count :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, count = _place(data, rng), rng.choice((1, 8, 100))
    return data[:at] + data[at : at + count] * rng.choice((2, 50)) + data[at + count :]


def _noise(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 20, 300))) + data[at + 20 :]


def _append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 500)))


def _empty(data: bytes, rng: random.Random) -> bytes:
    return b"\0" * rng.choice((0, 1, 100)) if rng.random() < 0.1 else _flip(data, rng)


_CHANGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(_flip, _flip, _truncate, _cut_out, _splice, _lie, _lie, _lie, _repeat, _noise, _append, _empty),
)


def _tokens(data: bytes, rng: random.Random) -> re.Match[bytes] | None:
    found = list(_TOKEN.finditer(data[:200_000]))
    return rng.choice(found) if found else None


def _swap_token(data: bytes, rng: random.Random) -> bytes:
    token = _tokens(data, rng)
    return data if token is None else data[: token.start()] + rng.choice(_WORDS) + data[token.end() :]


def _drop_token(data: bytes, rng: random.Random) -> bytes:
    """Takes a word out; of `"key": value`, often the key alone, so that another name stands there."""
    token = _tokens(data, rng)
    if token is None:
        return data
    instead = rng.choice((b"", b'"other"', token.group()[:-2] + b'"'))
    return data[: token.start()] + instead + data[token.end() :]


def _move_token(data: bytes, rng: random.Random) -> bytes:
    one, other = _tokens(data, rng), _tokens(data, rng)
    return data if one is None or other is None else data[: one.start()] + other.group() + data[one.end() :]


def with_right_sums(png: bytes) -> bytes:
    """Returns a PNG file with the check sum that each of its chunks should have, so that its content is read."""
    result, place = png[:8], 8
    while place + 12 <= len(png):
        length = struct.unpack(">I", png[place : place + 4])[0]
        body = png[place + 4 : place + 8 + length]
        if len(body) < 4 + length:
            break
        result += png[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return result + png[place:]
