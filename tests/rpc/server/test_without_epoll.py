"""A system that has no epoll: connections read in their own tasks, and nothing else changes."""

import select
from functools import partial

import grpc
import trio
from rpc.fix_edge import PATIENCE_S, stub
from rpc.serving import serve

from statehouse.rpc.server.build_version import BuildVersion
from statehouse.v1 import statehouse_pb2 as pb


async def test_calls_are_answered_without_epoll(fake_engine, nursery, monkeypatch):
    monkeypatch.delattr(select, "epoll")
    stop = trio.Event()
    run = partial(serve, fake_engine, "127.0.0.1", 0, stop=stop, grace_s=1, build=BuildVersion("1", "2"))
    address = await nursery.start(run)
    with grpc.insecure_channel(address) as channel:
        ask = partial(stub(channel, "Health"), pb.HealthRequest(), timeout=PATIENCE_S)
        assert (await trio.to_thread.run_sync(ask)).status == "ok"
    stop.set()
