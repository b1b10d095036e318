"""Forks: what an agent has of others, and how it is found.

A fork copies nothing. The view has one row for it (`f`: parent, point, commit), and whoever reads the agent looks in
its own rows first, then in those of its parent up to the point, and so on up to an agent that is no fork: its
`Levels`. What an ancestor is given later has a later commit_ts, so it never shows; nothing that is written is ever
changed, so neither can harm the other.

The points of deeper levels are never later than those above them, and an agent's own commits are all later than its
fork: so events ascend from the deepest level up, and a key's newest version stands in the first level that has one.
Nearly all agents are no forks. So whether one is is asked only when its own rows do not answer (`LevelsOf`), and after
they were looked at: what is not found there, and then inherited, was so at the moment of the fork.

Everything here is a function of a view that raises what the view does.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple, TypeAlias

from attrs import frozen

from statehouse.limits import FORK_DEPTH
from statehouse.storage import keys
from statehouse.storage.commit import AgentCounters
from statehouse.storage.note_rows import read_child_row, read_fork_row
from statehouse.storage.stored_value import event_counts, place_of
from statehouse.storage.view import Reader, Row, ViewDamagedError, newest_row
from statehouse.types import AgentId

__all__ = [
    "NO_END",
    "Child",
    "Level",
    "Levels",
    "Lineage",
    "Origin",
    "ancestors",
    "children",
    "counters_at",
    "is_fork",
    "levels_of",
    "newest_event",
    "stored_version",
]

NO_END: Final = keys.U64_MAX


class Level(NamedTuple):
    """Rows that an agent has, or has inherited."""

    prefix: bytes
    """Of the agent whose rows they are."""
    until_ts: int
    """Later commits to these rows are not the agent's; of its own, NO_END."""


Levels: TypeAlias = tuple[Level, ...]
"""The agent's own, then those that it inherits, nearest first."""


class Origin(NamedTuple):
    """A step from a fork to its parent."""

    parent: AgentId
    at_ts: int
    """The point of the parent."""
    commit_ts: int
    """Of the fork."""


class Child(NamedTuple):
    """What was forked from an agent."""

    agent: AgentId
    at_ts: int
    commit_ts: int


@frozen
class Lineage:
    """Where an agent comes from, and what was forked from it."""

    ancestors: Sequence[Origin]
    """From its parent on."""
    children: Sequence[Child]
    """Newest first."""
    more: bool
    """Whether there are more children, before the last of these."""


def is_fork(view: Reader, prefix: bytes) -> bool:
    """Whether the agent was forked from another."""
    return view.get(keys.fork_key(prefix)) is not None


def origin(view: Reader, agent: AgentId, prefix: bytes) -> Origin | None:
    """What the agent was forked from; None: it is no fork."""
    stored = view.get(keys.fork_key(prefix))
    if stored is None:
        return None
    parent_id, at_ts, commit_ts = read_fork_row(stored)
    return Origin(AgentId(agent.namespace, parent_id), at_ts, commit_ts)


def ancestors(view: Reader, agent: AgentId, prefix: bytes) -> Iterator[Origin]:
    """The steps from an agent up to one that is no fork; nothing for such a one."""
    for _ in range(FORK_DEPTH):
        step = origin(view, agent, prefix)
        if step is None:
            return
        agent, prefix = step.parent, keys.agent_prefix(step.parent)
        yield step
    if is_fork(view, prefix):
        raise ViewDamagedError(f"more than {FORK_DEPTH} forks lie between an agent and one that is none: {agent}")


class LevelsOf:
    """The levels of an agent, nearest first; each is looked up when it is asked for, and once."""

    def __init__(self, view: Reader, agent: AgentId, prefix: bytes | None = None) -> None:
        prefix = keys.agent_prefix(agent) if prefix is None else prefix
        self._known = [Level(prefix, NO_END)]
        self._steps = ancestors(view, agent, prefix)

    def __iter__(self) -> Iterator[Level]:
        yield from self._known
        for step in self._steps:
            level = Level(keys.agent_prefix(step.parent), min(step.at_ts, self._known[-1].until_ts))
            self._known.append(level)
            yield level


def levels_of(view: Reader, agent: AgentId, prefix: bytes) -> Levels:
    """Where the agent's rows are found."""
    return tuple(LevelsOf(view, agent, prefix))


def newest_event(view: Reader, levels: Levels, first_ts: int, last_ts: int) -> Row | None:
    """The row of the agent's newest event from `first_ts` to `last_ts`."""
    for depth, (prefix, until_ts) in enumerate(levels, start=1):
        # The next level has all that is no later than its end, so that mostly one is looked at.
        begin_ts = levels[depth].until_ts + 1 if depth < len(levels) else 0
        lowest_ts, highest_ts = max(first_ts, begin_ts), min(last_ts, until_ts)
        if lowest_ts > highest_ts:
            continue
        newest = newest_row(view, *keys.event_range(prefix, lowest_ts, highest_ts))
        if newest is not None:
            return newest
    return None


def stored_version(view: Reader, levels: Iterable[Level], key: bytes, version: int) -> bytes | None:
    """The stored value of a version of the key among these levels; None: it is in none of them."""
    for prefix, until_ts in levels:
        stored = view.get(keys.version_key(prefix, key, version))
        if stored is not None and place_of(stored)[1] <= until_ts:
            return stored
    return None


def counters_at(view: Reader, levels: Levels, at_ts: int) -> AgentCounters:
    """What the counters of the agent were as of a commit; all are 0 when it had not been written to."""
    newest = newest_event(view, levels, 0, at_ts)
    if newest is None:
        return AgentCounters()
    key, stored = newest
    first = AgentCounters.unpack(view.get(keys.meta_key(levels[0].prefix))).first_commit_ts
    return AgentCounters(first, int.from_bytes(key[-8:]), *event_counts(stored))


def lineage(view: Reader, agent: AgentId, limit: int, before_ts: int = NO_END) -> Lineage:
    """Where the agent comes from, and at most `limit` of the forks of it that were made before that commit."""
    found = children(view, agent, limit + 1, before_ts)
    steps = tuple(ancestors(view, agent, keys.agent_prefix(agent)))
    return Lineage(steps, found[:limit], len(found) > limit)


def children(view: Reader, agent: AgentId, limit: int, before_ts: int = NO_END) -> list[Child]:
    """What was forked from the agent before that commit, newest first, at most `limit` of them."""
    found: list[Child] = []
    prefix = keys.agent_prefix(agent)
    with closing(view.scan(*keys.child_range(prefix, before_ts), reverse=True)) as rows:
        for key, stored in rows:
            if len(found) >= limit:
                break
            child_id, at_ts = read_child_row(stored)
            found.append(Child(AgentId(agent.namespace, child_id), at_ts, keys.unpack_child_key(prefix, key)))
    return found
