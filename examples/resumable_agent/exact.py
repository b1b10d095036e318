r"""JSON that must come back exactly, over a wire that has one kind of number and no half surrogates.

A Statehouse value is a `google.protobuf.Struct`. What it holds comes back equal, but 1.0 comes back as 1; an integer
beyond 2**53, half of a surrogate pair (`"\ud83d"`, which logs of cut terminal output do hold) and nesting beyond
about 30 levels are refused. `pack` finds these few places and puts the JSON text of each beside the value, under
its JSON pointer (RFC 6901); `unpack` puts them back. In place stays what reads best: 1 for 1.0, else null.
"""

import json
from collections.abc import Mapping
from typing import Final, cast

from statehouse.types import JsonObject, JsonValue

__all__ = ["pack", "unpack"]

EXACT_INTEGER: Final = 2**53
LEVELS: Final = 24
"""Objects and lists nested deeper stand as text; the wire holds 32 objects, and the value stands in others."""


def pack(value: JsonObject) -> tuple[JsonObject, dict[str, str]]:
    """The value as the wire holds it, and the JSON text of each place where that is not the same."""
    texts: dict[str, str] = {}
    plain = _pack(value, "", 1, texts)
    return (plain if isinstance(plain, dict) else {}), texts


def unpack(plain: JsonObject, texts: Mapping[str, str]) -> JsonObject:
    """What was packed. ValueError when a text is not JSON, or its pointer leads nowhere."""
    left = dict(texts)
    value = _unpack(plain, "", left)
    if left:
        raise ValueError(f"there is no {min(left)!r} in the value")
    return cast("JsonObject", value)


def _pack(value: JsonValue, pointer: str, level: int, texts: dict[str, str]) -> JsonValue:
    if isinstance(value, dict) and level <= LEVELS and all(map(_is_unicode, value)):
        return {name: _pack(member, _below(pointer, name), level + 1, texts) for name, member in value.items()}
    if isinstance(value, list) and level <= LEVELS:
        return [_pack(member, f"{pointer}/{index}", level + 1, texts) for index, member in enumerate(value)]
    if isinstance(value, float):
        if not value.is_integer():
            return value
        texts[pointer] = json.dumps(value)
        return int(value) if abs(value) <= EXACT_INTEGER else value
    if value is None or (isinstance(value, str) and _is_unicode(value)):
        return value
    if isinstance(value, int) and -EXACT_INTEGER <= value <= EXACT_INTEGER:  # true and false too
        return value
    texts[pointer] = json.dumps(value)
    return None


def _unpack(value: JsonValue, pointer: str, texts: dict[str, str]) -> JsonValue:
    if pointer in texts:
        exact: JsonValue = json.loads(texts.pop(pointer))
        return exact
    if isinstance(value, dict):
        return {name: _unpack(member, _below(pointer, name), texts) for name, member in value.items()}
    if isinstance(value, list):
        return [_unpack(member, f"{pointer}/{index}", texts) for index, member in enumerate(value)]
    return value


def _below(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
