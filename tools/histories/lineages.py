"""What clients know of forks and ends, and what a store says of where its agents come from.

A fork is written down like any commit: with its floor, and with what came of it. It shows in no events, so what became
of one without an answer is asked of the lineage of the agent that it was to make.
"""

from typing import Final

from attrs import define, frozen

from statehouse.types import AgentId

__all__ = [
    "DELETED",
    "GAP",
    "NOTHING_THEN",
    "REVIVED",
    "TAKEN",
    "UNKNOWN",
    "Described",
    "Forking",
    "Lineage",
    "Origin",
    "Refused",
]

TAKEN: Final = "taken"
"""The name of a fork: an agent has it."""
UNKNOWN: Final = "unknown"
"""The agent that was to be forked, or to end: nobody had written to it."""
NOTHING_THEN: Final = "nothing then"
"""The agent that was to be forked: nobody had written to it by the point, `at_ts`."""
DELETED: Final = "deleted"
"""An agent that was written to: its end was at `at_ts`."""
REVIVED: Final = "revived"
"""An agent that was to be brought back: there is no reason for that."""
GAP: Final = "gap"
"""An agent that was watched from `at_ts` on: it came to be as a fork, with events after that."""


@frozen
class Origin:
    """A step from a fork to its parent, or from a parent to a fork."""

    agent: AgentId
    at_ts: int
    """The point of the parent."""
    commit_ts: int
    """Of the fork."""


@frozen
class Lineage:
    """What the store says of one agent."""

    ancestors: tuple[Origin, ...] = ()
    """The parent first."""
    forks: tuple[Origin, ...] = ()
    """Newest first."""


@frozen
class Described:
    """What the list of agents says of one."""

    commits: int
    operations: int
    live_keys: int
    first_ts: int
    last_ts: int
    deleted: bool
    origin: Origin | None


@define(eq=False)
class Forking:
    """A call that forks: `asked_ts` is the point that was asked for, None: now."""

    agent: AgentId
    """The new one."""
    parent: AgentId
    asked_ts: int | None
    floor_ts: int
    after: int = 0
    answered: bool = False
    """`commit_ts`, `at_ts` and `depth` are what was told."""
    refused: bool = False
    """It must not show. Neither answered nor refused: nobody knows."""
    commit_ts: int = 0
    at_ts: int = 0
    depth: int = 0


@frozen
class Refused:
    """Something was refused for what an agent was, or was not: a read of that. With `others`, it may be theirs."""

    agent: AgentId
    floor_ts: int
    why: str
    at_ts: int = 0
    others: tuple[AgentId, ...] = ()
    after: int = 0
