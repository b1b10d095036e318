"""Calls that go well, on a real socket: grpcio as the peer, an engine in memory behind."""

import asyncio

import grpc
import trio
from rpc.fix_edge import PATIENCE_S, struct_of, stub, write

from statehouse.limits import CALLS_PER_CONNECTION, Limits
from statehouse.v1 import statehouse_pb2 as pb


async def test_every_call(edge):
    assert (await edge.call("Health")).status == "ok"
    version = await edge.call("Version")
    assert (version.version, version.git_sha) == ("1.2.3", "abc")
    value = {"nested": [{"in": ["list", None, {}]}], "n": 2**53}
    assert await write(edge, "a", "k", value) == 1
    state = await edge.call("GetState", agent_id="a", key="k")
    assert (state.value, state.version, state.commit_ts, state.exists) == (struct_of(value), 1, 1, True)
    old = await edge.call("GetStateAtVersion", agent_id="a", key="k", version=1)
    assert old.SerializeToString() == state.SerializeToString()
    assert (await edge.call("ListKeys", agent_id="a")).keys == ["k"]
    assert [entry.key for entry in (await edge.call("ScanPrefix", agent_id="a", prefix="")).entries] == ["k"]
    txn_id = (await edge.call("BeginTransaction", timeout_ms=1000)).txn_id
    await edge.call("Delete", txn_id=txn_id, agent_id="a", key="k")
    await edge.call("Abort", txn_id=txn_id)
    events = await edge.replay(agent_id="a")
    assert [(event.commit_ts, event.operations[0].value) for event in events] == [(1, struct_of(value))]
    assert await edge.replay(agent_id="nobody") == []


async def test_answers_and_requests_larger_than_any_window(edge):
    text = "x" * (Limits().value_bytes - 100)
    for key in "abcdef":
        await write(edge, "a", key, {"text": text})
    assert (await edge.call("GetState", agent_id="a", key="f")).value["text"] == text
    events = await edge.replay(agent_id="a")
    assert [len(event.operations[0].value["text"]) for event in events] == [len(text)] * 6


async def test_many_calls_at_once_from_grpc_aio(edge):
    for key in ("a", "b"):
        await write(edge, "agent", key, {"key": key})

    async def many():
        async with grpc.aio.insecure_channel(edge.address) as channel:
            get = stub(channel, "GetState")
            keys = ["a", "b"] * (CALLS_PER_CONNECTION + 20)
            requests = [pb.GetStateRequest(agent_id="agent", key=key) for key in keys]
            answers = await asyncio.gather(*(get(request, timeout=PATIENCE_S) for request in requests))
            return [answer.value["key"] for answer in answers] == keys

    assert await trio.to_thread.run_sync(lambda: asyncio.run(many()))
