"""Every capacity of the daemon: its name, its unit, its default, and why it is there.

What an operator may change is a field of `Limits`; the rest are constants of the design.
"""

from typing import Final

from attrs import field, frozen, validators

KIB: Final = 1024
MIB: Final = 1024 * KIB


def _count(default: int) -> int:
    """A field that holds a count or a size of at least one."""
    checked: int = field(default=default, validator=validators.ge(1))
    return checked


@frozen(kw_only=True)
class Limits:
    """What a request may ask for. Each breach is an INVALID_ARGUMENT that names the limit and the size seen."""

    value_bytes: int = _count(MIB)
    key_bytes: int = _count(1024)
    agent_id_bytes: int = _count(256)
    namespace_bytes: int = _count(256)
    transaction_operations: int = _count(10_000)
    transaction_bytes: int = _count(32 * MIB)
    timeout_ms: int = _count(60 * 60 * 1000)
    open_transactions: int = _count(100_000)
    """Past this many, begin is refused with RESOURCE_EXHAUSTED."""
    staged_bytes: int = _count(256 * MIB)
    """Over all open transactions together; past it, a write is refused with RESOURCE_EXHAUSTED."""


# Values

VALUE_INLINE_BYTES: Final = 256
"""A value up to this size stands in the view as well as in the log; a larger one only in the log."""

# Event log

SEGMENT_BYTES: Final = 64 * MIB
OPEN_SEGMENTS: Final = 128
"""Segments that are kept open for reading."""

# Sequencer

COMMITS_IN_FLIGHT: Final = 10_000
"""Commits that are taken and not yet answered; past it, commit is refused with RESOURCE_EXHAUSTED."""
GROUP_COMMITS: Final = 1_024
GROUP_BYTES: Final = 4 * MIB
"""A group commit takes this many commits and about this many bytes at most, and at least one commit."""

# Transactions

ENDED_TRANSACTIONS: Final = 100_000
"""Ids of ended transactions that are remembered in memory, to tell expired, aborted and committed apart."""
OUTCOME_BUCKET_COMMITS: Final = 16_384
OUTCOME_BUCKETS: Final = 64
"""Committed ids are kept in the view in buckets of this many commits, this many buckets: about a million."""

# Partitions

PARTITION_MAILBOX_MESSAGES: Final = 10_000
PARTITION_IDLE_S: Final = 60.0

# Reads

READ_CHUNK_EVENTS: Final = 1_024
READ_CHUNK_BYTES: Final = 256 * KIB
"""Scans and replays read about this much at a time in a worker thread."""
READ_THREADS: Final = 8
"""Worker threads that scans and replays may use at once."""
