"""The calls that read and are answered in one message, and how the pages of listings follow each other.

All pages of ListKeys and ScanPrefix show one moment: the first is read as of the newest commit, or of the point that
was asked for, and its token pins that commit for those behind it; of a listing of now also what time it is, so that
nothing expires between two pages. Pages of agents and namespaces show each what is
there when it is asked for.
"""

from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

from attrs import frozen

from statehouse.actors.engine import ViewAwayError
from statehouse.actors.reads import Page
from statehouse.errors import OverloadedError
from statehouse.limits import RESPONSE_BYTES
from statehouse.rpc.server.access import Caller
from statehouse.rpc.server.engine_calls import EngineCalls
from statehouse.rpc.server.page_token import PageTokens, Place
from statehouse.rpc.server.requests import parse
from statehouse.rpc.server.requests_reads import NOW, ListingArguments, PageArguments, ReadRequests
from statehouse.rpc.verify_events import encode_head
from statehouse.storage.wire import LENGTH_DELIMITED, tag, varint
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["ReadCalls"]

# The entries of these answers are encoded already: what is left is a tag and a length before each.
_KEYS: Final = tag(pb.ListKeysResponse.KEYS_FIELD_NUMBER, LENGTH_DELIMITED)
_ENTRIES: Final = tag(pb.ScanPrefixResponse.ENTRIES_FIELD_NUMBER, LENGTH_DELIMITED)
_NEXT: Final = tag(pb.ScanPrefixResponse.NEXT_PAGE_TOKEN_FIELD_NUMBER, LENGTH_DELIMITED)
_FOUND: Final = tag(1, LENGTH_DELIMITED)
"""Of BatchGetResponse.entries, ListAgentsResponse.agents and ListNamespacesResponse.namespaces."""
_NEXT_OF_NAMES: Final = tag(2, LENGTH_DELIMITED)
"""Of the next_page_token of the last two."""


