"""The sync client's reads: those of reading.py, where their docstrings are taken from."""

import datetime as dt
from collections.abc import Iterable, Iterator
from functools import partial

from statehouse.client.reading import Reading
from statehouse.client.sync_calls import SyncCalls, as_in
from statehouse.client.types import AgentInfo, DiffEntry, HistoryEntry, NamespaceInfo, StateResult

__all__ = ["SyncReading"]


class SyncReading(SyncCalls):
    """Of `Statehouse`: the calls that read."""

    @as_in(Reading.get_state)
    def get_state(
        self,
        agent_id: str,
        key: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> StateResult:
        return self._loop.run(
            partial(self._client.get_state, agent_id, key, namespace, at_ts=at_ts, at_time=at_time, timeout_s=timeout_s)
        )

    @as_in(Reading.get_state_at_version)
    def get_state_at_version(
        self, agent_id: str, key: str, version: int, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> StateResult:
        return self._loop.run(
            partial(self._client.get_state_at_version, agent_id, key, version, namespace, timeout_s=timeout_s)
        )

    @as_in(Reading.list_keys)
    def list_keys(
        self,
        agent_id: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> list[str]:
        return self._loop.run(
            partial(self._client.list_keys, agent_id, namespace, at_ts=at_ts, at_time=at_time, timeout_s=timeout_s)
        )

    @as_in(Reading.iter_keys)
    def iter_keys(
        self,
        agent_id: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[str]:
        return self._iterate(
            lambda: self._client.iter_keys(agent_id, namespace, at_ts=at_ts, at_time=at_time, timeout_s=timeout_s)
        )

    @as_in(Reading.scan_prefix)
    def scan_prefix(
        self,
        agent_id: str,
        prefix: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> list[StateResult]:
        return self._loop.run(
            partial(
                self._client.scan_prefix, agent_id, prefix, namespace, at_ts=at_ts, at_time=at_time, timeout_s=timeout_s
            )
        )

    @as_in(Reading.iter_prefix)
    def iter_prefix(
        self,
        agent_id: str,
        prefix: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[StateResult]:
        return self._iterate(
            lambda: self._client.iter_prefix(
                agent_id, prefix, namespace, at_ts=at_ts, at_time=at_time, timeout_s=timeout_s
            )
        )

    @as_in(Reading.batch_get)
    def batch_get(
        self,
        keys: Iterable[tuple[str, str] | tuple[str, str, str]],
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        timeout_s: float | None = None,
    ) -> list[StateResult]:
        return self._loop.run(partial(self._client.batch_get, tuple(keys), namespace, at_ts=at_ts, timeout_s=timeout_s))

    @as_in(Reading.history)
    def history(
        self,
        agent_id: str,
        key: str,
        limit: int | None = None,
        before_version: int | None = None,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Iterator[HistoryEntry]:
        return self._iterate(
            lambda: self._client.history(agent_id, key, limit, before_version, namespace, timeout_s=timeout_s)
        )

    @as_in(Reading.diff)
    def diff(
        self,
        agent_id: str,
        from_ts: int | None = None,
        to_ts: int | None = None,
        namespace: str | None = None,
        *,
        from_time: dt.datetime | None = None,
        to_time: dt.datetime | None = None,
        prefix: str = "",
        timeout_s: float | None = None,
    ) -> Iterator[DiffEntry]:
        return self._iterate(
            lambda: self._client.diff(
                agent_id,
                from_ts,
                to_ts,
                namespace,
                from_time=from_time,
                to_time=to_time,
                prefix=prefix,
                timeout_s=timeout_s,
            )
        )

    @as_in(Reading.list_agents)
    def list_agents(
        self, prefix: str = "", namespace: str | None = None, *, timeout_s: float | None = None
    ) -> Iterator[AgentInfo]:
        return self._iterate(lambda: self._client.list_agents(prefix, namespace, timeout_s=timeout_s))

    @as_in(Reading.list_namespaces)
    def list_namespaces(self, prefix: str = "", *, timeout_s: float | None = None) -> Iterator[NamespaceInfo]:
        return self._iterate(lambda: self._client.list_namespaces(prefix, timeout_s=timeout_s))
