"""Every capacity of the daemon: its name, its unit, its default, and why it is there.

What an operator may change is a field of `Limits`; the rest are constants of the design.
"""

from typing import Final

from attrs import field, frozen, validators

KIB: Final = 1024
MIB: Final = 1024 * KIB


def _count(default: int, says: str) -> int:
    """A field that holds a count or a size of at least one; the unit ends its name, `says` is what --help shows."""
    checked: int = field(default=default, validator=validators.ge(1), metadata={"help": says})
    return checked


@frozen(kw_only=True)
class Limits:
    """What a request may ask for. Each breach is an INVALID_ARGUMENT that names the limit and the size seen."""

    value_bytes: int = _count(MIB, "Largest value, as the client sent it.")
    key_bytes: int = _count(1024, "Longest key, in bytes of UTF-8.")
    agent_id_bytes: int = _count(256, "Longest agent_id, in bytes of UTF-8.")
    namespace_bytes: int = _count(256, "Longest namespace, in bytes of UTF-8.")
    transaction_operations: int = _count(10_000, "Most writes and deletes in one transaction.")
    transaction_bytes: int = _count(32 * MIB, "Most bytes staged in one transaction.")
    timeout_ms: int = _count(60 * 60 * 1000, "Longest timeout that a transaction may ask for.")
    open_transactions: int = _count(
        100_000, "Most transactions open at once; past it, begin is refused with RESOURCE_EXHAUSTED."
    )
    staged_bytes: int = _count(
        256 * MIB,
        "Most bytes staged in all open transactions together, and no fewer than in one; past it, a write is refused "
        "likewise.",
    )


# Commits

PRECONDITIONS: Final = 256
"""Most preconditions of one commit: all that failed are told in one trailer."""
METADATA_ENTRIES: Final = 32
METADATA_NAME_BYTES: Final = 64
METADATA_VALUE_BYTES: Final = 512
METADATA_BYTES: Final = 4 * KIB
"""Of all names and values of one commit together: it stands in the event of every agent that the commit touches."""
IDEMPOTENCY_KEY_BYTES: Final = 256
LEASE_HOLDER_BYTES: Final = 256
LEASE_LEAST_MS: Final = 1_000
LEASE_MOST_MS: Final = 24 * 60 * 60 * 1000
"""A lease lasts from this to this; longer ones are renewed."""

# Agents

FORK_DEPTH: Final = 64
"""Forks that may lie between an agent and one that is no fork: a read may have to look in each."""
LINEAGE_FORKS: Final = 1_000
"""Most forks of an agent that one answer names."""
DELETED_KEYS: Final = 100_000
"""Most keys that an agent may have to be deleted: all are deleted in one commit. For so many, that keeps other agents'
commits waiting for one to two seconds (1.2 to 1.9 were measured): they are one group, which is written as a whole."""
DELETED_KEYS_BYTES: Final = 16 * MIB
"""Likewise the bytes of these keys."""
ENDS_AT_ONCE: Final = 4
"""Agents that are deleted at once; each holds in memory what deletes its keys. Others wait."""

# Values

TTL_MOST_S: Final = 10 * 366 * 24 * 60 * 60
"""A value may be given this long to last, and at least one second."""

VALUE_INLINE_BYTES: Final = 256
"""A value up to this size stands in the view as well as in the log; a larger one only in the log."""

# Event log

SEGMENT_BYTES: Final = 64 * MIB
OPEN_SEGMENTS: Final = 128
"""Segments that are kept open for reading."""

# View

VIEW_REOPEN_BYTES: Final = 32 * MIB
"""A view that a full disk has failed is opened anew with this much room: LevelDB writes when it is opened."""

# Sequencer

COMMITS_IN_FLIGHT: Final = 10_000
"""Commits that are taken and not yet answered; past it, commit is refused with RESOURCE_EXHAUSTED."""
COMMIT_REQUESTS_BYTES: Final = 64 * MIB
"""What their preconditions and metadata may hold together; one alone may hold more. Past it, likewise."""
SEQUENCER_MAILBOX_MESSAGES: Final = 2 * COMMITS_IN_FLIGHT
"""Every commit in flight, and room for the barriers of partitions that restart."""
GROUP_COMMITS: Final = 1_024
GROUP_BYTES: Final = 4 * MIB
"""A group commit takes this many commits and about this many bytes at most, and at least one commit."""

# Transactions

ENDED_TRANSACTIONS: Final = 100_000
"""Ids of ended transactions that are remembered in memory, to tell expired, aborted and committed apart."""
TRANSACTIONS_MAILBOX_MESSAGES: Final = 2 * COMMITS_IN_FLIGHT
"""Room for the outcome of every commit in flight, and as much again."""
EXPIRY_SWEEP_S: Final = 1.0
"""How often the memory of expired transactions is freed; their expiry itself is exact."""
OUTCOME_BUCKET_COMMITS: Final = 16_384
OUTCOME_BUCKETS: Final = 64
"""Committed ids are kept in the view in buckets of this many commits, this many buckets: about a million."""

# Partitions

PARTITION_MAILBOX_MESSAGES: Final = 10_000
BUSY_PARTITIONS: Final = 20_000
"""Partitions that may be resident beyond the configured number while they have commits under way."""
ROOM_TRIES: Final = 8
"""How many partitions are looked at to make room for one."""
INHERITED_LOOKS: Final = 2_000
"""Looks into rows that a fork inherits, one for each key and ancestor, which a commit may take on the event loop: a few
milliseconds. More are taken in a worker thread beforehand, and the agent's other commits wait for that."""
PARTITION_IDLE_S: Final = 60.0
"""How often the partitions that were not used since the last time are passivated."""
PARTITION_RESTART_S: Final = 5.0
"""A partition that crashes twice within this time stops the daemon."""

