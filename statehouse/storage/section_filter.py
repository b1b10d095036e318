"""What of an event a reader wants, decided and cut out on its bytes.

A section is a sequence of fields, so leaving some operations out is joining the others; nothing is decoded and encoded
again. Fields that a later version adds pass through.
"""

from collections.abc import Mapping
from typing import Final

from statehouse.storage.wire import LENGTH_DELIMITED, fields

__all__ = ["SectionFilter"]

# Field numbers of ReplayEvent, Operation and a map's entries in proto/.
_OPERATIONS: Final = 3
_METADATA: Final = 103
_KEY: Final = 1
_NAME: Final = 1
_VALUE: Final = 2


class SectionFilter:
    """Operations on keys that begin with `key_prefix`, of events that have all of `metadata`."""

    def __init__(self, key_prefix: bytes = b"", metadata: Mapping[str, str] | None = None) -> None:
        self._key_prefix = key_prefix
        self._metadata = frozenset((name.encode(), value.encode()) for name, value in (metadata or {}).items())

    @property
    def lets_all_pass(self) -> bool:
        """Whether there is nothing to filter."""
        return not self._key_prefix and not self._metadata

    def apply(self, section: bytes) -> bytes | None:
        """What is wanted of a section; None when that is nothing. Raises `WireError` for what is no section."""
        if self.lets_all_pass:
            return section
        missing = set(self._metadata)
        kept: list[bytes] = []
        has_operations = False
        begin = 0  # of what is kept and not yet cut out
        end = 0  # of the field before
        for number, wire_type, first, last in fields(section, 0, len(section)):
            if wire_type == LENGTH_DELIMITED:
                if number == _METADATA:
                    missing.discard(_entry(section, first, last))
                elif number == _OPERATIONS:
                    if self._wants(section, first, last):
                        has_operations = True
                    else:
                        kept.append(section[begin:end])
                        begin = last
            end = last
        if missing or not has_operations:
            return None
        if not begin:
            return section
        kept.append(section[begin:])
        return b"".join(kept)

    def _wants(self, section: bytes, start: int, end: int) -> bool:
        if not self._key_prefix:
            return True
        first = last = start
        for number, wire_type, at, behind in fields(section, start, end):
            if number == _KEY and wire_type == LENGTH_DELIMITED:
                first, last = at, behind
        return section.startswith(self._key_prefix, first, last)


def _entry(section: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    name = value = b""
    for number, wire_type, first, last in fields(section, start, end):
        if wire_type == LENGTH_DELIMITED:
            if number == _NAME:
                name = section[first:last]
            elif number == _VALUE:
                value = section[first:last]
    return name, value
