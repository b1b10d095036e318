"""What the actors send each other. Each message is immutable; its reply is the answer that is owed."""

from collections.abc import Sequence
from typing import NamedTuple

from attrs import field, frozen

from statehouse.actors.reply import Reply
from statehouse.storage.commit import PreparedCommit, PreparedSection
from statehouse.types import AgentId


class StagedOperation(NamedTuple):
    """A write of the serialized Struct `value`, or a delete when it is None."""

    key: bytes
    value: bytes | None


@frozen
class Leg:
    """What one transaction does to one agent, in order."""

    agent: AgentId
    operations: Sequence[StagedOperation]


@frozen
class Transaction:
    """A transaction on its way to be committed: its legs sorted by agent, each agent once."""

    txn_id: str
    legs: Sequence[Leg]


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
    reply: Reply[int] = field(factory=Reply)


@frozen
class Abort:
    txn_id: str
    reply: Reply[None] = field(factory=Reply)


@frozen
class Ended:
    """The outcome of a transaction that was taken for its commit."""

    txn_id: str
    outcome: Reply[int]
    reply: Reply[None] = field(factory=Reply)


# To a Partition


@frozen
class Prepare:
    """Assign versions and build the section. With `hold`, the partition then waits until it is released."""

    txn_id: str
    leg: Leg
    hold: bool
    reply: Reply[PreparedSection] = field(factory=Reply)


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
