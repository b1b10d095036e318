"""Forks, lineages and ends on the wire: a real daemon, its real store, and grpcio as its peer."""

import grpc
import pytest
from e2e.fix_wire import refusal_of, struct
from google.protobuf.timestamp_pb2 import Timestamp
from rpc.fix_edge import detail_of

from statehouse.v1 import statehouse_pb2 as pb

INVALID = ("INVALID_ARGUMENT", "INVALID_REQUEST")
UNKNOWN = ("NOT_FOUND", "AGENT_NOT_FOUND")
TAKEN = ("ALREADY_EXISTS", "AGENT_EXISTS")
DELETED = ("FAILED_PRECONDITION", "AGENT_DELETED")


def put(wire, agent_id, key="k", **fields):
    operation = pb.TransactOperation(agent_id=agent_id, key=key, value=struct({"of": agent_id}))
    return wire.call("Transact", operations=[operation], **fields).commit_ts


def refused(wire, name, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        wire.call(name, **fields)
    return refusal_of(caught.value).pair


def test_a_fork_is_answered_and_told(wire):
    at_ts = put(wire, "parent")
    done = wire.call("ForkAgent", agent_id="parent", new_agent_id="child")
    assert (done.commit_ts > at_ts, done.at_ts >= at_ts, done.depth) == (True, True, 1)
    found = wire.get("child", "k")
    assert (found.value, found.version, found.commit_ts) == (struct({"of": "parent"}), 1, at_ts)
    (event,) = wire.replay("child")
    assert (event.agent_id, event.commit_ts) == ("child", at_ts)
    origin = pb.ForkOrigin(agent_id="parent", at_ts=done.at_ts, commit_ts=done.commit_ts)
    assert list(wire.call("GetLineage", agent_id="child").ancestors) == [origin]
    told = wire.call("GetLineage", agent_id="parent")
    assert ([each.agent_id for each in told.forks], told.more) == (["child"], False)
    infos = {info.agent_id: info for info in wire.call("ListAgents").agents}
    assert infos["child"].forked_from == origin
    assert not infos["parent"].HasField("forked_from")
    second = wire.call("ForkAgent", agent_id="parent", new_agent_id="second", at_ts=at_ts)
    newest = wire.call("GetLineage", agent_id="parent", limit=1)
    assert ([each.agent_id for each in newest.forks], newest.more) == (["second"], True)
    rest = wire.call("GetLineage", agent_id="parent", before_ts=second.commit_ts)
    assert ([each.agent_id for each in rest.forks], rest.more) == (["child"], False)


def test_a_fork_that_is_refused(wire):
    at_ts = put(wire, "known")
    put(wire, "taken")
    late = put(wire, "late")
    assert late > at_ts

    def fork(agent_id="known", new_agent_id="new", **fields):
        return refused(wire, "ForkAgent", agent_id=agent_id, new_agent_id=new_agent_id, **fields)

    assert fork(new_agent_id="taken") == TAKEN
    assert fork(new_agent_id="known") == TAKEN
    assert fork(agent_id="never there") == UNKNOWN
    assert fork(namespace="elsewhere") == UNKNOWN
    assert fork(agent_id="late", at_ts=at_ts) == INVALID
    assert fork(at_ts=0) == INVALID
    assert fork(at_time=Timestamp(seconds=1)) == INVALID
    assert fork(at_ts=1, at_time=Timestamp(seconds=1)) == INVALID
    assert fork(agent_id="") == fork(new_agent_id="") == fork(new_agent_id="x" * 257) == INVALID
    assert refused(wire, "GetLineage", agent_id="known", limit=1_001) == INVALID
    assert not wire.call("GetLineage", agent_id="new").ancestors


def test_an_end_and_what_comes_after_it(wire):
    put(wire, "ended", "k")
    newest = put(wire, "ended", "l")
    other = pb.Precondition(agent_id="known", agent_commit_ts=1)
    assert refused(wire, "DeleteAgent", agent_id="ended", preconditions=[other]) == INVALID
    behind = pb.Precondition(agent_id="ended", agent_commit_ts=newest - 1)
    failed = refused(wire, "DeleteAgent", agent_id="ended", preconditions=[behind])
    assert failed == ("ABORTED", "PRECONDITION_FAILED")
    assert refused(wire, "DeleteAgent", agent_id="never there") == UNKNOWN
    known = pb.Precondition(agent_id="ended", agent_commit_ts=newest)
    done = wire.call("DeleteAgent", agent_id="ended", preconditions=[known], metadata={"user": "ada"})
    assert done.deleted_keys == 2
    assert wire.call("DeleteAgent", agent_id="ended") == pb.DeleteAgentResponse(commit_ts=done.commit_ts)
    operation = pb.TransactOperation(agent_id="ended", key="k")
    with pytest.raises(grpc.RpcError) as caught:
        wire.call("Transact", operations=[operation])
    assert refusal_of(caught.value).pair == DELETED
    assert dict(detail_of(caught.value).details)["commit_ts"] == str(done.commit_ts)
    txn_id = wire.begin()
    wire.write(txn_id, "ended", "k", {})
    assert refused(wire, "Commit", txn_id=txn_id) == DELETED
    revived = wire.begin()
    wire.write(revived, "ended", "k", {})
    assert wire.call("Commit", txn_id=revived, revive=True).commit_ts > done.commit_ts
    assert put(wire, "ended") > done.commit_ts
