"""Whether the bytes of a value may be stored: all that is checked of a `google.protobuf.Struct` is here.

A value is kept byte for byte as the client sent it, so nothing is decoded for its content; but whoever reads
it later decodes it with a stock protobuf parser, and must succeed. Therefore a value

* parses as a Struct (which covers UTF-8 in its strings) *inside the deepest envelope that anyone reads it
  in*, which is LogRecord > ReplayEvent > Operation. Stock parsers stop at 100 nested messages, and a value
  that only just parses by itself could be written and never be replayed;
* holds finite numbers: JSON has no others, and they compare and print differently everywhere.

A `Value` in which no kind is set is accepted: it is kept as it is and stands for null, which is what the
clients and protobuf's own `json_format` make of it. Unknown fields are kept too.
"""

import math
import re
from typing import Final

from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError

from statehouse.errors import InvalidRequestError
from statehouse.storage.v1 import log_pb2
from statehouse.storage.wire import LENGTH_DELIMITED, WireError, fields, length_delimited
from statehouse.v1 import statehouse_pb2

__all__ = ["NESTED_MESSAGES", "check_struct"]

_SECTIONS: Final = log_pb2.LogRecord.SECTIONS_FIELD_NUMBER
_OPERATIONS: Final = statehouse_pb2.ReplayEvent.OPERATIONS_FIELD_NUMBER
_VALUE_OF_OPERATION: Final = statehouse_pb2.Operation.VALUE_FIELD_NUMBER

NESTED_MESSAGES: Final = 98
"""How deep a Struct may nest, itself included: the 100 of the parsers, less what stands around it.

An object in an object takes three messages (Struct, map entry, Value), a list in a list two: 32 objects, or 47
lists in an object, and one more when the innermost is empty.
"""

_SCANNED_FIELDS: Final = 20_000
"""Fields looked at, at most, to tell a value that is too deep from one that is malformed."""

# The three last bytes of a double: an exponent of all ones (infinity, NaN) is xxxxxxxx 1111xxxx x1111111. The
# table sorts bytes into those that can be the last but one, the last, either, or neither, so that a scan at
# the speed of memchr rules out almost every value.
_EXPONENT_CLASSES: Final = bytes(
    3 if byte == 0xFF else 2 if byte >= 0xF0 else 1 if byte == 0x7F else 0 for byte in range(256)
)
_ALL_ONES: Final = (b"\x02\x01", b"\x02\x03", b"\x03\x01", b"\x03\x03")
# Eight bytes before it ends the tag of number_value: 0x11, or 0x00 when somebody wrote it as a longer varint.
_NOT_FINITE: Final = re.compile(rb"[\x11\x00].{6}[\xf0-\xff][\x7f\xff]", re.DOTALL)


def check_struct(value: bytes) -> None:
    """Raise InvalidRequestError unless `value` is a serialized Struct that may be stored.

    Takes a few milliseconds for 1 MiB; some 40 ms in the rare case that every number must be looked at.
    """
    section = length_delimited(_OPERATIONS, length_delimited(_VALUE_OF_OPERATION, value))
    try:
        record = log_pb2.LogRecord.FromString(length_delimited(_SECTIONS, section))
    except DecodeError:
        raise _reason(value) from None
    if _may_hold_not_finite(value):
        _check_numbers(record.sections[0].operations[0].value)


def _may_hold_not_finite(value: bytes) -> bool:
    """False only when no number in `value` can be infinite or NaN; True may be a false alarm."""
    classes = value.translate(_EXPONENT_CLASSES)
    return any(pair in classes for pair in _ALL_ONES) and _NOT_FINITE.search(value) is not None


def _check_numbers(value: struct_pb2.Struct) -> None:
    isfinite = math.isfinite
    pending: list[struct_pb2.Struct | struct_pb2.ListValue] = [value]
    while pending:
        container = pending.pop()
        children = container.fields.values() if isinstance(container, struct_pb2.Struct) else container.values
        for child in children:
            kind = child.WhichOneof("kind")
            if kind == "number_value":
                if not isfinite(child.number_value):
                    raise InvalidRequestError("the value holds a number that is not finite (NaN or infinity)")
            elif kind == "struct_value":
                pending.append(child.struct_value)
            elif kind == "list_value":
                pending.append(child.list_value)


def _reason(value: bytes) -> InvalidRequestError:
    """Why a value did not parse: some protobuf runtimes do not say."""
    if _is_too_deep(value):
        return InvalidRequestError(
            f"the value is nested too deep: the limit is {NESTED_MESSAGES} protobuf messages, which is 32 objects "
            "inside each other, or 47 lists in an object, and one more when the innermost is empty",
            details={"limit": str(NESTED_MESSAGES), "size": f"over {NESTED_MESSAGES}"},
        )
    return InvalidRequestError("the value is not a well-formed google.protobuf.Struct")


# Field number -> kind of the message in it, for each kind of message.
_STRUCT, _ENTRY, _VALUE, _LIST = range(4)
_CHILDREN: Final = ({1: _ENTRY}, {2: _VALUE}, {5: _STRUCT, 6: _LIST}, {1: _VALUE})


def _is_too_deep(value: bytes) -> bool:
    """Whether nesting past the limit is met before anything malformed, within _SCANNED_FIELDS fields."""
    stack = [(_STRUCT, fields(value, 0, len(value)))]
    try:
        for _ in range(_SCANNED_FIELDS):
            kind, siblings = stack[-1]
            field = next(siblings, None)
            if field is None:
                stack.pop()
                if not stack:
                    return False
                continue
            number, wire_type, first, last = field
            child = _CHILDREN[kind].get(number) if wire_type == LENGTH_DELIMITED else None
            if child is not None:
                if len(stack) == NESTED_MESSAGES:
                    return True
                stack.append((child, fields(value, first, last)))
    except WireError:
        return False
    return False
