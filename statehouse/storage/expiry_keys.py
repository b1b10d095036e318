"""Keys of what expires: those columns of the key table (`keys.py`) by which expired values are found.

    0x01 's' | commit_ts u64                                                    time u64: a commit that noted so
    0x01 'x' | expires_at u64 | agent's prefix less its 0x02 | name(key) | version u64    commit_ts u64
    0x01 'x' | forked_at + 1 u64 | fork's prefix less its 0x02                  commit_ts u64
    prefix 'x' | expires_at u64 | name(key) | version u64                       commit_ts u64

Times are in nanoseconds since 1970. Each write with a TTL leaves two rows, in the order of time among those of all
agents, and among those of its own. Each fork leaves one among those of all: from then on it has, of its parent, what
had expired and had not been deleted at its point. One nanosecond later than the fork, so that it stands behind every
time that was read from the clock before the fork was dated. No row is ever changed or removed.

All of it is pure, and unpacking raises `ViewDamagedError`.
"""

from struct import Struct
from typing import Final, NamedTuple

from statehouse.storage import keys
from statehouse.storage.keys import U64_MAX, KeyRange, prefix_end, read_name
from statehouse.storage.view import ViewDamagedError

__all__ = [
    "AGENT_EXPIRY",
    "EXPIRY",
    "SWEPT",
    "ExpiryName",
    "agent_expiry_key",
    "agent_expiry_range",
    "expiry_key",
    "expiry_range",
    "fork_expiry_key",
    "swept_key",
    "swept_range",
    "unpack_agent_expiry_key",
    "unpack_expiry_key",
    "unpack_swept_key",
]

AGENT_EXPIRY: Final = b"x"
SWEPT: Final = keys.GLOBAL + b"s"
EXPIRY: Final = keys.GLOBAL + b"x"

_U64: Final = Struct(">Q")
_pack_u64: Final = _U64.pack


class ExpiryName(NamedTuple):
    """What a row among those of all agents is of."""

    at_ns: int
    prefix: bytes
    """Of the agent's rows."""
    key: bytes | None
    """None: a fork, which came to be."""
    version: int


# Among the rows of all agents


def expiry_key(at_ns: int, prefix: bytes, key: bytes, version: int) -> bytes:
    return EXPIRY + _pack_u64(at_ns) + prefix[1:] + keys.name(key) + _pack_u64(version)


def fork_expiry_key(forked_at_ns: int, prefix: bytes) -> bytes:
    return EXPIRY + _pack_u64(min(forked_at_ns + 1, U64_MAX)) + prefix[1:]


def unpack_expiry_key(packed: bytes) -> ExpiryName:
    """When, whose, and what it is."""
    if not packed.startswith(EXPIRY) or len(packed) < 10:
        raise ViewDamagedError(f"not a key of column x: {packed.hex()}")
    at_ns = int.from_bytes(packed[2:10])
    _, end = read_name(packed, 10)
    _, end = read_name(packed, end)
    prefix = keys.AGENT + packed[10:end]
    if end == len(packed):
        return ExpiryName(at_ns, prefix, None, 0)
    key, end = read_name(packed, end)
    return ExpiryName(at_ns, prefix, key, _last_u64(packed, end))


def expiry_range(first_ns: int, last_ns: int) -> KeyRange:
    """What expires from one time to another, both included, soonest first."""
    return _times(EXPIRY, first_ns, last_ns)


def swept_key(commit_ts: int) -> bytes:
    return SWEPT + _pack_u64(commit_ts)


def unpack_swept_key(packed: bytes) -> int:
    """The commit_ts."""
    if not packed.startswith(SWEPT):
        raise ViewDamagedError(f"not a key of column s of all agents: {packed.hex()}")
    return _last_u64(packed, len(SWEPT))


def swept_range(last_ts: int = U64_MAX) -> KeyRange:
    """What was noted up to that commit, oldest first."""
    return _times(SWEPT, 0, last_ts)


# Among the rows of one agent


def agent_expiry_key(prefix: bytes, at_ns: int, key: bytes, version: int) -> bytes:
    return prefix + AGENT_EXPIRY + _pack_u64(at_ns) + keys.name(key) + _pack_u64(version)


def unpack_agent_expiry_key(prefix: bytes, packed: bytes) -> tuple[int, bytes, int]:
    """When it expires, the key and the version."""
    start = len(prefix) + 9
    if packed[: len(prefix) + 1] != prefix + AGENT_EXPIRY or len(packed) < start:
        raise ViewDamagedError(f"not a key of column x of that agent: {packed.hex()}")
    key, end = read_name(packed, start)
    return int.from_bytes(packed[start - 8 : start]), key, _last_u64(packed, end)


def agent_expiry_range(prefix: bytes, first_ns: int, last_ns: int) -> KeyRange:
    """What of the agent expires from one time to another, both included, soonest first."""
    return _times(prefix + AGENT_EXPIRY, first_ns, last_ns)


def _times(column: bytes, first: int, last: int) -> KeyRange:
    stop = column + _pack_u64(last + 1) if last < U64_MAX else prefix_end(column)
    # From behind the last time on, which a value may have that is to expire later still, there is nothing.
    return KeyRange(min(column + _pack_u64(first), stop) if first <= U64_MAX else stop, stop)


def _last_u64(packed: bytes, start: int) -> int:
    if len(packed) != start + 8:
        raise ViewDamagedError(f"{len(packed) - start} bytes where 8 end the key {packed.hex()}")
    number: int = _U64.unpack_from(packed, start)[0]
    return number
