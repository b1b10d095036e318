"""What a partition reads: point reads of the view, which may raise a StorageError."""

from collections.abc import Callable
from functools import partial

from attrs import frozen

from statehouse.actors.messages import Earlier, LeaseRow
from statehouse.storage.commit import AgentCounters
from statehouse.storage.keys import agent_prefix
from statehouse.storage.lineage import Levels
from statehouse.storage.store import Store
from statehouse.types import AgentId

__all__ = ["AgentReads"]


@frozen(kw_only=True)
class AgentReads:
    """Of its agent, and of another that it is to be a fork of."""

    counters: Callable[[], AgentCounters]
    levels: Callable[[], Levels]
    """Where the agent's rows stand."""
    stored: Callable[[Levels, bytes], bytes | None]
    """The stored value of a key."""
    earlier: Callable[[bytes], Earlier | None]
    """The newest commit with an idempotency key."""
    lease: Callable[[], LeaseRow | None]
    """The newest lease."""
    ended_ts: Callable[[], int]
    """The newest commit that deleted the agent; 0: there is none."""
    shown_ts: Callable[[], int]
    """The newest commit of all that a read may have shown."""
    is_known: Callable[[AgentId], bool]
    """Whether that agent was ever written to, or forked."""
    forking: Callable[[AgentId, int], tuple[AgentCounters, int]]
    """What a fork of that agent, as of a commit, would inherit (no commits: nothing), and how deep it would be."""

    @classmethod
    def of_store(cls, store: Store, agent: AgentId) -> "AgentReads":
        """Those of an agent."""
        prefix = agent_prefix(agent)
        return cls(
            counters=partial(store.counters, prefix),
            levels=partial(store.levels, agent),
            stored=store.stored,
            earlier=partial(store.idempotent, prefix),
            lease=partial(store.lease, prefix),
            ended_ts=partial(store.ended_ts, prefix),
            shown_ts=lambda: store.shown_ts,
            is_known=lambda other: store.counters(agent_prefix(other)).commits > 0,
            forking=store.forking,
        )
