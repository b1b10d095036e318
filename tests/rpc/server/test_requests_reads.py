"""The requests that read: points of the past, pages, many keys, listings."""

import pytest
from google.protobuf import timestamp_pb2

from statehouse.errors import InvalidRequestError
from statehouse.limits import BATCH_KEYS, PAGE_AGENTS, PAGE_ENTRIES, Limits
from statehouse.rpc.server.requests_reads import NOW, AgentsArguments, PageArguments, Point, ReadRequests
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

REQUESTS = ReadRequests(Limits())
TIME = timestamp_pb2.Timestamp(seconds=3, nanos=5)

AT_A_POINT = [
    (REQUESTS.get_state, pb.GetStateRequest, {"agent_id": "a", "key": "k"}),
    (REQUESTS.list_keys, pb.ListKeysRequest, {"agent_id": "a"}),
    (REQUESTS.scan_prefix, pb.ScanPrefixRequest, {"agent_id": "a"}),
]
PAGED = [
    (REQUESTS.list_keys, pb.ListKeysRequest, PAGE_ENTRIES),
    (REQUESTS.scan_prefix, pb.ScanPrefixRequest, PAGE_ENTRIES),
    (REQUESTS.list_agents, pb.ListAgentsRequest, PAGE_AGENTS),
    (REQUESTS.list_namespaces, pb.ListNamespacesRequest, PAGE_AGENTS),
]


def refused(match, read, request):
    with pytest.raises(InvalidRequestError, match=match) as error:
        read(request.SerializeToString())
    return error.value.details.get("limit"), error.value.details.get("size")


@pytest.mark.parametrize(("read", "message", "fields"), AT_A_POINT)
def test_a_point_is_a_commit_or_a_time(read, message, fields):
    def at(**point):
        found = read(message(**fields, **point).SerializeToString())
        return found[-1] if isinstance(found, tuple) else found.at

    assert at() is NOW
    assert (at(at_ts=0), at(at_ts=2**64 - 1)) == (Point(at_ts=0), Point(at_ts=2**64 - 1))
    assert at(at_time=TIME) == Point(at_time_ns=3_000_000_005)
    assert at(at_time=timestamp_pb2.Timestamp()) == Point(at_time_ns=0)
    assert at(at_time=timestamp_pb2.Timestamp(seconds=-1)) == Point(at_time_ns=0)  # nothing is so old
    refused("at_ts and at_time are both given", read, message(**fields, at_ts=0, at_time=TIME))


@pytest.mark.parametrize(("read", "message", "fields"), AT_A_POINT)
@pytest.mark.parametrize(("seconds", "nanos"), [(0, -1), (0, 10**9), (2**40, 0), (-(2**40), 0)])
def test_what_is_no_time_is_refused(read, message, fields, seconds, nanos):
    time = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
    refused("at_time is not a time", read, message(**fields, at_time=time))


@pytest.mark.parametrize(("read", "message", "most"), PAGED)
def test_a_page_has_a_limit(read, message, most):
    names = {"agent_id": "a"} if "agent_id" in message.DESCRIPTOR.fields_by_name else {}
    assert read(message(**names, limit=most, page_token=b"t").SerializeToString()).page == PageArguments(most, b"t")
    assert refused("limit is", read, message(**names, limit=most + 1)) == (str(most), str(most + 1))
    assert read(message(**names, page_token=b"t").SerializeToString()).page.limit > 0


@pytest.mark.parametrize(("read", "message", "_"), PAGED[:2])
def test_without_a_limit_and_a_token_there_are_no_pages(read, message, _):
    assert read(message(agent_id="a").SerializeToString()).page is None
    assert read(message(agent_id="a", limit=1).SerializeToString()).page == PageArguments(1, b"")


def test_listings_of_names():
    found = REQUESTS.list_agents(pb.ListAgentsRequest(prefix="p").SerializeToString())
    assert found == AgentsArguments("default", "p", PageArguments(PAGE_AGENTS, b""))
    assert REQUESTS.list_agents(pb.ListAgentsRequest(namespace="n").SerializeToString()).namespace == "n"
    assert REQUESTS.list_namespaces(b"").page == PageArguments(100, b"")
    for read, message in (
        (REQUESTS.list_agents, pb.ListAgentsRequest),
        (REQUESTS.list_namespaces, pb.ListNamespacesRequest),
    ):
        assert refused("prefix is 257 bytes; the limit is 256", read, message(prefix="x" * 257)) == ("256", "257")
        with pytest.raises(InvalidRequestError, match="not a well-formed"):
            read(b"\xff")
    refused("namespace is 257 bytes", REQUESTS.list_agents, pb.ListAgentsRequest(namespace="x" * 257))


def test_many_keys_at_once():
    keys = [
        pb.KeyRef(agent_id="a", key="k"),
        pb.KeyRef(agent_id="a", key="k"),
        pb.KeyRef(namespace="own", agent_id="b", key="é"),
    ]
    found = REQUESTS.batch_get(pb.BatchGetRequest(namespace="n", keys=keys).SerializeToString())
    a, b = AgentId("n", "a"), AgentId("own", "b")
    assert list(found.keys) == [(a, b"k"), (a, b"k"), (b, "é".encode())]
    assert list(found.agents) == [a, b]
    assert found.at_ts is None
    assert REQUESTS.batch_get(pb.BatchGetRequest(at_ts=0).SerializeToString()).at_ts == 0


def test_not_too_many_keys_at_once():
    keys = [pb.KeyRef(agent_id="a", key="k")] * BATCH_KEYS
    assert len(REQUESTS.batch_get(pb.BatchGetRequest(keys=keys).SerializeToString()).keys) == BATCH_KEYS
    request = pb.BatchGetRequest(keys=[*keys, keys[0]])
    assert refused("1001 keys; the limit is 1000", REQUESTS.batch_get, request) == ("1000", "1001")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (pb.KeyRef(key="k"), "agent_id is empty"),
        (pb.KeyRef(agent_id="a"), "key is empty"),
        (pb.KeyRef(agent_id="a", key="x" * 1025), "key is 1025 bytes; the limit is 1024"),
        (pb.KeyRef(agent_id="a", key="é" * 513), "key is 1026 bytes; the limit is 1024"),
        (pb.KeyRef(agent_id="x" * 257, key="k"), "agent_id is 257 bytes; the limit is 256"),
        (pb.KeyRef(agent_id="a", key="k", namespace="x" * 257), "namespace is 257 bytes; the limit is 256"),
    ],
)
def test_the_names_of_each_key_are_checked(key, why):
    request = pb.BatchGetRequest(keys=[pb.KeyRef(agent_id="a", key="k"), key])
    refused(f"^key 1: {why}", REQUESTS.batch_get, request)