@frozen
class ReadCalls:
    """One method for each call."""

    engine: EngineCalls
    requests: ReadRequests

    def get_state(self, request: bytes, caller: Caller) -> bytes | Coroutine[Any, Any, bytes]:
        agent, key, at = self.requests.get_state(request)
        caller.may_read(agent)
        if at is not NOW:
            return self.engine.get_state_at(agent, key, *at)
        try:
            return self.engine.get_state(agent, key)
        except ViewAwayError:
            return self.engine.get_state_later(agent, key)

    def get_state_at_version(self, request: bytes, caller: Caller) -> bytes | Coroutine[Any, Any, bytes]:
        agent, key, version = self.requests.get_state_at_version(request)
        caller.may_read(agent)
        try:
            return self.engine.get_state_at_version(agent, key, version)
        except ViewAwayError:
            return self.engine.get_state_at_version_later(agent, key, version)

    def list_keys(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        listing = self.requests.list_keys(request)
        caller.may_read(listing.agent)
        if listing.page is None:
            return self._all_keys(listing)
        return self._page_of_keys(listing, listing.page, *self._continues(b"ListKeys", listing, listing.page))

    async def _all_keys(self, listing: ListingArguments) -> bytes:
        found = await self.engine.list_keys(listing.agent, *listing.at)
        return _bounded(_joined(_KEYS, [key.encode() for key in found]))

    async def _page_of_keys(
        self, listing: ListingArguments, asked: PageArguments, place: Place | None, request: list[bytes]
    ) -> bytes:
        at_ts, now_ns, after = place or await self._first(listing)
        page = await self.engine.list_page(listing.agent, after=after, limit=asked.limit, at_ts=at_ts, now_ns=now_ns)
        return _joined(_KEYS, [key.encode() for key in page.found]) + self._next(_NEXT, page, request, at_ts, now_ns)

    def scan_prefix(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        scan = self.requests.scan_prefix(request)
        caller.may_read(scan.agent)
        if scan.page is None:
            return self._all_entries(scan)
        return self._page_of_entries(scan, scan.page, *self._continues(b"ScanPrefix", scan, scan.page))

    async def _all_entries(self, scan: ListingArguments) -> bytes:
        return _bounded(_joined(_ENTRIES, await self.engine.scan_prefix(scan.agent, scan.prefix, *scan.at)))

    async def _page_of_entries(
        self, scan: ListingArguments, asked: PageArguments, place: Place | None, request: list[bytes]
    ) -> bytes:
        at_ts, now_ns, after = place or await self._first(scan)
        page = await self.engine.scan_page(
            scan.agent, scan.prefix, after=after, limit=asked.limit, at_ts=at_ts, now_ns=now_ns
        )
        return _joined(_ENTRIES, page.found) + self._next(_NEXT, page, request, at_ts, now_ns)

    def batch_get(self, request: bytes, caller: Caller) -> bytes | Coroutine[Any, Any, bytes]:
        batch = self.requests.batch_get(request)
        for agent in batch.agents:
            caller.may_read(agent)
        if batch.at_ts is None:
            with suppress(ViewAwayError):
                found = self.engine.batch_at_hand(batch.keys)
                if found is not None:
                    return _bounded(_joined(_FOUND, found))

        async def get() -> bytes:
            return _bounded(_joined(_FOUND, await self.engine.batch_get(batch.keys, batch.at_ts)))

        return get()

    def list_agents(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        listing = self.requests.list_agents(request)
        caller.may_list(listing.namespace, listing.prefix)
        parts = [b"ListAgents", listing.namespace.encode(), listing.prefix.encode()]
        after = self._after(listing.page, parts)

        async def page() -> bytes:
            found = await self.engine.list_agents(
                listing.namespace, listing.prefix, after=after, limit=listing.page.limit
            )
            infos = [_as_seen(each, caller) for each in found.found] if caller.is_bound else found.found
            return _joined(_FOUND, infos) + self._next(_NEXT_OF_NAMES, found, parts)

        return page()

    def list_namespaces(self, request: bytes, caller: Caller) -> Coroutine[Any, Any, bytes]:
        listing = self.requests.list_namespaces(request)
        caller.may_see_all()
        parts = [b"ListNamespaces", listing.prefix.encode()]
        after = self._after(listing.page, parts)

        async def page() -> bytes:
            found = await self.engine.list_namespaces(listing.prefix, after=after, limit=listing.page.limit)
            return _joined(_FOUND, found.found) + self._next(_NEXT_OF_NAMES, found, parts)

        return page()

    def head(self, request: bytes, caller: Caller) -> bytes:
        parse(pb.HeadRequest, request)
        caller.may_see_all()
        return encode_head(self.engine.head()).SerializeToString()

    # Pages

    def _tokens(self) -> PageTokens:
        return PageTokens.of_store(self.engine.head().store_id)

    def _continues(
        self, call: bytes, listing: ListingArguments, page: PageArguments
    ) -> tuple[Place | None, list[bytes]]:
        """Where a page begins (None: it is the first), and the parts of the request that its token is bound to."""
        agent = listing.agent
        names = [call, agent.namespace.encode(), agent.agent_id.encode(), listing.prefix.encode()]
        request = [*names, *(b"" if each is None else str(each).encode() for each in listing.at)]
        return (self._tokens().decode(page.token, request) if page.token else None), request

    async def _first(self, listing: ListingArguments) -> tuple[int, int, str | None]:
        """Where a listing begins, as a `Place` says where it goes on."""
        # The time first: what has expired by it must not have been replaced in time by a commit behind the pinned one.
        now_ns = self.engine.now_ns() if listing.at == NOW else 0
        return await self.engine.pin(listing.agent, *listing.at), now_ns, None

    def _after(self, page: PageArguments, request: list[bytes]) -> str | None:
        return self._tokens().decode(page.token, request).after if page.token else None

    def _next(self, next_tag: bytes, page: Page[Any], request: list[bytes], at_ts: int = 0, now_ns: int = 0) -> bytes:
        """The field with the token of the next page; none when there is no more."""
        if page.next_after is None:
            return b""
        return _joined(next_tag, [self._tokens().encode(Place(at_ts, now_ns, page.next_after), request)])


def _as_seen(info: bytes, caller: Caller) -> bytes:
    """An AgentInfo for a caller that is bound: a parent that it may not read is told without its name."""
    seen = pb.AgentInfo.FromString(info)
    if seen.HasField("forked_from") and not caller.sees(AgentId(seen.namespace, seen.forked_from.agent_id)):
        seen.forked_from.agent_id = ""
    return seen.SerializeToString()


def _joined(field_tag: bytes, entries: Iterable[bytes]) -> bytes:
    """A repeated field."""
    return b"".join([piece for each in entries for piece in (field_tag, varint(len(each)), each)])


def _bounded(response: bytes) -> bytes:
    """An answer in one message is held in memory as a whole, here and by the client."""
    if len(response) > RESPONSE_BYTES:
        raise OverloadedError(
            f"the answer is {len(response)} bytes, the limit is {RESPONSE_BYTES}: ask for less, or pages",
            details={"limit": str(RESPONSE_BYTES), "size": str(len(response))},
        )
    return response
