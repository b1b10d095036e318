"""The requests about an agent as a whole: what is refused, what it is told, and what the engine is given."""

import pytest
from google.protobuf import timestamp_pb2

from statehouse.actors.messages import AgentAt, Check, ExistsIs, LeaseIs, VersionIs
from statehouse.errors import InvalidRequestError
from statehouse.limits import LINEAGE_FORKS, METADATA_ENTRIES, PRECONDITIONS, Limits
from statehouse.rpc.server.requests_agents import AgentRequests, EndArguments, ForkArguments, LineageArguments
from statehouse.rpc.server.requests_reads import NOW, Point
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

REQUESTS = AgentRequests(Limits())
A, B = AgentId("default", "a"), AgentId("default", "b")


def fork(**fields):
    return REQUESTS.fork(pb.ForkAgentRequest(**{"agent_id": "a", "new_agent_id": "b"} | fields).SerializeToString())


def lineage(**fields):
    return REQUESTS.lineage(pb.GetLineageRequest(**{"agent_id": "a"} | fields).SerializeToString())


def end(**fields):
    return REQUESTS.end(pb.DeleteAgentRequest(**{"agent_id": "a"} | fields).SerializeToString())


def refused(match, ask, **fields):
    """A call that is refused; the limit and the size that it tells."""
    with pytest.raises(InvalidRequestError, match=match) as error:
        ask(**fields)
    return error.value.details.get("limit"), error.value.details.get("size")


ASKS = [fork, lineage, end]


@pytest.mark.parametrize("ask", ASKS)
def test_the_agent_s_names_are_checked(ask):
    refused("^agent_id is empty", ask, agent_id="")
    assert refused("^agent_id is 257 bytes", ask, agent_id="x" * 255 + "é") == ("256", "257")
    assert refused("^namespace is 257 bytes", ask, namespace="x" * 257) == ("256", "257")
    ask(agent_id="x" * 256, namespace="x" * 256)


@pytest.mark.parametrize("read", [REQUESTS.fork, REQUESTS.lineage, REQUESTS.end])
def test_what_is_no_request_is_refused(read):
    with pytest.raises(InvalidRequestError, match="not a well-formed"):
        read(b"\xff")


# Forks


def test_a_fork_is_in_the_namespace_of_its_parent():
    assert fork() == ForkArguments(A, B, NOW)
    assert fork(namespace="n").new_agent == AgentId("n", "b")
    assert fork(namespace="n").parent == AgentId("n", "a")
    assert fork(new_agent_id="a").new_agent == A  # what is there already is the engine's to know


def test_the_new_agent_s_name_is_checked_and_told_as_such():
    refused("^new_agent_id is empty", fork, new_agent_id="")
    assert refused("^new_agent_id is 257 bytes", fork, new_agent_id="x" * 257) == ("256", "257")


def test_a_fork_is_from_one_point():
    assert (fork(at_ts=0).at, fork(at_ts=2**64 - 1).at) == (Point(at_ts=0), Point(at_ts=2**64 - 1))
    time = timestamp_pb2.Timestamp(seconds=3, nanos=5)
    assert fork(at_time=time).at == Point(at_time_ns=3_000_000_005)
    refused("at_ts and at_time are both given", fork, at_ts=0, at_time=time)
    refused("at_time is not a time", fork, at_time=timestamp_pb2.Timestamp(nanos=-1))


# Lineage


def test_a_lineage_names_up_to_a_thousand_forks():
    assert lineage() == LineageArguments(A, LINEAGE_FORKS, 0)
    assert lineage(namespace="n", limit=7, before_ts=9) == LineageArguments(AgentId("n", "a"), 7, 9)
    assert lineage(limit=LINEAGE_FORKS).limit == LINEAGE_FORKS
    assert refused("limit is 1001; at most 1000", lineage, limit=LINEAGE_FORKS + 1) == ("1000", "1001")


# An agent's end


def test_an_end_has_preconditions_on_its_agent():
    given = [
        pb.Precondition(agent_id="a", key="k", version=3),
        pb.Precondition(agent_id="a", namespace="default", key="k", exists=True),
        pb.Precondition(agent_id="a", agent_commit_ts=7),
        pb.Precondition(agent_id="a", lease_epoch=1),
    ]
    checks = (
        Check(0, A, VersionIs(b"k", 3)),
        Check(1, A, ExistsIs(b"k", exists=True)),
        Check(2, A, AgentAt(7)),
        Check(3, A, LeaseIs(1)),
    )
    assert end(preconditions=given, metadata={"run": "1"}) == EndArguments(A, checks, {"run": "1"})
    assert end() == EndArguments(A, (), {})
    (check,) = end(namespace="n", preconditions=[pb.Precondition(agent_id="a", agent_commit_ts=7)]).checks
    assert check.agent == AgentId("n", "a")


@pytest.mark.parametrize("other", [{"agent_id": "b"}, {"agent_id": "a", "namespace": "n"}])
def test_a_precondition_on_another_agent_is_refused_by_its_place(other):
    given = [pb.Precondition(agent_id="a", agent_commit_ts=1), pb.Precondition(**other, agent_commit_ts=1)]
    refused("^precondition 1: it is about another agent", end, preconditions=given)


def test_preconditions_and_metadata_are_checked_as_those_of_a_commit():
    refused("^precondition 0: key is empty", end, preconditions=[pb.Precondition(agent_id="a", version=1)])
    refused("^precondition 0: agent_id is empty", end, preconditions=[pb.Precondition(agent_commit_ts=1)])
    many = [pb.Precondition(agent_id="a", agent_commit_ts=1)] * (PRECONDITIONS + 1)
    assert refused("preconditions; the limit", end, preconditions=many) == ("256", "257")
    entries = {str(n): "" for n in range(METADATA_ENTRIES + 1)}
    assert refused("entries of metadata", end, metadata=entries) == ("32", "33")
