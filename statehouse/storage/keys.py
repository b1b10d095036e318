"""The key table of the view: every column, the order of its fields, and how each is packed and unpacked.

    0x01 'w'                                             Watermark (protobuf)
    0x01 't' bucket u64 | txn_id                         commit_ts u64
    0x01 's' | commit_ts u64                             time u64 (expiry_keys.py)
    0x01 'x' | time u64 | names, perhaps version u64     commit_ts u64 (expiry_keys.py)
    0x02 name(namespace) name(agent_id)  's' | key                   stored value (stored_value.py)
                                         'v' | name(key) | version u64   stored value
                                         'e' | commit_ts u64             event row (stored_value.py)
                                         'i' | name(idempotency key) | commit_ts u64   idempotency row (note_rows.py)
                                         'l' | commit_ts u64             lease row (note_rows.py)
                                         'm'                             AgentMeta (protobuf)
                                         'f'                             fork row (note_rows.py): of what it is a fork
                                         'c' | commit_ts u64             child row (note_rows.py): a fork of it
                                         'd' | commit_ts u64             1: the agent was deleted then
                                         'x' | time u64 | name(key) | version u64      commit_ts u64 (expiry_keys.py)

All integers are big-endian, so byte order is number order. `name()` is order-preserving and
self-delimiting: no name is the beginning of another, so no two of (namespace, agent_id, key) meet, and
byte order is name order. A key of the `s` column is last and needs no end, which makes the keys with a
prefix one range.

Namespaces, agent ids and transaction ids are text in UTF-8; a key is the bytes of its UTF-8, encoded
once by whoever takes the request. Everything here is pure, and unpacking raises `ViewDamagedError`: a key
that does not parse was not written by this table. docs/formats.md has the grammar and worked examples.
"""

from struct import Struct
from typing import Final, NamedTuple

from statehouse.limits import OUTCOME_BUCKET_COMMITS, OUTCOME_BUCKETS
from statehouse.storage.view import ViewDamagedError
from statehouse.types import AgentId

GLOBAL: Final = b"\x01"
AGENT: Final = b"\x02"

STATE: Final = b"s"
VERSION: Final = b"v"
EVENT: Final = b"e"
IDEMPOTENCY: Final = b"i"
LEASE: Final = b"l"
FORK: Final = b"f"
CHILD: Final = b"c"
END: Final = b"d"

WATERMARK_KEY: Final = GLOBAL + b"w"
_OUTCOME: Final = GLOBAL + b"t"

_NAME_END: Final = b"\x00\x01"
_U64: Final = Struct(">Q")
U64_MAX: Final = 2**64 - 1
_pack_u64: Final = _U64.pack


class KeyRange(NamedTuple):
    """The keys from `start` up to, not including, `stop`."""

    start: bytes
    stop: bytes


EVERYTHING: Final = KeyRange(b"", b"\xff")
"""Every row of a view: no table of this or a later format begins a key with 0xFF."""
AGENTS: Final = KeyRange(AGENT, b"\x03")
"""Every row of every agent, agents in the order of (namespace, agent_id)."""


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key above every key that begins with `prefix`.

    Raises ValueError when there is none, which no prefix of this table can cause: they begin below 0xFF.
    """
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        raise ValueError("no key is above every key with this prefix")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


# Names


def name(raw: bytes) -> bytes:
    """Pack a name: 0x00 becomes 0x00 0xFF, and 0x00 0x01 ends it."""
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x00\xff")
    return raw + _NAME_END


def read_name(packed: bytes, start: int) -> tuple[bytes, int]:
    """The name that was packed at `start`, and the offset behind its end.

    A 0x00 within a packed name is always followed by 0xFF, so the first 0x00 0x01 is the name's end.
    """
    end = packed.find(_NAME_END, start)
    if end < 0:
        raise ViewDamagedError(f"a name without an end in key {packed.hex()}")
    raw = packed[start:end]
    if b"\x00" in raw:
        if raw.count(b"\x00") != raw.count(b"\x00\xff"):
            raise ViewDamagedError(f"a name with a bad escape in key {packed.hex()}")
        raw = raw.replace(b"\x00\xff", b"\x00")
    return raw, end + 2


# Agents


def agent_prefix(agent: AgentId) -> bytes:
    """What every key of this agent begins with."""
    return AGENT + name(agent.namespace.encode()) + name(agent.agent_id.encode())


def unpack_agent(packed: bytes) -> AgentId:
    """The agent whose row this is the key of."""
    if packed[:1] != AGENT:
        raise ViewDamagedError(f"not a key of an agent's row: {packed.hex()}")
    namespace, end = read_name(packed, 1)
    agent_id, _ = read_name(packed, end)
    try:
        return AgentId(namespace.decode(), agent_id.decode())
    except UnicodeDecodeError as error:
        raise ViewDamagedError(f"an agent's name that is not UTF-8 in key {packed.hex()}") from error


def _suffix(prefix: bytes, column: bytes, packed: bytes) -> bytes:
    """What follows the agent's prefix and the column."""
    start = prefix + column
    if not packed.startswith(start):
        raise ViewDamagedError(f"not a key of column {column.decode()} of that agent: {packed.hex()}")
    return packed[len(start) :]


