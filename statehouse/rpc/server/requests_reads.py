"""The requests that read and are answered in one message: a key, keys, many keys, pages, agents and namespaces."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from attrs import frozen

from statehouse.errors import InvalidRequestError
from statehouse.limits import BATCH_KEYS, PAGE_AGENTS, PAGE_ENTRIES
from statehouse.rpc.server.requests import Names, check_count, of_one, parse, time_ns_of
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = [
    "NOW",
    "AgentsArguments",
    "BatchArguments",
    "ListingArguments",
    "NamespacesArguments",
    "PageArguments",
    "Point",
    "ReadRequests",
    "point_of",
]

DEFAULT_NAMESPACES = 100
"""Namespaces on a page when the client does not say how many: each is summed up over all its agents."""


class Point(NamedTuple):
    """A point of the past, one of the two; neither: now."""

    at_ts: int | None = None
    at_time_ns: int | None = None


NOW = Point()


@frozen
class PageArguments:
    """Which part of a listing."""

    limit: int
    token: bytes
    """Empty: the first page."""


@frozen
class ListingArguments:
    """Of keys or entries. Without `page` all of them in one answer; an empty `prefix` means every key."""

    agent: AgentId
    prefix: str
    at: Point
    page: PageArguments | None


@frozen
class BatchArguments:
    """`keys` are in UTF-8, `agents` those that they are of; `at_ts` None: as it is now."""

    keys: Sequence[tuple[AgentId, bytes]]
    agents: Collection[AgentId]
    at_ts: int | None


@frozen
class AgentsArguments:
    namespace: str
    prefix: str
    page: PageArguments


@frozen
class NamespacesArguments:
    prefix: str
    page: PageArguments


@frozen
class ReadRequests(Names):
    """Decodes and checks them against one set of limits. Raises InvalidRequestError."""

    def get_state(self, request: bytes) -> tuple[AgentId, str, Point]:
        """GetState: the agent, the key and the point. A tuple, because it is asked most of all."""
        get = parse(pb.GetStateRequest, request)
        at = point_of(get) if get.HasField("at_ts") or get.HasField("at_time") else NOW
        return self.agent(get.namespace, get.agent_id), self.key(get.key), at

    def get_state_at_version(self, request: bytes) -> tuple[AgentId, str, int]:
        """GetStateAtVersion: the agent, the key and the version."""
        get = parse(pb.GetStateAtVersionRequest, request)
        return self.agent(get.namespace, get.agent_id), self.key(get.key), get.version

    def list_keys(self, request: bytes) -> ListingArguments:
        """ListKeys."""
        listing = parse(pb.ListKeysRequest, request)
        agent = self.agent(listing.namespace, listing.agent_id)
        return ListingArguments(agent, "", point_of(listing), _page_or_all(listing))

    def scan_prefix(self, request: bytes) -> ListingArguments:
        """ScanPrefix."""
        scan = parse(pb.ScanPrefixRequest, request)
        prefix = self.prefix(scan.prefix, self.limits.key_bytes)
        agent = self.agent(scan.namespace, scan.agent_id)
        return ListingArguments(agent, prefix, point_of(scan), _page_or_all(scan))

    def batch_get(self, request: bytes) -> BatchArguments:
        """BatchGet: each key as often as it is named."""
        batch = parse(pb.BatchGetRequest, request)
        check_count("keys", len(batch.keys), BATCH_KEYS)
        self.namespace(batch.namespace)
        agents: dict[tuple[str, str], AgentId] = {}  # many keys may be of few agents
        keys: list[tuple[AgentId, bytes]] = []
        try:
            for each in batch.keys:
                named = each.namespace or batch.namespace, each.agent_id
                agent = agents.get(named)
                if agent is None:
                    agent = agents[named] = self.agent(*named)
                keys.append((agent, self.key_bytes(each.key)))
        except InvalidRequestError as error:
            raise of_one("key", len(keys), error) from None
        return BatchArguments(keys, agents.values(), batch.at_ts if batch.HasField("at_ts") else None)

    def list_agents(self, request: bytes) -> AgentsArguments:
        """ListAgents."""
        listing = parse(pb.ListAgentsRequest, request)
        prefix = self.prefix(listing.prefix, self.limits.agent_id_bytes)
        page = _page(listing.limit, listing.page_token, default=PAGE_AGENTS, most=PAGE_AGENTS)
        return AgentsArguments(self.namespace(listing.namespace), prefix, page)

    def list_namespaces(self, request: bytes) -> NamespacesArguments:
        """ListNamespaces."""
        listing = parse(pb.ListNamespacesRequest, request)
        prefix = self.prefix(listing.prefix, self.limits.namespace_bytes)
        page = _page(listing.limit, listing.page_token, default=DEFAULT_NAMESPACES, most=PAGE_AGENTS)
        return NamespacesArguments(prefix, page)


def point_of(request: pb.GetStateRequest | pb.ListKeysRequest | pb.ScanPrefixRequest | pb.ForkAgentRequest) -> Point:
    """The point that a request names by one of two fields; InvalidRequestError when it has both."""
    if request.HasField("at_ts"):
        if request.HasField("at_time"):
            raise InvalidRequestError("at_ts and at_time are both given; at most one of them may be")
        return Point(at_ts=request.at_ts)
    if request.HasField("at_time"):
        return Point(at_time_ns=time_ns_of("at_time", request.at_time))
    return NOW


def _page_or_all(request: pb.ListKeysRequest | pb.ScanPrefixRequest) -> PageArguments | None:
    if not (request.limit or request.page_token):
        return None
    return _page(request.limit, request.page_token, default=PAGE_ENTRIES, most=PAGE_ENTRIES)


def _page(limit: int, token: bytes, *, default: int, most: int) -> PageArguments:
    if limit > most:
        details = {"limit": str(most), "size": str(limit)}
        raise InvalidRequestError(f"limit is {limit}; at most {most} are given on a page", details=details)
    return PageArguments(limit or default, token)
