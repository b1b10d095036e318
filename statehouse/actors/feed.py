"""The Feed: the newest events of what is watched live here and nowhere else.

The sequencer publishes each group once it is durable and visible; the feed keeps the sections of agents that somebody
watches (and all of them while somebody watches the whole log), in one copy however many watch. A watcher has only a
cursor, the next commit_ts that it has not been given, and no queue that could fill up: while the feed reaches back to
the cursor it takes from here, else it reads the log. So nothing here waits for a watcher, and none is lost.

What an agent's events reach back to is its newest AGENT_FEED_EVENTS, and all agents' together FEED_BYTES: the oldest
give way. They are forgotten when the agent's last watcher leaves. An agent that comes to be as a fork while it is
watched has events from then on that were never published here; its watchers can see that. Belongs to the event loop's
thread.
"""

import math
from collections import OrderedDict, deque
from typing import Final, NamedTuple

import trio

from statehouse.limits import AGENT_FEED_EVENTS, FEED_BYTES
from statehouse.storage.commit import GroupCommit
from statehouse.storage.keys import agent_prefix
from statehouse.types import AgentId

__all__ = ["Feed", "Published", "Subscription"]

_WHOLE_LOG: Final = b""  # no agent's prefix is empty
EVENT_OVERHEAD_BYTES: Final = 400
"""About what keeping an event takes beside its bytes."""


class Published(NamedTuple):
    """What a commit did to one agent."""

    commit_ts: int
    section: bytes


class _Channel:
    """The newest events of one agent, or of the whole log: all with a commit_ts from `covers_from` up."""

    __slots__ = ("covers_from", "events", "forked_ts", "inherited_ts", "news", "subscribers")

    def __init__(self, covers_from: int) -> None:
        self.covers_from = covers_from
        self.events: deque[Published] = deque()
        self.news = trio.Event()
        self.subscribers = 0
        self.forked_ts = 0
        """The commit by which the agent came to be as a fork, since it is watched; 0: none."""
        self.inherited_ts = 0
        """The newest event that it came by so."""

    def fork(self, commit_ts: int, inherited_ts: int) -> None:
        """The agent has events of another from now on, which are not here: up to its fork, the log is to be asked."""
        self.forked_ts, self.inherited_ts = commit_ts, inherited_ts
        self.covers_from = commit_ts + 1

    def ring(self) -> None:
        """Wake who waits for news."""
        self.news.set()
        self.news = trio.Event()


class Feed:
    """The actor: `publish` in the order of the commits, `subscribe` at any time. `head_ts` is the newest commit."""

    def __init__(self, head_ts: int, *, feed_bytes: int = FEED_BYTES, agent_events: int = AGENT_FEED_EVENTS) -> None:
        self.head_ts = head_ts
        """The newest commit that was published."""
        self.held_bytes = 0
        """What the events hold, with EVENT_OVERHEAD_BYTES each."""
        self._feed_bytes = feed_bytes
        self._agent_events = agent_events
        self._channels: dict[bytes, _Channel] = {}
        # All events by channel and commit (an agent has one in a commit, the log one entry for each), oldest first.
        self._oldest: OrderedDict[int, _Channel] = OrderedDict()
        self._ends: dict[Subscription, int] = {}
        self._soonest_end = math.inf  # or earlier: whoever waited for it may have left

    @property
    def watched(self) -> int:
        """How many agents are watched; the whole log counts as one."""
        return len(self._channels)

    def publish(self, group: GroupCommit) -> None:
        """Take in a group that is durable and visible, and wake who waits for what is in it."""
        if self._channels:
            whole_log = self._channels.get(_WHOLE_LOG)
            woken: dict[int, _Channel] = {}
            for commit_ts, fork in group.forks():
                channel = self._channels.get(agent_prefix(fork.agent))
                if channel is not None:
                    woken[id(channel)] = channel
                    channel.fork(commit_ts, fork.inherited.last_commit_ts)
            for commit_ts, prefix, section in group.sections():
                if not prefix:
                    continue  # of no agent
                for channel in (self._channels.get(prefix), whole_log):
                    if channel is not None:
                        woken[id(channel)] = channel
                        self._keep(channel, Published(commit_ts, section))
            self._make_room()
            for channel in woken.values():
                channel.ring()
        self.head_ts = group.last_commit_ts
        if self.head_ts >= self._soonest_end:
            for subscription in [each for each, end_ts in self._ends.items() if end_ts <= self.head_ts]:
                del self._ends[subscription]
                subscription.ring()
            self._soonest_end = min(self._ends.values(), default=math.inf)

    def subscribe(self, agent: AgentId | None, *, until_ts: int | None = None) -> "Subscription":
        """Watch an agent, or the whole log (None), from the next commit on. The caller closes it.

        `until_ts` is news too, whoever's commit it is.
        """
        key = _WHOLE_LOG if agent is None else agent_prefix(agent)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel(self.head_ts + 1)
        channel.subscribers += 1
        subscription = Subscription(self, key, channel)
        if until_ts is not None and until_ts > self.head_ts:
            self._ends[subscription] = until_ts
            self._soonest_end = min(self._soonest_end, until_ts)
        return subscription

    def _keep(self, channel: _Channel, event: Published) -> None:
        channel.events.append(event)
        self._oldest[id(event)] = channel
        self.held_bytes += len(event.section) + EVENT_OVERHEAD_BYTES
        if len(channel.events) > self._agent_events:
            self._forget_oldest(channel)

    def _make_room(self) -> None:
        while self.held_bytes > self._feed_bytes:
            self._forget_oldest(next(iter(self._oldest.values())))

    def _forget_oldest(self, channel: _Channel) -> None:
        """Forget a channel's oldest commit, all of it: what is left of a commit must not pass for the whole."""
        commit_ts = channel.events[0].commit_ts
        while channel.events and channel.events[0].commit_ts == commit_ts:
            self._forget(channel.events.popleft())
        channel.covers_from = commit_ts + 1

    def _forget(self, event: Published) -> None:
        del self._oldest[id(event)]
        self.held_bytes -= len(event.section) + EVENT_OVERHEAD_BYTES

    def unsubscribe(self, subscription: "Subscription", key: bytes, channel: _Channel) -> None:
        """For `Subscription.close`."""
        self._ends.pop(subscription, None)
        channel.subscribers -= 1
        if not channel.subscribers:
            del self._channels[key]
            for event in channel.events:
                self._forget(event)
            channel.events.clear()


