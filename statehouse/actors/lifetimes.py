"""How agents begin as forks, and end: what is asked for, what is found, and what is answered.

Both are commits of one agent of which nothing else may be under way: its partition is held from the examination until
the commit is durable or has failed, and then knows nothing of before.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attrs import field, frozen

from statehouse.actors.conditions import Check
from statehouse.actors.reply import Reply
from statehouse.storage.record_notes import ForkNote
from statehouse.types import AgentId

__all__ = ["AgentEnd", "EndAgent", "EndedAgent", "ForkAgent", "ForkOf", "Forked", "FoundFork"]


class ForkOf(NamedTuple):
    """The agent is to begin as a fork of `parent`, of the same namespace."""

    parent: AgentId
    at_ts: int | None
    """The point of the parent; None, and one to come: the newest commit."""


@frozen
class AgentEnd:
    """All that the agent has left is to be deleted."""


class FoundFork(NamedTuple):
    """What a fork comes to."""

    note: ForkNote
    depth: int


class Forked(NamedTuple):
    """A new agent that has what its parent had at `at_ts`."""

    commit_ts: int
    at_ts: int
    depth: int
    """Forks between it and an agent that is none."""


class EndedAgent(NamedTuple):
    """An agent that was deleted, by this request or before: then `deleted_keys` is 0."""

    commit_ts: int
    deleted_keys: int


# To Transactions


@frozen
class ForkAgent:
    agent: AgentId
    """The new one."""
    fork_of: ForkOf
    reply: Reply[Forked] = field(factory=Reply)


@frozen
class EndAgent:
    agent: AgentId
    checks: Sequence[Check]
    """All on the agent: the edge has seen to that."""
    metadata: Mapping[str, str]
    reply: Reply[EndedAgent] = field(factory=Reply)
