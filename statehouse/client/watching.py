"""The async client's ways through the log: replays, which end, and watches, which go on."""

import datetime as dt
from collections.abc import Mapping
from typing import Literal, overload

from statehouse.client.calls import Calls
from statehouse.client.formatting import event_lines
from statehouse.client.replay_requests import Window, log_request, replay_request
from statehouse.client.results import replay_event, watched
from statehouse.client.stream import AsyncStream
from statehouse.client.types import Bookmark, ReplayEvent

__all__ = ["Watching"]


class Watching(Calls):
    """Of `AsyncStatehouse`: the calls that give events."""

    def replay(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent]:
        """The agent's events in commit order, as an async iterator; both ends are inclusive.

        An end is a commit_ts or a time (an aware datetime). At most `limit` events; with `key_prefix` only operations
        on such keys, and events that have any; with `metadata` only events that have all of these entries.

        It ends with the newest commit at the time of the call, which is made when the first event is asked
        for. Events come as they are read: memory stays flat however long the history. Leaving the loop early
        ends the call.
        """
        name = self.full_name(namespace)
        window = Window(start_ts, end_ts, start_time, end_time, limit, key_prefix, metadata)
        stream = self.stub.Replay(replay_request(name, agent_id, window), timeout_s=timeout_s)
        return AsyncStream(stream, lambda event: (replay_event(event, name, agent_id),))

    replay_events = replay

    def replay_pretty(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        verbose: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncStream[str]:
        """As `replay`, in lines for people: one for each operation; see `statehouse.client.formatting`."""
        name = self.full_name(namespace)
        request = replay_request(name, agent_id, Window(start_ts, end_ts))
        stream = self.stub.Replay(request, timeout_s=timeout_s)
        return AsyncStream(stream, lambda event: event_lines(replay_event(event, name, agent_id), verbose=verbose))

    def replay_log(
        self,
        agent_prefix: str = "",
        namespace: str | None = None,
        *,
        start_ts: int | None = None,
        end_ts: int | None = None,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent]:
        """As `replay`, for all agents whose ids begin with `agent_prefix`, of one namespace, or of all (None).

        A commit is one event for each agent that it touched. `limit` counts these events, but a commit is given whole:
        the one that reaches it may go beyond it.
        """
        window = Window(start_ts, end_ts, start_time, end_time, limit, key_prefix, metadata)
        stream = self.stub.ReplayLog(log_request(namespace, agent_prefix, window), timeout_s=timeout_s)
        return AsyncStream(stream, lambda event: (replay_event(event, "", ""),))

    @overload
    def watch(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        bookmarks: Literal[False] = False,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent]: ...

    @overload
    def watch(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        bookmarks: bool,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent | Bookmark]: ...

    def watch(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        bookmarks: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent] | AsyncStream[ReplayEvent | Bookmark]:
        """As `replay`, and then the events to come, until an end that was given, or for ever.

        Without a start it begins with what is committed after the daemon was first reached, which happens when the
        first event is asked for. With `bookmarks` a Bookmark says, every few seconds while nothing happens, up to
        which commit_ts everything was given; once an event of the agent has come, a watch from `bookmark.commit_ts + 1`
        on goes on from there. Before that, go on from where you began: an agent without events may still come to be as
        a fork, with events from before the bookmark. So does the watch itself when it reconnects, and then gives what
        the fork inherited. When it sees the fork happen, it ends with InvalidRequestError: watch anew.

        Events come in commit order, none twice and none left out. When the connection is lost, or the daemon is
        restarted, the watch reconnects by itself, with pauses that grow, for as long as it is asked for events; only a
        daemon that cannot be reached at the beginning is told (ConnectionError). It ends with the client, when it is
        left, or when a wait for an event is cancelled. `timeout_s` is how long the daemon may be silent until the
        connection counts as lost; it says something every few seconds.
        """
        name = self.full_name(namespace)
        window = Window(start_ts, end_ts, start_time, end_time, limit, key_prefix, metadata)
        stream = self.stub.follow(replay_request(name, agent_id, window), timeout_s=timeout_s)
        return AsyncStream(stream, lambda event: watched(event, name, agent_id, bookmarks=bookmarks))

    @overload
    def watch_log(
        self,
        agent_prefix: str = "",
        namespace: str | None = None,
        *,
        start_ts: int | None = None,
        end_ts: int | None = None,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        bookmarks: Literal[False] = False,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent]: ...

    @overload
    def watch_log(
        self,
        agent_prefix: str = "",
        namespace: str | None = None,
        *,
        start_ts: int | None = None,
        end_ts: int | None = None,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        bookmarks: bool,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent | Bookmark]: ...

    def watch_log(
        self,
        agent_prefix: str = "",
        namespace: str | None = None,
        *,
        start_ts: int | None = None,
        end_ts: int | None = None,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
        key_prefix: str = "",
        metadata: Mapping[str, str] | None = None,
        bookmarks: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncStream[ReplayEvent] | AsyncStream[ReplayEvent | Bookmark]:
        """As `watch`, for all agents whose ids begin with `agent_prefix`, of one namespace, or of all (None).

        A fork shows no inherited events here, so a watch from any `bookmark.commit_ts + 1` goes on. A commit is one
        event for each agent that it touched; whoever stores where it is does so at a Bookmark, or when the commit_ts
        changes. `limit` counts these events, but a commit is given whole: the one that reaches it may go beyond it.
        """
        window = Window(start_ts, end_ts, start_time, end_time, limit, key_prefix, metadata)
        stream = self.stub.follow(log_request(namespace, agent_prefix, window), timeout_s=timeout_s)
        return AsyncStream(stream, lambda event: watched(event, "", "", bookmarks=bookmarks))
