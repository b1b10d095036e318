"""What the actors send each other. Each message is immutable; its reply is the answer that is owed."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from attrs import field, frozen

from statehouse.actors.conditions import AgentAt, Check, Condition, ExistsIs, LeaseIs, VersionIs
from statehouse.actors.lifetimes import AgentEnd, EndAgent, EndedAgent, ForkAgent, Forked, ForkOf, FoundFork
from statehouse.actors.reply import Reply
from statehouse.errors import FailedPrecondition
from statehouse.storage.commit import AgentCounters, PreparedCommit, PreparedSection
from statehouse.storage.lineage import Levels, Lineage
from statehouse.storage.record_notes import Idempotency, LeaseChange
from statehouse.storage.section import Section
from statehouse.storage.store import Earlier, LeaseRow
from statehouse.types import AgentId

__all__ = [
    "NO_METADATA",
    "Abort",
    "AcquireLease",
    "AgentAt",
    "AgentEnd",
    "Barrier",
    "Begin",
    "ChangeLease",
    "Check",
    "Commit",
    "Committed",
    "Condition",
    "Earlier",
    "EndAgent",
    "Ended",
    "EndedAgent",
    "ExistsIs",
    "Findings",
    "ForkAgent",
    "ForkOf",
    "Forked",
    "FoundFork",
    "Idempotency",
    "Inherited",
    "LeaseIs",
    "LeaseRequest",
    "LeaseRow",
    "LeaseView",
    "Leg",
    "Lineage",
    "Prepare",
    "ReleaseLease",
    "RenewLease",
    "Stage",
    "StagedOperation",
    "Submit",
    "Transact",
    "TransactArguments",
    "Transacted",
    "Transaction",
    "Unread",
    "VersionIs",
]

NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})

Inherited = Mapping[bytes, bytes | None]
"""The stored values that an agent inherits of some keys; None: it inherits none."""
_NOTHING_READ: Final[Inherited] = MappingProxyType({})


class StagedOperation(NamedTuple):
    """A write of the serialized Struct `value`, or a delete when it is None; `ttl_s` 0: it lasts for good."""

    key: bytes
    value: bytes | None
    ttl_s: int = 0


# Leases


class AcquireLease(NamedTuple):
    """A new lease for `holder`, if nobody holds the agent's newest one."""

    holder: str
    ttl_ms: int


class RenewLease(NamedTuple):
    """The newest lease, if it is this one and held, lasts `ttl_ms` from now on."""

    epoch: int
    ttl_ms: int


class ReleaseLease(NamedTuple):
    """The newest lease, if it is this one and held, ends."""

    epoch: int


class LeaseView(NamedTuple):
    """What is known of an agent's leases: the newest, and whether it is neither expired nor released."""

    row: LeaseRow | None
    held: bool


LeaseRequest = AcquireLease | RenewLease | ReleaseLease


# Transactions on their way


@frozen
class TransactArguments:
    """A whole transaction in one request."""

    operations: tuple[tuple[AgentId, StagedOperation], ...]
    checks: tuple[Check, ...] = ()
    metadata: Mapping[str, str] = NO_METADATA
    idempotency: Idempotency | None = None
    revive: bool = False
    """Agents that were deleted are to live again."""


class Transacted(NamedTuple):
    """How a `Transact` ended: `versions` are those of its operations, in their order."""

    commit_ts: int
    versions: tuple[int, ...]
    txn_id: str
    deduplicated: bool
    """This is the answer of an earlier request with the same idempotency key."""


@frozen
class Leg:
    """What one transaction does to one agent, in order, and what must hold of the agent."""

    agent: AgentId
    operations: Sequence[StagedOperation] = ()
    checks: Sequence[Check] = ()
    lease: LeaseRequest | None = None
    exclusive: ForkOf | AgentEnd | None = None
    """Such a leg is a transaction's only one, and has no operations."""
    expire: Sequence[tuple[bytes, int]] = ()
    """(key, version): to be deleted where it is still the newest, live, and has expired. Likewise."""


@frozen
class Transaction:
    """A transaction on its way to be committed: its legs sorted by agent, each agent once."""

    txn_id: str
    legs: Sequence[Leg]
    metadata: bytes = b""
    """As `section.metadata_fields` encodes it."""
    idempotency: Idempotency | None = None
    revive: bool = False
    """Agents that were deleted are to live again."""


class Committed(NamedTuple):
    """A transaction that is durable; commit_ts 0: there was nothing to do.

    `sections` are those of the legs with operations, in the order of the legs; with none, one that has no operations.
    """

    commit_ts: int
    txn_id: str
    sections: Sequence[PreparedSection | Section]
    lease: LeaseChange | None = None
    deduplicated: bool = False
    fork: FoundFork | None = None


# To Transactions


@frozen
class Begin:
    timeout_ms: int | None
    reply: Reply[str] = field(factory=Reply)


@frozen
class Stage:
    txn_id: str
    agent: AgentId
    operation: StagedOperation
    reply: Reply[None] = field(factory=Reply)


@frozen
class Commit:
    txn_id: str
    checks: Sequence[Check] = ()
    metadata: Mapping[str, str] = NO_METADATA
    revive: bool = False
    reply: Reply[int] = field(factory=Reply)


@frozen
class Transact:
    """Begin, stage and commit in one."""

    arguments: TransactArguments
    reply: Reply[Transacted] = field(factory=Reply)


@frozen
class ChangeLease:
    agent: AgentId
    request: LeaseRequest
    reply: Reply[LeaseRow] = field(factory=Reply)


@frozen
class Abort:
    txn_id: str
    reply: Reply[None] = field(factory=Reply)


@frozen
class Ended:
    """The outcome of a transaction that was taken for its commit."""

    txn_id: str
    outcome: Reply[Committed]
    reply: Reply[None] = field(factory=Reply)


# To a Partition


class Findings(NamedTuple):
    """What a partition found for a leg, where there is more to say than that nothing is in the way."""

    failed: Sequence[FailedPrecondition] = ()
    earlier: Earlier | None = None
    """The commit of an earlier request with the same idempotency key."""
    lease: LeaseChange | None = None
    """What the leg's lease request comes to."""
    fork: FoundFork | None = None
    """What the leg's fork comes to."""
    ending: AgentCounters | None = None
    """What the agent has that is to end."""
    ended_ts: int = 0
    """The agent that is to end did so before, in this commit."""
    is_nothing_due: bool = False
    """Nothing of what the leg wants deleted is to be."""


class Unread(NamedTuple):
    """What the agent inherits of these keys is to be read first: it is too much for a turn."""

    levels: Levels
    keys: Sequence[bytes]


@frozen
class Prepare:
    """Look at what the leg needs to know, and whether it may be done; None: nothing is in the way.

    With `hold`, the partition then waits until it is released.
    """

    txn_id: str
    leg: Leg
    hold: bool
    idempotency: Idempotency | None = None
    revive: bool = False
    inherited: Inherited = _NOTHING_READ
    """Of keys of the leg, what was read beforehand: it never changes."""
    reply: Reply[Findings | None] = field(factory=Reply)


# To the Sequencer


@frozen
class Submit:
    """Give the commit its place in the order and make it durable; the reply is its commit_ts."""

    commit: PreparedCommit
    reply: Reply[int] = field(factory=Reply)


@frozen
class Barrier:
    """Answered when everything that was sent before it is durable or has failed."""

    reply: Reply[None] = field(factory=Reply)
