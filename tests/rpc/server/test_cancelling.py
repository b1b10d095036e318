"""How a call ends before its answer: the client cancels, goes, or its deadline passes."""

import grpc
import trio
import trio.testing
from rpc.fix_edge import COMMIT, HEALTH, PATIENCE_S, REPLAY, refused, stub

from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.error_table import decode_error
from statehouse.v1 import statehouse_pb2 as pb


async def test_a_replay_that_is_cancelled_ends(edge, fake_engine):
    fake_engine.endless_replay = [pb.ReplayEvent(txn_id="t" * 1000).SerializeToString()] * 100

    def read_some():
        call = stub(edge.channel, "Replay")(pb.ReplayRequest(agent_id="a"), timeout=PATIENCE_S)
        for _ in range(1000):
            next(call)
        call.cancel()

    await trio.to_thread.run_sync(read_some)
    with trio.fail_after(PATIENCE_S):
        await fake_engine.replay_ended.wait()
    assert (await edge.call("Health")).status == "ok"


async def test_a_replay_whose_client_disappears_ends(edge, raw_peer, fake_engine):
    fake_engine.endless_replay = [b"x" * 1000] * 100
    stream_id = raw_peer.start(REPLAY)
    raw_peer.message(stream_id, pb.ReplayRequest(agent_id="a").SerializeToString())
    assert await raw_peer.until(lambda: raw_peer.data.get(stream_id))
    await trio.aclose_forcefully(raw_peer.stream)
    with trio.fail_after(PATIENCE_S):
        await fake_engine.replay_ended.wait()


async def test_a_slow_reader_slows_its_replay(edge, raw_peer, fake_engine):
    fake_engine.endless_replay = [b"x" * 1000] * 100
    stream_id = raw_peer.start(REPLAY)
    raw_peer.message(stream_id, pb.ReplayRequest(agent_id="a").SerializeToString())
    await raw_peer.flush()
    # The client never returns flow control: the window of 65,535 bytes is all that is ever sent.
    received = 0
    with trio.fail_after(PATIENCE_S):
        while received < 65_535:
            for event in raw_peer.http2.receive_data(await raw_peer.stream.receive_some(65536)):
                received += len(getattr(event, "data", b""))
    await trio.testing.wait_all_tasks_blocked()
    assert received == 65_535
    assert fake_engine.chunks_sent == 1
    raw_peer.http2.reset_stream(stream_id)
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        await fake_engine.replay_ended.wait()


async def test_a_deadline_ends_the_wait_and_not_the_commit(edge, fake_engine):
    fake_engine.held = []
    txn_id = (await edge.call("BeginTransaction")).txn_id
    error = await refused(edge, "Commit", txn_id=txn_id, timeout_s=0.5)  # time to get there, on any machine
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert fake_engine.committed == {txn_id: 1}
    fake_engine.held[0][0].succeed(1)  # nobody waits any more
    assert (await edge.call("Health")).status == "ok"


async def test_the_server_enforces_the_deadline_itself(raw_peer, fake_engine):
    fake_engine.scan_gate = trio.Event()
    stream_id = raw_peer.start(f"/{SERVICE_NAME}/ListKeys", [("grpc-timeout", "10m")])
    raw_peer.message(stream_id, pb.ListKeysRequest(agent_id="a").SerializeToString())
    status = await raw_peer.status(stream_id)
    assert status["grpc-status"] == "4"
    assert decode_error(4, status["grpc-message"], None).retryable


async def test_an_answer_that_comes_after_a_reset_is_dropped(raw_peer, fake_engine):
    fake_engine.held = []
    fake_engine.open["t"] = []
    stream_id = raw_peer.start(COMMIT)
    raw_peer.message(stream_id, pb.CommitRequest(txn_id="t").SerializeToString())
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        while not fake_engine.held:
            await trio.lowlevel.checkpoint()
    raw_peer.http2.reset_stream(stream_id)
    again = raw_peer.start(HEALTH)
    raw_peer.message(again, b"")
    assert (await raw_peer.status(again))["grpc-status"] == "0"
    fake_engine.held[0][0].succeed(1)
    last = raw_peer.start(HEALTH)
    raw_peer.message(last, b"")
    assert (await raw_peer.status(last))["grpc-status"] == "0"
