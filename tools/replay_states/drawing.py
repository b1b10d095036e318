"""A history before it happens: which transactions, in which groups, and what befalls the store between them.

A seed gives one history, in every process: nothing here looks at the order of a set.
"""

import random
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias, TypeVar

from attrs import frozen

from replay_states.json_values import draw_value
from statehouse.limits import TTL_MOST_S
from statehouse.types import AgentId

__all__ = ["AGENTS", "Between", "End", "Fate", "Fork", "Group", "History", "Operation", "Txn", "draw_history"]

AGENTS: Final = (
    AgentId("default", "a"),
    AgentId("default", "a\0"),
    AgentId("default", "agent/with:marks"),
    AgentId("default:a", "b"),
    AgentId("default", "a:b"),
    AgentId("пространство", "🤖"),
    AgentId("\0", "\0"),
)
KEYS: Final = ("k", "k\0", "k/1", "k/2", "k\uffff", "k🔑", "ключ")
AGENTS_AT_MOST: Final = 4
KEYS_AT_MOST: Final = 5
STEPS: Final = {4: 10, 12: 60, 20: 25, 60: 5}
"""About how many groups a history has, and how often."""
GROUP_SIZES: Final = {1: 50, 2: 20, 3: 10, 5: 5, 9: 2}
OPERATIONS: Final = {0: 6, 1: 40, 2: 20, 3: 10, 6: 4, 15: 1}
"""How many operations a transaction has, and how often."""
DELETES: Final = 0.3
TTLS_S: Final = {0: 60, 1: 20, 5: 10, 100_000: 7, TTL_MOST_S: 3}
"""How long a value lasts, and how often; 0: for good."""
STORES_WITH_FEW_PARTITIONS: Final = 0.3
SNAPSHOTS_OF_ITSELF: Final = 0.3
FORKS: Final = 0.15
FORKS_NOW: Final = 0.4
"""Of the forks, those of what the parent has now."""
ENDS: Final = 0.06
"""How often a fork, or an agent's end, follows on a group."""
AGENTS_WITH_FORKS: Final = 8


T = TypeVar("T")


class Fate(Enum):
    """What becomes of a transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    LEFT_OPEN = "left open"


class Between(Enum):
    """What happens to the store between two groups."""

    RESTART = "restarts"
    VIEW_DELETED = "restarts with the view deleted"
    VIEW_BEHIND = "restarts with an older view"
    SNAPSHOT = "snapshots asked for"
    REST = "rests"
    """Time passes, in which what has expired is deleted."""


FATES: Final = {Fate.COMMITTED: 94, Fate.ABORTED: 3, Fate.LEFT_OPEN: 3}
BETWEEN: Final = {
    None: 70,
    Between.RESTART: 5,
    Between.VIEW_DELETED: 9,
    Between.VIEW_BEHIND: 6,
    Between.SNAPSHOT: 10,
    Between.REST: 10,
}


@frozen
class Operation:
    """A write of a serialized Struct, or with `value` None a delete."""

    agent: AgentId
    key: str
    value: bytes | None
    ttl_s: int = 0


@frozen
class Txn:
    """Operations in the order in which they are staged."""

    operations: tuple[Operation, ...]
    fate: Fate


@frozen
class Group:
    """Transactions whose commits are sent at once."""

    txns: tuple[Txn, ...]


@frozen
class Fork:
    """A new agent out of one that was written to."""

    parent: AgentId
    agent: AgentId
    share: float | None
    """Where the point lies between the parent's first commit and the newest one; None: the fork says no point."""


@frozen
class End:
    """An agent that was written to is deleted. Whatever is written to it later says that it revives."""

    agent: AgentId


Step: TypeAlias = "Group | Between | Fork | End"


@frozen
class History:
    """What happens, and how the store is set up for it."""

    seed: int
    keys: Mapping[AgentId, tuple[str, ...]]
    """The keys that are read of each agent, in byte order: written, deleted or never touched."""
    steps: tuple[Step, ...]
    segment_bytes: int
    snapshot_interval: int
    max_resident_partitions: int


def draw_history(seed: int) -> History:
    """The history of a seed."""
    rng = random.Random(f"history {seed}")
    agents = rng.sample(AGENTS, rng.randint(1, AGENTS_AT_MOST))
    keys = {agent: _keys(rng) for agent in agents}
    steps: list[Step] = []
    written: dict[AgentId, None] = {}
    for _ in range(rng.randint(1, _drawn(rng, STEPS))):
        size = _drawn(rng, GROUP_SIZES)
        txns = tuple(_txn(rng, keys) for _ in range(size))
        steps.append(Group(txns))
        written.update((each.agent, None) for txn in txns if txn.fate is Fate.COMMITTED for each in txn.operations)
        if written and len(keys) < AGENTS_WITH_FORKS and rng.random() < FORKS:
            parent = rng.choice(list(written))
            fork = Fork(
                parent,
                AgentId(parent.namespace, f"fork\0{len(keys)}"),
                None if rng.random() < FORKS_NOW else rng.random(),
            )
            keys[fork.agent] = keys[parent]
            written[fork.agent] = None
            steps.append(fork)
        if written and rng.random() < ENDS:
            steps.append(End(rng.choice(list(written))))
        between = _drawn(rng, BETWEEN)
        if between is not None:
            steps.append(between)
    return History(
        seed,
        keys,
        tuple(steps),
        segment_bytes=rng.choice((1_024, 4_096, 65_536)),
        snapshot_interval=rng.randint(1, 10) if rng.random() < SNAPSHOTS_OF_ITSELF else 0,
        max_resident_partitions=rng.randint(1, 2) if rng.random() < STORES_WITH_FEW_PARTITIONS else 10_000,
    )


def _keys(rng: random.Random) -> tuple[str, ...]:
    return tuple(sorted(rng.sample(KEYS, rng.randint(1, KEYS_AT_MOST)), key=str.encode))


def _txn(rng: random.Random, keys: Mapping[AgentId, tuple[str, ...]]) -> Txn:
    # Some stay with one agent, so that a key is written several times in one transaction.
    agents = list(keys) if rng.random() < 0.4 else [rng.choice(list(keys))]
    operations = []
    for _ in range(_drawn(rng, OPERATIONS)):
        agent = rng.choice(agents)
        value = None if rng.random() < DELETES else draw_value(rng)
        ttl_s = 0 if value is None else _drawn(rng, TTLS_S)
        operations.append(Operation(agent, rng.choice(keys[agent]), value, ttl_s))
    return Txn(tuple(operations), _drawn(rng, FATES))


def _drawn(rng: random.Random, weights: Mapping[T, int]) -> T:
    [drawn] = rng.choices(list(weights), list(weights.values()))
    return drawn
