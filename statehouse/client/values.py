"""Values between Python and the wire: a plain `dict` on one side, a `google.protobuf.Struct` on the other.

What is written comes back equal, or is refused before anything is sent; nothing changes in silence. The wire
knows one kind of number, a double, so

* a whole number comes back as `int`: 1.0 is written and 1 comes back, which are equal. A whole number beyond
  2**53 comes back as the `float` it was, and so does -0.0;
* an `int` beyond 2**53, where doubles begin to leave some out, NaN and the infinities are refused.

The wire knows one kind of sequence too. A tuple would come back as a list, which it is not equal to: it is
refused, and `list(...)` is the caller's to say. The same holds for every other type that JSON has not.
Subclasses of `dict`, `list`, `str`, `int` and `float` are written as what they are a kind of.

The order of an object's members is not kept: a Struct is a map, and has none. Equality of dicts does not look at it.
"""

import math
from collections.abc import MutableMapping
from typing import Final, cast

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from statehouse.types import JsonObject, JsonValue

__all__ = ["from_struct", "to_struct"]

EXACT_INTEGER: Final = 2**53
"""Up to here, and no further, every integer is a double."""

NESTED_MESSAGES: Final = 98
"""How deep objects and lists may nest: parsers stop at 100 nested messages, and a value stands inside others.

An object counts for 3 (Struct, map entry, Value), a list for 2 (ListValue, Value).
"""


class _Refused(ValueError):  # noqa: N818
    """Why, and the way back up to the value: path parts, the innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def to_struct(value: JsonObject, struct: Struct) -> None:
    """Write a JSON object into an empty `struct`.

    Raises ValueError, which names the place (`value.items[3].price`), for what JSON or the wire has not; see
    the module's text for what that is.
    """
    if not isinstance(value, dict):
        raise ValueError(f"value: {_kind(value)} is not a JSON object; a value is a dict")  # noqa: TRY004  as the rest
    try:
        _write_object(value, struct, 1)
    except _Refused as refused:
        raise ValueError(f"value{''.join(reversed(refused.path))}: {refused.reason}") from None


def from_struct(struct: Struct) -> JsonObject:
    """Read a JSON object: dict, list, str, int, float, bool and None all the way down."""
    return {key: _read(value) for key, value in struct.fields.items()}


def _write_object(members: dict[str, JsonValue], struct: Struct, depth: int) -> None:
    _check_depth(depth + 2 if members else depth)
    fields = struct.fields
    for key, member in members.items():
        try:
            _write(member, _field(fields, key), depth + 2)
        except _Refused as refused:
            refused.path.append(f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]")
            raise


def _write_list(members: list[JsonValue], values: ListValue, depth: int) -> None:
    _check_depth(depth + 1 if members else depth)
    add = values.values.add
    for index, member in enumerate(members):
        try:
            _write(member, add(), depth + 1)
        except _Refused as refused:
            refused.path.append(f"[{index}]")
            raise


def _field(fields: MutableMapping[str, Value], key: str) -> Value:
    if not isinstance(key, str):
        raise _Refused(f"the key is {_kind(key)}, not a string")
    try:
        return fields[key]
    except UnicodeEncodeError:
        raise _Refused("the key is not Unicode text (it holds half of a surrogate pair)") from None


def _check_depth(depth: int) -> None:
    if depth > NESTED_MESSAGES:
        raise _Refused(
            "nested too deep: the limit is 32 objects inside each other, or 47 lists in an object, and one more when "
            "the innermost is empty"
        )


def _write(member: JsonValue, target: Value, depth: int) -> None:
    if isinstance(member, str):
        try:
            target.string_value = member
        except UnicodeEncodeError:
            raise _Refused("a string that is not Unicode text (it holds half of a surrogate pair)") from None
    elif member is None:
        target.null_value = 0  # type: ignore[assignment]
    elif isinstance(member, bool):
        target.bool_value = member
    elif isinstance(member, int):
        if not -EXACT_INTEGER <= member <= EXACT_INTEGER:
            raise _Refused(f"an integer beyond 2**53 does not survive the wire ({member.bit_length()} bits)")
        target.number_value = member
    elif isinstance(member, float):
        if not math.isfinite(member):
            raise _Refused(f"{member} is not a JSON number")
        target.number_value = member
    elif isinstance(member, dict):
        if not member:
            target.struct_value.SetInParent()
        _write_object(member, target.struct_value, depth + 1)
    elif isinstance(member, list):
        if not member:
            target.list_value.SetInParent()
        _write_list(member, target.list_value, depth + 1)
    else:
        hint = "; write list(...)" if isinstance(member, tuple) else ""
        raise _Refused(f"{_kind(member)} is not JSON{hint}")


def _read(value: Value) -> JsonValue:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        if number.is_integer() and -EXACT_INTEGER <= number <= EXACT_INTEGER:
            whole = int(number)
            return whole if whole or math.copysign(1.0, number) > 0 else number
        return number
    if kind == "struct_value":
        return {key: _read(member) for key, member in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_read(member) for member in value.list_value.values]
    if kind == "bool_value":
        return value.bool_value
    return None  # null_value, or no kind at all, which protobuf libraries read as null too


def _kind(value: object) -> str:
    return f"a {cast('type', type(value)).__name__}"
