"""What may have to hold of an agent for a commit to be done: the preconditions, as the partitions judge them."""

from typing import NamedTuple

from statehouse.types import AgentId

__all__ = ["AgentAt", "Check", "Condition", "ExistsIs", "LeaseIs", "VersionIs"]


class VersionIs(NamedTuple):
    """The key's version is this one; 0: it was never written."""

    key: bytes
    version: int


class ExistsIs(NamedTuple):
    """The key has a value, or has none."""

    key: bytes
    exists: bool


class AgentAt(NamedTuple):
    """The agent's last event has this commit_ts; 0: it has none."""

    commit_ts: int


class LeaseIs(NamedTuple):
    """The epoch is that of the agent's newest lease, which is neither expired nor released."""

    epoch: int


Condition = VersionIs | ExistsIs | AgentAt | LeaseIs


class Check(NamedTuple):
    """What must hold of an agent when a commit is prepared."""

    place: int
    """Among the preconditions of the request, from 0."""
    agent: AgentId
    condition: Condition
