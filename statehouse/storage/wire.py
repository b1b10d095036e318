"""The little of protobuf's wire encoding that is done by hand, and nothing about any message.

A message is a sequence of fields, each a tag (`number << 3 | wire type`, a varint) and a value; the
encoding of a message in pieces is the concatenation of the pieces' encodings. That is what lets the
partition encode its operations once and the sequencer append what only it knows, and what lets recovery
find the bytes of a value in the log without decoding them. Source: protobuf.dev, "Encoding".

The protobuf runtime judges all of it in tests/storage/test_wire.py.
"""

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5

_U64_MAX: Final = 2**64 - 1
_LONGEST_VARINT: Final = 10
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(0x80))

# Fields of google.protobuf.Timestamp
_SECONDS: Final = 1
_NANOS: Final = 2
_NS_PER_S: Final = 1_000_000_000


class WireError(ValueError):
    """Bytes that are not the encoding of a message."""


def varint(number: int) -> bytes:
    """Encode an integer from 0 to 2^64 - 1; ValueError outside of that."""
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    if 0 <= number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if 0 <= number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    if not 0 <= number <= _U64_MAX:
        raise ValueError(f"{number} does not fit an unsigned 64-bit integer")
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(buffer: bytes, start: int) -> tuple[int, int]:
    """The integer at `start`, and the offset behind it. Raises `WireError` when it is cut or over 64 bits."""
    number = 0
    position = start
    try:
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            byte = buffer[position]
            position += 1
            if byte < 0x80:
                number |= byte << shift
                if number > _U64_MAX:
                    break
                return number, position
            number |= (byte & 0x7F) << shift
    except IndexError:
        raise WireError(f"a varint at {start} that does not end") from None
    raise WireError(f"a varint at {start} that is over 64 bits")


def read_short(buffer: bytes, start: int) -> tuple[int, int]:
    """`read_varint`, quick for one and two bytes. Raises IndexError at the buffer's end."""
    number = buffer[start]
    if number < 0x80:
        return number, start + 1
    byte = buffer[start + 1]
    if byte < 0x80:
        return number & 0x7F | byte << 7, start + 2
    return read_varint(buffer, start)


def tag(number: int, wire_type: int) -> bytes:
    """What a field begins with; for constants, not for loops."""
    return varint(number << 3 | wire_type)


_SECONDS_TAG: Final = tag(_SECONDS, VARINT)
_NANOS_TAG: Final = tag(_NANOS, VARINT)


def length_delimited(number: int, payload: bytes) -> bytes:
    """A field of text, bytes or an encoded message."""
    return tag(number, LENGTH_DELIMITED) + varint(len(payload)) + payload


def timestamp(time_ns: int) -> bytes:
    """The encoding of a google.protobuf.Timestamp: a time in nanoseconds since 1970, not before it (ValueError)."""
    seconds, nanos = divmod(time_ns, _NS_PER_S)
    encoded = b""
    if seconds:
        encoded += _SECONDS_TAG + varint(seconds)
    if nanos:
        encoded += _NANOS_TAG + varint(nanos)
    return encoded


def fields(buffer: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message that stands in `buffer[start:end]`, as offsets and without a copy.

    Yields (number, wire type, first, last): for a length-delimited or fixed-size field the value is
    `buffer[first:last]`, for a varint the value is `first` itself, and `last` is where the field ends.
    Raises `WireError` when the bytes are not a message, groups included: proto3 has none.
    """
    position = start
    try:
        while position < end:
            # A varint of one or two bytes, which nearly all are, is read in place: a call for each tag and
            # each length doubled the time of a walk.
            key = buffer[position]
            position += 1
            if key >= 0x80:
                if (second := buffer[position]) < 0x80:
                    key += (second << 7) - 0x80
                    position += 1
                else:
                    key, position = read_varint(buffer, position - 1)
            wire_type = key & 7
            if wire_type == LENGTH_DELIMITED or wire_type == VARINT:  # noqa: PLR1714, SIM109 - twice as fast
                first = buffer[position]
                position += 1
                if first >= 0x80:
                    if (second := buffer[position]) < 0x80:
                        first += (second << 7) - 0x80
                        position += 1
                    else:
                        first, position = read_varint(buffer, position - 1)
                if wire_type == LENGTH_DELIMITED:
                    first, position = position, position + first
            elif wire_type == FIXED64:
                first, position = position, position + 8
            elif wire_type == FIXED32:
                first, position = position, position + 4
            else:
                raise WireError(f"field {key >> 3} has wire type {wire_type}")
            if position > end or key < 8:
                raise WireError(f"field {key >> 3} ends at {position}, its message at {end}")
            yield key >> 3, wire_type, first, position
    except IndexError:
        raise WireError(f"the message ends within a field, at {end}") from None


def read_timestamp(buffer: bytes, start: int, end: int) -> int:
    """The nanoseconds since 1970 of the Timestamp that stands in `buffer[start:end]`. Raises `WireError`."""
    seconds = nanos = 0
    for number, wire_type, value, _ in fields(buffer, start, end):
        if wire_type == VARINT and number == _SECONDS:
            seconds = value
        elif wire_type == VARINT and number == _NANOS:
            nanos = value
    return seconds * _NS_PER_S + nanos
