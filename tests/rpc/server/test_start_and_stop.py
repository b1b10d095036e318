"""How a server begins, shares its address with nobody, and ends."""

import socket
from functools import partial
from types import SimpleNamespace

import grpc
import pytest
import trio
from rpc.fix_edge import COMMIT, HEALTH, PATIENCE_S, detail_of, stub
from rpc.serving import serve

from statehouse.errors import AddressError, ErrorCode
from statehouse.limits import Limits
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.handlers import statehouse_service
from statehouse.rpc.server.listener import open_listener, socket_address
from statehouse.rpc.server.server import Server, max_request_bytes
from statehouse.v1 import statehouse_pb2 as pb


async def test_a_taken_port_is_refused(edge, fake_engine):
    host, port = edge.address.rsplit(":", 1)
    with pytest.raises(AddressError, match=f"cannot listen on {edge.address}: Address already in use"):
        await serve(fake_engine, host, int(port), stop=trio.Event(), grace_s=1)
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 70_000)])
async def test_an_address_that_cannot_be_had_is_refused(host, port):
    with pytest.raises(AddressError, match=f"cannot listen on {host}:{port}: "):
        await open_listener(host, port)


async def test_a_port_is_free_again_after_its_server(edge, fake_engine):
    assert (await edge.call("Health")).status == "ok"
    edge.stop.set()
    await edge.ended.wait()
    host, port = edge.address.rsplit(":", 1)
    async with await open_listener(host, int(port)) as listener:
        assert socket_address(listener) == edge.address


def test_ipv6_addresses_are_written_in_brackets():
    bound = SimpleNamespace(socket=SimpleNamespace(family=socket.AF_INET6, getsockname=lambda: ("::1", 50051, 0, 0)))
    assert socket_address(bound) == "[::1]:50051"


async def test_before_there_is_an_engine_calls_are_unavailable(fake_engine, nursery):
    server, stop = Server(max_request_bytes(Limits())), trio.Event()
    listener = await open_listener("127.0.0.1", 0)
    address = await nursery.start(partial(server.run, listener, stop=stop, grace_s=1))
    with grpc.insecure_channel(address) as channel:
        health = partial(stub(channel, "Health"), pb.HealthRequest(), timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as raised:
            await trio.to_thread.run_sync(health)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert detail_of(raised.value).code == ErrorCode.INTERNAL_ERROR
        assert "starting" in raised.value.details()
        server.open([statehouse_service(fake_engine, BuildVersion("1", "2"))])
        assert (await trio.to_thread.run_sync(health)).status == "ok"
    stop.set()


async def test_a_call_in_flight_finishes_and_new_ones_are_unavailable(edge, raw_peer, fake_engine):
    fake_engine.held = []
    fake_engine.open["t"] = []
    in_flight = raw_peer.start(COMMIT)
    raw_peer.message(in_flight, pb.CommitRequest(txn_id="t").SerializeToString())
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        while not fake_engine.held:
            await trio.lowlevel.checkpoint()
    edge.stop.set()
    assert await raw_peer.until(lambda: raw_peer.goodbye)
    late = raw_peer.start(HEALTH)
    raw_peer.message(late, b"")
    status = await raw_peer.status(late)
    assert (status["grpc-status"], "shutting down" in status["grpc-message"]) == ("14", True)
    with pytest.raises(OSError, match=r"all attempts to connect"):
        await edge.connect()
    fake_engine.held[0][0].succeed(1)
    assert (await raw_peer.status(in_flight))["grpc-status"] == "0"
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()


@pytest.mark.parametrize("grace_s", [0.01])
async def test_a_call_that_outlasts_the_grace_time_is_told(edge, raw_peer, fake_engine):
    fake_engine.scan_gate = trio.Event()
    incomplete = raw_peer.start(HEALTH)
    waiting = raw_peer.start(f"/{SERVICE_NAME}/ListKeys")
    raw_peer.message(waiting, pb.ListKeysRequest(agent_id="a").SerializeToString())
    await raw_peer.flush()
    with trio.fail_after(PATIENCE_S):
        await fake_engine.scanning.wait()
    edge.stop.set()
    for stream_id in (waiting, incomplete):
        status = await raw_peer.status(stream_id)
        assert (status["grpc-status"], "shutting down" in status["grpc-message"]) == ("14", True)
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()


@pytest.mark.parametrize("grace_s", [0.01])
async def test_a_replay_that_outlasts_the_grace_time_ends(edge, fake_engine):
    fake_engine.endless_replay = [b""] * 100
    token = trio.lowlevel.current_trio_token()

    def read_all():
        for _ in stub(edge.channel, "Replay")(pb.ReplayRequest(agent_id="a"), timeout=PATIENCE_S):
            token.run_sync_soon(edge.stop.set)

    with pytest.raises(grpc.RpcError):
        await trio.to_thread.run_sync(read_all)
    with trio.fail_after(PATIENCE_S):
        await edge.ended.wait()
    assert fake_engine.replay_ended.is_set()


async def test_cancelling_the_server_ends_everything_at_once(fake_engine, nursery):
    fake_engine.endless_replay = [b""] * 100
    token, scope, ended = trio.lowlevel.current_trio_token(), trio.CancelScope(), trio.Event()
    listener = await open_listener("127.0.0.1", 0)
    server = Server(max_request_bytes(fake_engine.limits))
    server.open([statehouse_service(fake_engine, BuildVersion("1", "2"))])

    async def run():
        with scope:
            await server.run(listener, stop=trio.Event(), grace_s=1000)
        ended.set()

    def read_all(channel):
        for _ in stub(channel, "Replay")(pb.ReplayRequest(agent_id="a"), timeout=PATIENCE_S):
            token.run_sync_soon(scope.cancel)

    nursery.start_soon(run)
    with grpc.insecure_channel(socket_address(listener)) as channel, pytest.raises(grpc.RpcError):
        await trio.to_thread.run_sync(read_all, channel)
    with trio.fail_after(PATIENCE_S):
        await ended.wait()
    assert fake_engine.replay_ended.is_set()
