"""What a section says besides its operations, read and changed without those: whose it is, when it was, its metadata.

The operations stand first (`section.py`), and may be many, so that they are stepped over as quickly as can be. Fields
that a later version adds are stepped over, too.
"""

from typing import Final

from statehouse.storage.wire import LENGTH_DELIMITED, WireError, fields, read_short, read_timestamp, tag
from statehouse.types import AgentId

__all__ = ["committed_at_ns", "deletes_expired", "metadata_entries", "renamed", "section_agent"]

# Field numbers of ReplayEvent and Operation in proto/, and the first byte of an operation.
_OPERATIONS: Final = 3
_NAMESPACE: Final = 100
_AGENT_ID: Final = 101
_COMMITTED_AT: Final = 102
_METADATA: Final = 103
_EXPIRED: Final = 101
_OPERATIONS_BYTE: Final = tag(_OPERATIONS, LENGTH_DELIMITED)[0]


def metadata_entries(section: bytes) -> list[bytes]:
    """The section's metadata, each entry as `metadata_entry` makes it, in the order of names. Raises `WireError`."""
    return [
        section[first:last]
        for number, wire_type, first, last in fields(section, _behind_operations(section), len(section))
        if number == _METADATA and wire_type == LENGTH_DELIMITED
    ]


def section_agent(section: bytes) -> AgentId:
    """Whose section it is; both names are empty when it is nobody's. Raises `WireError`."""
    namespace = agent_id = ""
    try:
        for number, wire_type, first, last in fields(section, _behind_operations(section), len(section)):
            if wire_type == LENGTH_DELIMITED and number == _NAMESPACE:
                namespace = section[first:last].decode()
            elif wire_type == LENGTH_DELIMITED and number == _AGENT_ID:
                agent_id = section[first:last].decode()
    except UnicodeDecodeError as error:
        raise WireError("a name in a section that is not UTF-8") from error
    return AgentId(namespace, agent_id)


def renamed(section: bytes, agent: bytes) -> bytes:
    """The section as another agent's: what `agent_fields` gave, in the place of its own names. Raises `WireError`.

    Nothing is left of those, also for whoever reads the bytes.
    """
    kept: list[bytes] = []
    begin = end = _behind_operations(section)
    head = section[:begin]
    for number, _, _, last in fields(section, begin, len(section)):
        if number in (_NAMESPACE, _AGENT_ID):
            kept += (section[begin:end], b"" if kept else agent)
            begin = last
        end = last
    if not kept:
        raise WireError("a section that names no agent")
    return b"".join((head, *kept, section[begin:]))


def committed_at_ns(section: bytes) -> int:
    """When the section's transaction was committed, in nanoseconds since 1970. Raises `WireError`."""
    time_ns = 0
    for number, wire_type, start, end in fields(section, _behind_operations(section), len(section)):
        if number == _COMMITTED_AT and wire_type == LENGTH_DELIMITED:
            time_ns = read_timestamp(section, start, end)
    return time_ns


def deletes_expired(section: bytes) -> bool:
    """Whether the daemon deleted what had expired: then that is all that the section does. Raises `WireError`."""
    for number, wire_type, first, last in fields(section, 0, len(section)):
        if number == _OPERATIONS and wire_type == LENGTH_DELIMITED:
            return any(field == _EXPIRED and bool(value) for field, _, value, _ in fields(section, first, last))
    return False


def _behind_operations(section: bytes) -> int:
    """The offset behind the operations that stand first. Stops, without an error, at anything else."""
    position = 0
    try:
        while section[position] == _OPERATIONS_BYTE:
            length, first = read_short(section, position + 1)
            if first + length > len(section):
                break
            position = first + length
    except IndexError:
        pass
    return position
