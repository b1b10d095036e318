"""When there are as many connections as there may be: who makes room, and who is turned away."""

from contextlib import AsyncExitStack

import pytest
import trio
from rpc.fix_edge import COMMIT, PATIENCE_S, RawPeer

from statehouse.rpc.server import server as server_module
from statehouse.v1 import statehouse_pb2 as pb


@pytest.fixture(autouse=True)
def evicted_at_once(monkeypatch):
    """Whoever has no call now is idle."""
    monkeypatch.setattr(server_module, "EVICTED_AFTER_S", 0.0)


async def until(done):
    with trio.fail_after(PATIENCE_S):
        while not done():
            await trio.lowlevel.checkpoint()


@pytest.fixture
async def dial():
    """Connect to an edge; what the server sends last tells who was let go."""
    async with AsyncExitStack() as streams:

        async def dial(edge):
            peer = RawPeer(await streams.enter_async_context(await edge.connect()))
            await peer.flush()
            return peer

        yield dial


async def begin_commit(peer, fake_engine):
    held, txn_id = len(fake_engine.held), f"t{len(fake_engine.held)}"
    fake_engine.open[txn_id] = []
    stream_id = peer.start(COMMIT)
    peer.message(stream_id, pb.CommitRequest(txn_id=txn_id).SerializeToString())
    await peer.flush()
    await until(lambda: len(fake_engine.held) > held)
    return stream_id


async def is_gone(peer):
    await peer.until(lambda: False)
    return peer.goodbye


TOLD_TO_GO = b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x1c\x07\0\0\0\0\0" + b"\0\0\0\0" + b"\0\0\0\x0b" + b"too many connections"
"""SETTINGS, and GOAWAY with ENHANCE_YOUR_CALM and the reason."""


async def all_of(stream):
    received = b""
    while more := await stream.receive_some():
        received += more
    return received


async def test_the_one_that_has_been_idle_for_longest_makes_room(start_edge, dial):
    edge = await start_edge(max_connections=3)
    first, second, third = [await dial(edge) for _ in range(3)]
    for peer in (second, third, first):  # so the second has been idle for longest
        assert await peer.works()
    new = await dial(edge)
    assert await new.works()
    assert await is_gone(second)
    assert await first.works()
    assert await third.works()
    await until(lambda: edge.server.census()["connections"] == 3)
    assert edge.server.census()["too_many_connections"] == 0


async def test_one_with_a_call_under_way_stays_however_old(start_edge, dial, fake_engine):
    fake_engine.held = []
    edge = await start_edge(max_connections=2)
    busy = await dial(edge)
    commit = await begin_commit(busy, fake_engine)
    idle = await dial(edge)
    assert await idle.works()
    new = await dial(edge)
    assert await new.works()
    assert await is_gone(idle)
    fake_engine.held[0][0].succeed(1)
    assert await busy.ending(commit) == "0"


async def test_when_all_are_busy_the_new_one_is_turned_away(start_edge, dial, fake_engine):
    fake_engine.held = []
    edge = await start_edge(max_connections=2)
    busy = [await dial(edge) for _ in range(2)]
    commits = [await begin_commit(peer, fake_engine) for peer in busy]
    for _ in range(5):
        async with await edge.connect() as turned_away:
            with trio.fail_after(PATIENCE_S):
                assert await all_of(turned_away) == TOLD_TO_GO
    assert edge.server.census()["too_many_connections"] == 5
    for reply, _ in fake_engine.held:
        reply.succeed(1)
    assert [await peer.ending(commit) for peer, commit in zip(busy, commits, strict=True)] == ["0", "0"]
    assert await (await dial(edge)).works()


async def test_a_flood_of_connections_leaves_as_many_as_there_may_be(start_edge, dial):
    edge = await start_edge(max_connections=5)
    for _ in range(50):
        await dial(edge)
    last = await dial(edge)
    assert await last.works()
    await until(lambda: edge.server.census()["connections"] <= 5)


async def test_one_that_had_a_call_just_now_is_in_use(start_edge, dial, monkeypatch):
    monkeypatch.setattr(server_module, "EVICTED_AFTER_S", 1000.0)
    edge = await start_edge(max_connections=1)
    used = await dial(edge)
    assert await used.works()
    async with await edge.connect() as turned_away:
        with trio.fail_after(PATIENCE_S):
            assert await all_of(turned_away) == TOLD_TO_GO
    assert await used.works()
