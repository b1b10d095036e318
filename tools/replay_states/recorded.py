"""What is written down of a history while it is carried out: what was sent, and what every read gave."""

from collections import Counter, defaultdict
from typing import TypeAlias

from attrs import define, field, frozen

from replay_states.drawing import Operation
from statehouse.types import AgentId

__all__ = ["Past", "Reading", "Recorded", "Window"]

VersionKey: TypeAlias = tuple[AgentId, str, int]


@frozen
class Reading:
    """One agent, read at one moment."""

    responses: tuple[bytes, ...]
    """The encoded GetStateResponse of each of its keys, in the order of `History.keys`."""
    entries: tuple[bytes, ...]
    """The encoded StateEntry of each live key."""
    listed: tuple[str, ...]


@frozen
class Window:
    """A piece of a replay, both ends included."""

    agent: AgentId
    first_ts: int | None
    last_ts: int | None
    events: tuple[bytes, ...]


@frozen
class Past:
    """The keys of an agent, read as of a commit."""

    agent: AgentId
    at_ts: int
    responses: tuple[bytes, ...]
    """The encoded GetStateResponse of each, in the order of `History.keys`."""


@define
class Recorded:
    """What was sent, and what was read."""

    head_ts: int = 0
    committed: list[int] = field(factory=list)
    """Every commit_ts that was answered, in the order of the answers."""
    sent: dict[AgentId, list[tuple[int, list[Operation] | None]]] = field(factory=lambda: defaultdict(list))
    """None: the end of the agent, which deletes what there is."""
    readings: list[tuple[int, int, dict[AgentId, Reading]]] = field(factory=list)
    """What the reads gave when the store stood at a commit_ts, and its clock at so many ns; several may be of one."""
    followed: dict[AgentId, list[bytes]] = field(factory=lambda: defaultdict(list))
    """The events as they came, each read right after its commit."""
    replays: dict[AgentId, list[bytes]] = field(factory=dict)
    """The events as a replay gives them at the end."""
    windows: list[Window] = field(factory=list)
    past: list[Past] = field(factory=list)
    forked: dict[AgentId, int] = field(factory=dict)
    """The commit_ts of each fork: the agent had nothing before."""
    notes: list[int] = field(factory=list)
    """The commit_ts at which it was noted how far what had expired was deleted, as the view has them."""
    versions: dict[VersionKey, bytes] = field(factory=dict)
    """Every version that GetStateAtVersion has at the end: the encoded answer."""
    log: bytes = b""
    counts: Counter[str] = field(factory=Counter)
