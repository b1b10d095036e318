"""The rows of the view that the notes of a commit leave: how each is packed and read.

    idempotency row ('i')   committed_at_ns u64 | fingerprint, 32 bytes: in each agent that the commit wrote to
    lease row ('l')         the LeaseChange (protobuf) without the agent's names
    fork row ('f')          parent_id, at_ts and commit_ts of the Fork (protobuf): of the new agent
    child row ('c')         agent_id and at_ts of the Fork: of the parent
    end row ('d')           one byte, 1: of the agent that was deleted
    swept row ('s')         a time u64, in nanoseconds since 1970: up to it, what expired was deleted
    commit row ('x')        a commit_ts u64: that gave the value which expires, or made the fork

Their keys stand in `keys.py`. Reading raises `ViewDamagedError`. All of it is pure.
"""

from struct import Struct
from typing import Final

from google.protobuf.message import DecodeError

from statehouse.storage.record_notes import ForkNote, LeaseChange
from statehouse.storage.v1 import log_pb2
from statehouse.storage.view import ViewDamagedError

__all__ = [
    "END_ROW",
    "child_row",
    "commit_row",
    "fork_row",
    "idempotency_row",
    "lease_row",
    "read_child_row",
    "read_commit_row",
    "read_fork_row",
    "read_idempotency_row",
    "read_lease_row",
    "read_swept_row",
    "swept_row",
]

_U64: Final = Struct(">Q")
_IDEMPOTENCY_ROW: Final = Struct(">Q32s")
END_ROW: Final = b"\x01"


def idempotency_row(committed_at_ns: int, fingerprint: bytes) -> bytes:
    """The value of an `i` row."""
    return _IDEMPOTENCY_ROW.pack(committed_at_ns, fingerprint)


def read_idempotency_row(stored: bytes) -> tuple[int, bytes]:
    """When the commit was made, in nanoseconds since 1970, and the fingerprint."""
    if len(stored) != _IDEMPOTENCY_ROW.size:
        raise ViewDamagedError(f"not the row of an idempotency key: {stored[:40].hex()}")
    committed_at_ns, fingerprint = _IDEMPOTENCY_ROW.unpack(stored)
    return committed_at_ns, fingerprint


def lease_row(change: LeaseChange) -> bytes:
    """The value of an `l` row."""
    return log_pb2.LeaseChange(
        epoch=change.epoch, holder=change.holder, expires_at_ns=change.expires_at_ns
    ).SerializeToString()


def read_lease_row(stored: bytes) -> tuple[int, str, int]:
    """The epoch, the holder, and when it ends, in nanoseconds since 1970 (0: it was released)."""
    try:
        read = log_pb2.LeaseChange.FromString(stored)
    except DecodeError as error:
        raise ViewDamagedError(f"not the row of a lease: {stored[:40].hex()}") from error
    if not read.epoch:
        raise ViewDamagedError(f"the row of a lease has no epoch: {stored[:40].hex()}")
    return read.epoch, read.holder, read.expires_at_ns


def fork_row(fork: ForkNote, commit_ts: int) -> bytes:
    """The value of an `f` row."""
    row = log_pb2.Fork(parent_id=fork.parent.agent_id, at_ts=fork.at_ts, commit_ts=commit_ts)
    return row.SerializeToString()


def read_fork_row(stored: bytes) -> tuple[str, int, int]:
    """The parent's id, the point of it, and the commit of the fork."""
    read = _fork_row(stored)
    if not read.parent_id or not read.at_ts or not read.commit_ts:
        raise ViewDamagedError(f"the row of a fork has no parent, no point or no commit: {stored[:40].hex()}")
    return read.parent_id, read.at_ts, read.commit_ts


def child_row(fork: ForkNote) -> bytes:
    """The value of a `c` row."""
    return log_pb2.Fork(agent_id=fork.agent.agent_id, at_ts=fork.at_ts).SerializeToString()


def read_child_row(stored: bytes) -> tuple[str, int]:
    """The fork's id, and the point at which it branched off."""
    read = _fork_row(stored)
    if not read.agent_id or not read.at_ts:
        raise ViewDamagedError(f"the row of a fork has no agent or no point: {stored[:40].hex()}")
    return read.agent_id, read.at_ts


def _fork_row(stored: bytes) -> log_pb2.Fork:
    try:
        return log_pb2.Fork.FromString(stored)
    except DecodeError as error:
        raise ViewDamagedError(f"not the row of a fork: {stored[:40].hex()}") from error


def swept_row(until_ns: int) -> bytes:
    """The value of an `s` row of all agents."""
    return _U64.pack(until_ns)


def read_swept_row(stored: bytes) -> int:
    """Up to when what expired was deleted."""
    return _read_u64(stored, "of what was swept")


def commit_row(commit_ts: int) -> bytes:
    """The value of an `x` row."""
    return _U64.pack(commit_ts)


def read_commit_row(stored: bytes) -> int:
    """The commit_ts."""
    return _read_u64(stored, "of what expires")


def _read_u64(stored: bytes, what: str) -> int:
    if len(stored) != _U64.size:
        raise ViewDamagedError(f"not a row {what}: {stored[:40].hex()}")
    number: int = _U64.unpack(stored)[0]
    return number