# s: the latest version of a key


def state_key(prefix: bytes, key: bytes) -> bytes:
    return prefix + b"s" + key


def unpack_state_key(prefix: bytes, packed: bytes) -> bytes:
    """The key. (A scan that reads one agent's states may as well slice behind `len(prefix) + 1`.)"""
    return _suffix(prefix, STATE, packed)


def state_range(prefix: bytes, key_prefix: bytes = b"") -> KeyRange:
    """The agent's states whose keys begin with `key_prefix`: all of them when it is empty."""
    start = prefix + b"s" + key_prefix
    return KeyRange(start, prefix_end(start))


# v: every version of a key


def version_key(prefix: bytes, key: bytes, version: int) -> bytes:
    if b"\x00" in key:
        key = key.replace(b"\x00", b"\x00\xff")
    return prefix + b"v" + key + b"\x00\x01" + _pack_u64(version)


def unpack_version_key(prefix: bytes, packed: bytes) -> tuple[bytes, int]:
    """The key and the version."""
    start = len(prefix) + 1
    if packed[:start] != prefix + VERSION:
        raise ViewDamagedError(f"not a key of column v of that agent: {packed.hex()}")
    key, end = read_name(packed, start)
    return key, _read_u64(packed, end)


def version_range(prefix: bytes, key: bytes) -> KeyRange:
    """The versions of one key, oldest first."""
    start = prefix + b"v" + name(key)
    return KeyRange(start, prefix_end(start))


# e: the agent's events


def event_key(prefix: bytes, commit_ts: int) -> bytes:
    return prefix + b"e" + _pack_u64(commit_ts)


def unpack_event_key(prefix: bytes, packed: bytes) -> int:
    """The commit_ts."""
    if packed[: len(prefix) + 1] != prefix + EVENT:
        raise ViewDamagedError(f"not a key of column e of that agent: {packed.hex()}")
    return _read_u64(packed, len(prefix) + 1)


def event_range(prefix: bytes, first: int = 0, last: int = U64_MAX) -> KeyRange:
    """The agent's events from commit_ts `first` to `last`, both included."""
    column = prefix + b"e"
    stop = column + _pack_u64(last + 1) if last < U64_MAX else prefix_end(column)
    return KeyRange(column + _pack_u64(first), stop)


# i: the idempotency keys of the commits that wrote to the agent


def idempotency_key(prefix: bytes, key: bytes, commit_ts: int) -> bytes:
    return prefix + b"i" + name(key) + _pack_u64(commit_ts)


def unpack_idempotency_key(prefix: bytes, packed: bytes) -> tuple[bytes, int]:
    """The idempotency key and the commit_ts."""
    start = len(prefix) + 1
    if packed[:start] != prefix + IDEMPOTENCY:
        raise ViewDamagedError(f"not a key of column i of that agent: {packed.hex()}")
    key, end = read_name(packed, start)
    return key, _read_u64(packed, end)


