"""The sync client's ways through the log: those of watching.py, where their docstrings are taken from."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Literal, overload

from statehouse.client.sync_calls import SyncCalls, as_in
from statehouse.client.types import Bookmark, ReplayEvent
from statehouse.client.watching import Watching

__all__ = ["SyncWatching"]


class SyncWatching(SyncCalls):
    """Of `Statehouse`: the calls that give events."""

    @as_in(Watching.replay)
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
    ) -> Iterator[ReplayEvent]:
        return self._iterate(
            lambda: self._client.replay(
                agent_id,
                start_ts,
                end_ts,
                namespace,
                start_time=start_time,
                end_time=end_time,
                limit=limit,
                key_prefix=key_prefix,
                metadata=metadata,
                timeout_s=timeout_s,
            )
        )

    replay_events = replay

    @as_in(Watching.replay_pretty)
    def replay_pretty(
        self,
        agent_id: str,
        start_ts: int | None = None,
        end_ts: int | None = None,
        namespace: str | None = None,
        *,
        verbose: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[str]:
        return self._iterate(
            lambda: self._client.replay_pretty(
                agent_id, start_ts, end_ts, namespace, verbose=verbose, timeout_s=timeout_s
            )
        )

    @as_in(Watching.replay_log)
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
    ) -> Iterator[ReplayEvent]:
        return self._iterate(
            lambda: self._client.replay_log(
                agent_prefix,
                namespace,
                start_ts=start_ts,
                end_ts=end_ts,
                start_time=start_time,
                end_time=end_time,
                limit=limit,
                key_prefix=key_prefix,
                metadata=metadata,
                timeout_s=timeout_s,
            )
        )

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
    ) -> Iterator[ReplayEvent]: ...

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
    ) -> Iterator[ReplayEvent | Bookmark]: ...

    @as_in(Watching.watch)
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
    ) -> Iterator[ReplayEvent] | Iterator[ReplayEvent | Bookmark]:
        return self._iterate(
            lambda: self._client.watch(
                agent_id,
                start_ts,
                end_ts,
                namespace,
                start_time=start_time,
                end_time=end_time,
                limit=limit,
                key_prefix=key_prefix,
                metadata=metadata,
                bookmarks=bookmarks,
                timeout_s=timeout_s,
            )
        )

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
    ) -> Iterator[ReplayEvent]: ...

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
    ) -> Iterator[ReplayEvent | Bookmark]: ...

    @as_in(Watching.watch_log)
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
    ) -> Iterator[ReplayEvent] | Iterator[ReplayEvent | Bookmark]:
        return self._iterate(
            lambda: self._client.watch_log(
                agent_prefix,
                namespace,
                start_ts=start_ts,
                end_ts=end_ts,
                start_time=start_time,
                end_time=end_time,
                limit=limit,
                key_prefix=key_prefix,
                metadata=metadata,
                bookmarks=bookmarks,
                timeout_s=timeout_s,
            )
        )
