"""Replay and ReplayLog: what they are asked, whose events they give, and where those are read."""

from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen

from statehouse.actors.event_stream import EventStream
from statehouse.actors.feed import Feed
from statehouse.actors.wanted import Read, Surroundings, Wanted
from statehouse.storage.reading import Reading
from statehouse.storage.section_fields import section_agent
from statehouse.types import AgentId

__all__ = ["EventStream", "ReplayArguments", "ReplayLogArguments", "Watching"]


@frozen(kw_only=True)
class ReplayArguments(Wanted):
    """A Replay."""

    agent: AgentId


@frozen(kw_only=True)
class ReplayLogArguments(Wanted):
    """A ReplayLog: of the agents that the filters let through."""

    namespace: str | None = None
    """None: all namespaces."""
    agent_prefix: str = ""
    """Of the agent ids."""


class Watching:
    """Makes the streams of one engine; `read`, `now_ns` and `settled` are as in `Surroundings`."""

    def __init__(
        self,
        store: Reading,
        feed: Feed,
        *,
        read: Read,
        now_ns: Callable[[], int],
        settled: Callable[[], Awaitable[object]],
    ) -> None:
        self._store = store
        self._around = Surroundings(feed, read, lambda: store.shown_ts, now_ns, settled)

    def replay(self, arguments: ReplayArguments) -> EventStream:
        """The events of an agent."""
        return EventStream(_AgentEvents(self._store, arguments.agent), arguments, self._around)

    def replay_log(self, arguments: ReplayLogArguments) -> EventStream:
        """The events of every agent that the filters let through, by commit.

        A commit is given whole: one that reaches `limit` may go beyond it.
        """
        return EventStream(_LogEvents(self._store, arguments), arguments, self._around)


@frozen
class _AgentEvents:
    store: Reading
    agent: AgentId
    wants_all: bool = True

    def wants(self, _: bytes, /) -> bool:
        return True

    def read(self, first_ts: int, last_ts: int) -> tuple[Iterable[tuple[int, bytes]], int | None]:
        chunk = self.store.events(self.agent, first_ts, last_ts)
        return enumerate(chunk.events), chunk.next_ts  # each of another commit; of which is not asked

    def ts_at_time(self, time_ns: int) -> int:
        return self.store.ts_at_time(self.agent, time_ns)


@frozen
class _LogEvents:
    store: Reading
    arguments: ReplayLogArguments
    agent: None = None

    @property
    def wants_all(self) -> bool:
        return self.arguments.namespace is None and not self.arguments.agent_prefix

    def wants(self, section: bytes, /) -> bool:
        if self.wants_all:
            return True
        namespace, agent_id = section_agent(section)
        return self.arguments.namespace in (None, namespace) and agent_id.startswith(self.arguments.agent_prefix)

    def read(self, first_ts: int, last_ts: int) -> tuple[Iterable[tuple[int, bytes]], int | None]:
        chunk = self.store.log_sections(first_ts, last_ts)
        return [(commit_ts, section) for commit_ts, _, section in chunk.events], chunk.next_ts

    def ts_at_time(self, time_ns: int) -> int:
        return self.store.log_ts_at_time(time_ns)