class Subscription:
    """One watcher's way to the feed. A cursor is the first commit_ts that the watcher was not given yet."""

    __slots__ = ("_channel", "_feed", "_key", "_since_ts")

    def __init__(self, feed: Feed, key: bytes, channel: _Channel) -> None:
        self._feed = feed
        self._key = key
        self._channel: _Channel | None = channel
        self._since_ts = feed.head_ts

    @property
    def inherited_ts(self) -> int:
        """The newest event that the agent came by as a fork, since the subscription began; 0: it did not."""
        channel = self._open
        return channel.inherited_ts if channel.forked_ts > self._since_ts else 0

    def covers(self, cursor: int) -> bool:
        """Whether everything from the cursor on is here; else the log has it."""
        return self._open.covers_from <= cursor

    def has(self, cursor: int) -> bool:
        """Whether there is an event from the cursor on."""
        events = self._open.events
        return bool(events) and events[-1].commit_ts >= cursor

    def take(self, cursor: int, last_ts: int, most_bytes: float = math.inf) -> tuple[list[Published], int]:
        """The events of whole commits from the cursor to `last_ts`, about `most_bytes`, and the cursor behind them.

        Only while the feed `covers` the cursor. An event that is larger comes alone.
        """
        events = self._open.events
        first = len(events)
        while first and events[first - 1].commit_ts >= cursor:  # a watcher that keeps up is near the end
            first -= 1
        taken: list[Published] = []
        size_bytes = 0
        for at in range(first, len(events)):
            event = events[at]
            if event.commit_ts > last_ts:
                break
            if size_bytes + len(event.section) > most_bytes and taken and taken[-1].commit_ts != event.commit_ts:
                return taken, event.commit_ts
            taken.append(event)
            size_bytes += len(event.section)
        return taken, max(cursor, min(self._feed.head_ts, last_ts) + 1)

    def size_bytes(self, cursor: int, most_bytes: int) -> int:
        """About what `take` of so many bytes would give."""
        size_bytes = 0
        for event in reversed(self._open.events):
            if event.commit_ts < cursor or size_bytes >= most_bytes:
                break
            size_bytes += len(event.section)
        return size_bytes

    def ring(self) -> None:
        """For the feed: there is news that is no event."""
        self._open.ring()

    async def news(self) -> None:
        """Wait for the next event of what is watched."""
        await self._open.news.wait()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._feed.unsubscribe(self, self._key, channel)

    @property
    def _open(self) -> _Channel:
        if self._channel is None:
            raise RuntimeError("the subscription is closed")
        return self._channel
