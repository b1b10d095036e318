"""A connection that has said goodbye takes no watchers: a call that follows would keep it for ever."""

import trio
from rpc.fix_edge import PATIENCE_S, RawPeer

from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.lifetime import LifetimeLimits
from statehouse.rpc.server.listener import open_listener
from statehouse.rpc.server.server import Server
from statehouse.v1 import statehouse_pb2 as pb

REPLAY = "/statehouse.v1.StatehouseService/Replay"
FOLLOW = pb.ReplayRequest(agent_id="alice", follow=True).SerializeToString()
AGE_S = 1.0
"""Time for two calls to get there."""
UNAVAILABLE = "14"


async def test_a_watch_that_comes_after_the_goodbye_is_told_to_go(engine_bench):
    async with engine_bench.engine() as engine, trio.open_nursery() as nursery:
        server = Server(1 << 22, lifetime=LifetimeLimits(age_s=AGE_S))
        server.open([statehouse_service(engine, BuildVersion("1", "a"))])
        stop = trio.Event()

        async def serve(*, task_status):
            async with await open_listener("127.0.0.1", 0) as listener:
                await server.run(listener, stop=stop, grace_s=1.0, task_status=task_status)

        host, _, port = (await nursery.start(serve)).rpartition(":")
        with trio.fail_after(PATIENCE_S):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                peer = RawPeer(stream)
                early, half = peer.start(REPLAY), peer.start(REPLAY)  # the request of the second comes too late
                peer.message(early, FOLLOW)
                await peer.flush()
                await peer.until(lambda: early in peer.over)
                assert peer.goodbye
                peer.message(half, FOLLOW)
                await peer.flush()
                await peer.until(lambda: half in peer.over)
                assert [peer.headers[each]["grpc-status"] for each in (early, half)] == [UNAVAILABLE, UNAVAILABLE]
        stop.set()
