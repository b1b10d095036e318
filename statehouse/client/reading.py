"""The async client's reads: keys, pages, batches, history, differences, and what agents there are."""

import datetime as dt
import itertools
from collections.abc import Iterable
from typing import Any, Final

from statehouse.client.arguments import (
    check_counts,
    check_key,
    check_numbers,
    check_optional_numbers,
    check_texts,
    one_of,
    point,
    timestamp,
)
from statehouse.client.calls import Calls
from statehouse.client.results import (
    agent_info,
    batch_result,
    diff_entry,
    entry_result,
    history_entry,
    namespace_info,
    state_result,
)
from statehouse.client.stream import AsyncStream, Pages
from statehouse.client.types import AgentInfo, DiffEntry, HistoryEntry, NamespaceInfo, StateResult
from statehouse.limits import PAGE_AGENTS, PAGE_ENTRIES
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Reading"]

SCAN_ENTRIES: Final = 1_000
"""Of one page of `iter_prefix`: values may be large."""
_MOST: Final = 2**32 - 1


class Reading(Calls):
    """Of `AsyncStatehouse`: the calls that read.

    Those that take `at_ts` or `at_time` (an aware datetime; at most one of the two) show the state as it was then; a
    point after the newest commit is the newest commit.
    """

    async def get_state(
        self,
        agent_id: str,
        key: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> StateResult:
        """The latest version of a key, or the one at a point. One that was never written, or deleted, is no error."""
        check_texts(agent_id=agent_id, key=key)
        request = pb.GetStateRequest(
            namespace=self.full_name(namespace), agent_id=agent_id, key=key, at_ts=at_ts, at_time=point(at_ts, at_time)
        )
        return state_result(await self.stub.GetState(request, timeout_s=timeout_s))

    async def get_state_at_version(
        self, agent_id: str, key: str, version: int, namespace: str | None = None, *, timeout_s: float | None = None
    ) -> StateResult:
        """A key as it was at a version; `exists` False and version 0 when there is no such version."""
        check_texts(agent_id=agent_id, key=key)
        check_numbers(version=version)
        request = pb.GetStateAtVersionRequest(
            namespace=self.full_name(namespace), agent_id=agent_id, key=key, version=version
        )
        return state_result(await self.stub.GetStateAtVersion(request, timeout_s=timeout_s))

    async def list_keys(
        self,
        agent_id: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> list[str]:
        """The agent's live keys, ascending by their UTF-8 bytes.

        In one answer, which has a limit (OverloadedError): `iter_keys` has none.
        """
        request = self._keys_request(agent_id, namespace, at_ts, at_time)
        return list((await self.stub.ListKeys(request, timeout_s=timeout_s)).keys)

    def iter_keys(
        self,
        agent_id: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> AsyncStream[str]:
        """As `list_keys`, however many there are: an iterator that asks for a page at a time.

        All pages show one moment: that of the first, which is asked for with the first key, unless a point is given.
        `timeout_s` bounds each page.
        """
        request = self._keys_request(agent_id, namespace, at_ts, at_time)

        async def page(token: bytes, entries: int) -> pb.ListKeysResponse:
            request.page_token, request.limit = token, entries
            return await self.stub.ListKeys(request, timeout_s=timeout_s)

        return AsyncStream(Pages(page, PAGE_ENTRIES), _keys)

    async def scan_prefix(
        self,
        agent_id: str,
        prefix: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> list[StateResult]:
        """The live keys that begin with `prefix`, with their values, ascending by their UTF-8 bytes.

        In one answer, which has a limit (OverloadedError): `iter_prefix` has none.
        """
        request = self._scan_request(agent_id, prefix, namespace, at_ts, at_time)
        answer = await self.stub.ScanPrefix(request, timeout_s=timeout_s)
        return [entry_result(entry) for entry in answer.entries]

    def iter_prefix(
        self,
        agent_id: str,
        prefix: str,
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        at_time: dt.datetime | None = None,
        timeout_s: float | None = None,
    ) -> AsyncStream[StateResult]:
        """As `scan_prefix`, however many there are: an iterator that asks for a page at a time, as `iter_keys`."""
        request = self._scan_request(agent_id, prefix, namespace, at_ts, at_time)

        async def page(token: bytes, entries: int) -> pb.ScanPrefixResponse:
            request.page_token, request.limit = token, entries
            return await self.stub.ScanPrefix(request, timeout_s=timeout_s)

        return AsyncStream(Pages(page, SCAN_ENTRIES), _entries)

    async def batch_get(
        self,
        keys: Iterable[tuple[str, str] | tuple[str, str, str]],
        namespace: str | None = None,
        *,
        at_ts: int | None = None,
        timeout_s: float | None = None,
    ) -> list[StateResult]:
        """Up to 1,000 keys, of any agents, from one moment: a result for each, in their order, with whose it is.

        Each is `(agent_id, key)`, or `(agent_id, key, namespace)` where that is not the call's; anything else
        is a TypeError that tells its index.
        """
        check_optional_numbers(at_ts=at_ts)
        request = pb.BatchGetRequest(namespace=self.full_name(namespace), at_ts=at_ts)
        for agent_id, key, *other in map(check_key, itertools.count(), keys):
            request.keys.add(namespace=self.full_name(other[0] if other else namespace), agent_id=agent_id, key=key)
        answer = await self.stub.BatchGet(request, timeout_s=timeout_s)
        return [batch_result(entry) for entry in answer.entries]

    def history(
        self,
        agent_id: str,
        key: str,
        limit: int | None = None,
        before_version: int | None = None,
        namespace: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> AsyncStream[HistoryEntry]:
        """The versions of a key, newest first, at most `limit`, below `before_version`; deletes are versions, too.

        The call is made when the first one is asked for, and goes on where it broke off. Memory stays flat.
        """
        check_texts(agent_id=agent_id, key=key)
        check_counts(_MOST, limit=limit)
        check_counts(2**64 - 1, before_version=before_version)
        request = pb.HistoryRequest(
            namespace=self.full_name(namespace),
            agent_id=agent_id,
            key=key,
            limit=limit or 0,
            before_version=before_version or 0,
        )
        return AsyncStream(self.stub.History(request, timeout_s=timeout_s), lambda entry: (history_entry(entry),))

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
    ) -> AsyncStream[DiffEntry]:
        """The keys that were written or deleted after `from` and up to `to`, ascending, as they were at either point.

        Without `from` it is everything up to `to`, without `to` everything until now. The call is made when the first
        entry is asked for; when its connection is lost after that, ConnectionError.
        """
        check_texts(agent_id=agent_id, prefix=prefix)
        check_optional_numbers(from_ts=from_ts, to_ts=to_ts)
        one_of(from_ts=from_ts, from_time=from_time)
        one_of(to_ts=to_ts, to_time=to_time)
        request = pb.DiffRequest(
            namespace=self.full_name(namespace),
            agent_id=agent_id,
            from_ts=from_ts,
            to_ts=to_ts,
            from_time=timestamp("from_time", from_time, whole=True),
            to_time=timestamp("to_time", to_time, whole=True),
            prefix=prefix,
        )
        return AsyncStream(self.stub.Diff(request, timeout_s=timeout_s), lambda entry: (diff_entry(entry),))

    def list_agents(
        self, prefix: str = "", namespace: str | None = None, *, timeout_s: float | None = None
    ) -> AsyncStream[AgentInfo]:
        """The agents of a namespace whose ids begin with `prefix`, ascending, in numbers; a page at a time."""
        check_texts(prefix=prefix)
        name = self.full_name(namespace)

        async def page(token: bytes, entries: int) -> pb.ListAgentsResponse:
            request = pb.ListAgentsRequest(namespace=name, limit=entries, page_token=token, prefix=prefix)
            return await self.stub.ListAgents(request, timeout_s=timeout_s)

        return AsyncStream(Pages(page, PAGE_AGENTS), lambda answer: [agent_info(each) for each in answer.agents])

    def list_namespaces(self, prefix: str = "", *, timeout_s: float | None = None) -> AsyncStream[NamespaceInfo]:
        """The namespaces whose names begin with `prefix`, ascending, with the sums over their agents; in pages."""
        check_texts(prefix=prefix)

        async def page(token: bytes, entries: int) -> pb.ListNamespacesResponse:
            request = pb.ListNamespacesRequest(limit=entries, page_token=token, prefix=prefix)
            return await self.stub.ListNamespaces(request, timeout_s=timeout_s)

        return AsyncStream(Pages(page, 100), lambda answer: [namespace_info(each) for each in answer.namespaces])

    def _keys_request(
        self, agent_id: str, namespace: str | None, at_ts: int | None, at_time: dt.datetime | None
    ) -> pb.ListKeysRequest:
        check_texts(agent_id=agent_id)
        return pb.ListKeysRequest(
            namespace=self.full_name(namespace), agent_id=agent_id, at_ts=at_ts, at_time=point(at_ts, at_time)
        )

    def _scan_request(
        self, agent_id: str, prefix: str, namespace: str | None, at_ts: int | None, at_time: dt.datetime | None
    ) -> pb.ScanPrefixRequest:
        check_texts(agent_id=agent_id, prefix=prefix)
        return pb.ScanPrefixRequest(
            namespace=self.full_name(namespace),
            agent_id=agent_id,
            prefix=prefix,
            at_ts=at_ts,
            at_time=point(at_ts, at_time),
        )


def _keys(page: Any) -> list[str]:
    return list(page.keys)


def _entries(page: Any) -> list[StateResult]:
    return [entry_result(entry) for entry in page.entries]