def idempotency_range(prefix: bytes, key: bytes) -> KeyRange:
    """The commits with one idempotency key, oldest first."""
    start = prefix + b"i" + name(key)
    return KeyRange(start, prefix_end(start))


# l: the changes of the agent's lease


def lease_key(prefix: bytes, commit_ts: int) -> bytes:
    return prefix + b"l" + _pack_u64(commit_ts)


def unpack_lease_key(prefix: bytes, packed: bytes) -> int:
    """The commit_ts."""
    if packed[: len(prefix) + 1] != prefix + LEASE:
        raise ViewDamagedError(f"not a key of column l of that agent: {packed.hex()}")
    return _read_u64(packed, len(prefix) + 1)


def lease_range(prefix: bytes) -> KeyRange:
    """Every change of the agent's lease, oldest first."""
    start = prefix + b"l"
    return KeyRange(start, prefix_end(start))


# f, c: what the agent was forked from, and what was forked from it


def fork_key(prefix: bytes) -> bytes:
    return prefix + b"f"


def child_key(prefix: bytes, commit_ts: int) -> bytes:
    return prefix + b"c" + _pack_u64(commit_ts)


def unpack_child_key(prefix: bytes, packed: bytes) -> int:
    """The commit_ts of the fork."""
    if packed[: len(prefix) + 1] != prefix + CHILD:
        raise ViewDamagedError(f"not a key of column c of that agent: {packed.hex()}")
    return _read_u64(packed, len(prefix) + 1)


def child_range(prefix: bytes, before_ts: int = U64_MAX) -> KeyRange:
    """The forks of the agent that were made before that commit, oldest first."""
    return KeyRange(prefix + b"c", prefix + b"c" + _pack_u64(before_ts))


# d: when the agent was deleted


def end_key(prefix: bytes, commit_ts: int) -> bytes:
    return prefix + b"d" + _pack_u64(commit_ts)


def unpack_end_key(prefix: bytes, packed: bytes) -> int:
    """The commit_ts."""
    if packed[: len(prefix) + 1] != prefix + END:
        raise ViewDamagedError(f"not a key of column d of that agent: {packed.hex()}")
    return _read_u64(packed, len(prefix) + 1)


def end_range(prefix: bytes) -> KeyRange:
    """Every end of the agent, oldest first."""
    return KeyRange(prefix + b"d", prefix_end(prefix + b"d"))


# m: what the view knows of the agent


def meta_key(prefix: bytes) -> bytes:
    return prefix + b"m"


# t: outcomes of recent transactions


def outcome_bucket(commit_ts: int) -> int:
    """The bucket that holds the outcome of this commit."""
    return commit_ts // OUTCOME_BUCKET_COMMITS


def kept_outcome_buckets(head_commit_ts: int) -> range:
    """The buckets that are kept when `head_commit_ts` is the newest commit, newest first."""
    newest = outcome_bucket(head_commit_ts)
    return range(newest, max(newest - OUTCOME_BUCKETS, -1), -1)


def outcome_key(bucket: int, txn_id: str) -> bytes:
    return _OUTCOME + _pack_u64(bucket) + txn_id.encode()


def unpack_outcome_key(packed: bytes) -> tuple[int, str]:
    """The bucket and the transaction id."""
    if not packed.startswith(_OUTCOME) or len(packed) < 10:
        raise ViewDamagedError(f"not a key of column t: {packed.hex()}")
    try:
        return _read_u64(packed[:10], 2), packed[10:].decode()
    except UnicodeDecodeError as error:
        raise ViewDamagedError(f"a transaction id that is not UTF-8 in key {packed.hex()}") from error


def outcome_range(first: int, last: int) -> KeyRange:
    """The outcomes in the buckets from `first` to `last`, both included."""
    return KeyRange(_OUTCOME + _pack_u64(first), prefix_end(_OUTCOME + _pack_u64(last)))


def _read_u64(packed: bytes, start: int) -> int:
    """The integer that ends a key."""
    if len(packed) != start + 8:
        raise ViewDamagedError(f"{len(packed) - start} bytes where 8 end the key {packed.hex()}")
    number: int = _U64.unpack_from(packed, start)[0]
    return number
