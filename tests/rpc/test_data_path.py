"""h2, hpack, hyperframe and purerpc's connections are off the data path: calls go well where each of them raises."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0

PROGRAM = """
import sys
from functools import partial

import grpc
import h2.connection
import hpack
import hyperframe.frame
import purerpc.client
import purerpc.grpc_proto
import purerpc.grpc_socket
import purerpc.server
import trio
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.grpclib.connection import GRPCConnection

used = []


def poison(owner, name):
    def poisoned(*_, **__):
        used.append(f"{owner.__name__}.{name}")
        raise RuntimeError(f"{owner.__name__}.{name} is on the data path")

    setattr(owner, name, poisoned)


poison(h2.connection.H2Connection, "__init__")
poison(hpack.Encoder, "encode")
poison(hpack.Decoder, "decode")
poison(hyperframe.frame.Frame, "__init__")
poison(hyperframe.frame.Frame, "parse_frame_header")
poison(GRPCConnection, "__init__")
poison(purerpc.grpc_socket.GRPCSocket, "__init__")
poison(purerpc.grpc_socket.GRPCStream, "__init__")
poison(purerpc.server.Server, "__init__")
poison(purerpc.server.ConnectionHandler, "__init__")
poison(purerpc.client.Client, "__init__")
poison(purerpc.client._Channel, "__init__")

from rpc.fix_fake_engine import FakeEngine

from statehouse import AsyncStatehouse
from statehouse.rpc.server.build_version import BuildVersion
from rpc.serving import serve
from statehouse.v1 import statehouse_pb2 as pb

PATH = "/statehouse.v1.StatehouseService/"


def with_grpcio(address):
    with grpc.insecure_channel(address) as channel:
        health = channel.unary_unary(PATH + "Health")(b"", timeout=20)
        replay = channel.unary_stream(PATH + "Replay")
        events = list(replay(pb.ReplayRequest(agent_id="a").SerializeToString(), timeout=20))
        return pb.HealthResponse.FromString(health).status, len(events)


async def main():
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        build = BuildVersion("1", "2")
        address = await nursery.start(partial(serve, FakeEngine(), "127.0.0.1", 0, stop=stop, grace_s=1, build=build))
        async with AsyncStatehouse(address) as client:
            for number in range(3):
                async with await client.begin_transaction() as txn:
                    await txn.write("a", "k", {"n": number})
            assert (await client.get_state("a", "k")).value == {"n": 2}
            assert len([event async for event in client.replay("a")]) == 3
        assert await trio.to_thread.run_sync(with_grpcio, address) == ("ok", 3)
        stop.set()


trio.run(main)
assert used == [], used
for misuse in (h2.connection.H2Connection, hpack.Decoder().decode, partial(GRPCConnection, None)):
    try:
        misuse()
    except RuntimeError:
        continue
    raise AssertionError(f"{misuse} is not poisoned: this test could not fail")
print("served")
"""


def test_calls_go_well_where_the_old_libraries_raise():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["served"]), done.stderr
