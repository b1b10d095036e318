"""Values of every JSON shape and of chosen sizes, as the bytes of a Struct.

They are encoded here and not by a protobuf library, because a library puts the members of an object into an order of
its own. What clients may send is any order, and a store that keeps bytes has to give back the same.
"""

import random
import struct
from typing import Final

from statehouse.limits import VALUE_INLINE_BYTES
from statehouse.types import JsonObject, JsonValue

__all__ = ["draw_value", "encoded_object"]

DEPTH: Final = 5
"""Objects and lists inside each other."""
NUMBERS: Final = (0, -0.0, 1, -1, 0.1, 1e-320, 1.7976931348623157e308, 2**53, -(2**53), 1e21)
TEXTS: Final = ("", "a", "\0", "é", "🔑", "ключ", '"\\\n', "x" * 127, "y" * 128)
NAMES: Final = ("", "a", "b", "\0", "é🔑", "a.b", "__proto__")
SIZES: Final = {
    VALUE_INLINE_BYTES - 1: 10,
    VALUE_INLINE_BYTES: 10,
    VALUE_INLINE_BYTES + 1: 10,
    700: 8,
    3_000: 4,
    20_000: 1,
}
"""How large a value is made, in bytes, and how often: on both sides of what stands in the view itself."""
SIZED: Final = 0.4
UNUSUAL: Final = (
    b"\x78\x01",  # a field that nobody has declared yet
    b"\x0a\x05\x0a\x01a\x12\x00",  # a member "a", perhaps the second, whose Value has no kind
    b"\x0a\x06\x12\x02\x08\x00\x0a\x00",  # a member whose value comes before its name
)
"""What is no other library's choice of bytes, and is legal; each is the end of a Struct."""
UNUSUALLY: Final = 0.1
LONGEST_FILLER_HEADER: Final = 16


def draw_value(rng: random.Random) -> bytes:
    """A serialized Struct."""
    encoded = encoded_object(_object(rng, rng.randrange(DEPTH)))
    if rng.random() < UNUSUALLY:
        encoded += rng.choice(UNUSUAL)
    if rng.random() >= SIZED:
        return encoded
    [size] = rng.choices(list(SIZES), list(SIZES.values()))
    if len(encoded) + LONGEST_FILLER_HEADER > size:
        encoded = b""
    # The last member brings it to the byte: its length counts itself, so a few lengths are tried.
    for filler in range(size - len(encoded), -1, -1):
        sized = encoded + encoded_object({"filler": "x" * filler})
        if len(sized) <= size:
            return sized
    return encoded


def encoded_object(value: JsonObject) -> bytes:
    """The bytes of a Struct, its members in the order of the dict."""
    members = (_field(1, name.encode()) + _field(2, _encoded(member)) for name, member in value.items())
    return b"".join(_field(1, member) for member in members)


def _encoded(value: JsonValue) -> bytes:
    """The bytes of a Value."""
    match value:
        case None:
            return b"\x08\x00"
        case bool():
            return bytes((0x20, value))
        case int() | float():
            return b"\x11" + struct.pack("<d", value)
        case str():
            return _field(3, value.encode())
        case list():
            return _field(6, b"".join(_field(1, _encoded(member)) for member in value))
        case dict():
            return _field(5, encoded_object(value))


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _length(len(content)) + content


def _length(size: int) -> bytes:
    encoded = b""
    while size >= 0x80:
        encoded += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return encoded + bytes((size,))


def _object(rng: random.Random, depth: int) -> JsonObject:
    names = rng.sample(NAMES, rng.randrange(4))
    return {name: _value(rng, depth - 1) for name in names}


def _value(rng: random.Random, depth: int) -> JsonValue:
    kind = rng.randrange(6 if depth > 0 else 4)
    if kind == 0:
        return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.uniform(-1e6, 1e6)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice((True, False))
    if kind == 3:
        return None
    if kind == 4:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return _object(rng, depth)