# Reads

READ_CHUNK_EVENTS: Final = 1_024
READ_CHUNK_BYTES: Final = 256 * KIB
"""Scans and replays read about this much at a time in a worker thread."""
RESPONSE_BYTES: Final = 64 * MIB
"""The largest answer of one call; past it, RESOURCE_EXHAUSTED."""
BATCH_KEYS: Final = 1_000
"""Most keys of one BatchGet."""
BATCH_KEYS_AT_HAND: Final = 128
BATCH_AT_HAND_S: Final = 0.002
"""A BatchGet of at most so many keys is tried on the event loop, for about so long; then a worker thread reads it."""
BATCH_NOT_AT_HAND_S: Final = 0.1
"""After two in a row that took too long, no other is tried for this time."""
PAGE_ENTRIES: Final = 10_000
"""Most keys or entries of one page of ListKeys and ScanPrefix."""
PAGE_BYTES: Final = 2 * MIB
"""A page of ListKeys and ScanPrefix ends with the entry that brings it to this, so that it stays below the 4 MiB that
clients of gRPC take unless they are told otherwise."""
READ_CHUNK_ROWS: Final = 16_384
"""Pages and differences look at this many keys at a time in a worker thread, for most may not be shown; a key of a fork
counts once for each level that has rows of it."""
LOG_PLACE_BYTES: Final = 256 * KIB
LOG_PLACES: Final = 8_192
"""Places of the log that were come by while reading it are remembered, one in so many bytes, and so many of them: who
reads the log from a commit on begins near it."""
PAGE_AGENTS: Final = 1_000
"""Most agents or namespaces of one page."""
READ_THREADS: Final = 8
"""Worker threads that scans and replays may use at once."""

# Watching

FEED_BYTES: Final = 32 * MIB
"""What the newest events of all agents that are watched may hold in memory; who is further behind reads the log."""
AGENT_FEED_EVENTS: Final = 256
"""Of these, the newest of one agent."""
FEED_CHUNK_BYTES: Final = 16 * KIB
"""What one watcher takes of them at once, or one larger event: what it then does not read stays in memory for it."""
WATCHERS: Final = 12_000
"""Streams that follow, at once; past it, RESOURCE_EXHAUSTED."""
BOOKMARK_S: Final = 5.0
"""How often a reader that asked for bookmarks is told that it is current."""

# Background work

BACKGROUND_RETRY_S: Final = 5.0
"""How long background work (a snapshot, the log's next segment) rests after it failed."""

# Sweeping

SWEEP_KEYS: Final = 1_000
"""Most values of an agent that are deleted in one commit because they expired; rows that are looked at for one note."""
SWEEP_COMMITS: Final = 64
"""Such commits that are under way at once."""
SWEEP_VALUES: Final = 10_000
"""Values that they delete together: what others commit meanwhile waits for one group, as behind the largest transaction
that a client may send."""
SWEEP_REST_S: Final = 0.1
"""How long the sweeper rests at least: what expires meanwhile is deleted together."""
SWEEP_LOOK_S: Final = 60.0
"""How long it sleeps at most when something is to expire: the clock may have been set forward meanwhile."""

# Start

FREE_DISK_BYTES: Final = 256 * MIB
"""With less free disk the daemon does not start: the next segment, a rebuild of the view and a drain need room."""

CHECK_ROOM_BYTES: Final = 64 * MIB
"""Free room that a check of a store at rest wants beside the copy that it makes: LevelDB writes when it is opened."""

# Edge

UNIX_PATH_BYTES: Final = 107
"""Longest path of a Unix socket to listen on: the system has 108 bytes for it, and the last is zero."""
REQUEST_BYTES: Final = 4 * MIB
"""A request may be this long; longer where the limits on values and names together need it."""
CALLS_PER_CONNECTION: Final = 100
"""Calls that one connection may have under way; clients hold further ones back by themselves."""
CALLS: Final = 10_000
"""Calls that all connections together may have under way."""
STORE_DESCRIPTORS: Final = 800
"""Open files that connections leave to the rest of the daemon: LevelDB's tables (500), segments (OPEN_SEGMENTS), and
what is open for a moment."""
CONNECTIONS: Final = 1_024
"""Connections that are held at once, unless an operator says otherwise."""
OPEN_CALLS: Final = 1_000
"""As CALLS, for the calls that need no token, so that they cannot keep out those that have one."""
REQUESTS_BYTES: Final = 16 * MIB
"""What requests of more than a few KiB may hold at once until they are handled, over all connections."""
REQUESTS_IN_LINE: Final = 200
"""Requests that may wait for that; each has sent at most its first window, 64 KiB."""
KEPT_REQUESTS_BYTES: Final = 64 * MIB
"""What as long requests of reads may hold until they are read: while they wait for their clients, or in line."""
CONNECTION_KEPT_REQUESTS_BYTES: Final = 32 * MIB
"""Likewise, those of one connection."""
ANSWERS_BYTES: Final = 20 * MIB
"""What chunks of streams, and point reads that wait for their clients, may hold at once, over all connections."""
CONNECTION_ANSWERS_BYTES: Final = 10 * MIB
"""As ANSWERS_BYTES, for one connection, so that one which does not read does not stop the others."""
LISTINGS_BYTES: Final = 256 * MIB
"""What the answers of scans and listings may hold at once, over all connections."""
CONNECTION_LISTINGS_BYTES: Final = 128 * MIB
"""As LISTINGS_BYTES, for one connection: two of the largest answers."""
ANSWER_STALL_S: Final = 10.0
"""A call whose peer takes next to nothing for this long is ended when others need the bytes that it holds."""
ANSWER_LEAST_BYTES: Final = 64 * KIB
"""What such a peer must take in that time, not to be ended."""
