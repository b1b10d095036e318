"""A server on purerpc 0.8.0's own classes, unchanged: what Statehouse's edge is compared with, and attacked beside.

    python tools/purerpc_as_shipped.py --events 20000

prints one JSON line, {"port": N, "pid": N}, when it accepts connections on 127.0.0.1, and serves until it is killed.
It runs on Trio and answers statehouse.v1.StatehouseService without a store behind it:

    GetState   the same record every time, a value of 200 bytes
    Replay     --events events, each of 200 encoded bytes; 0: without end. After each --turn-every of them the handler
               gives the loop a turn, as one does that waits for what it reads; 0: never, and then purerpc keeps all
               that the client's window allows in memory, and answers nobody else meanwhile
    Commit     never answers
    Version    version "purerpc"; git_sha is JSON, {"tasks": number of Trio tasks alive}

What else is called is UNIMPLEMENTED. The one thing not purerpc's is the listening socket: `Server.serve_async` binds
every interface with SO_REUSEPORT, so its last line, `listener.serve(ConnectionHandler(...))`, stands here instead.
"""

import argparse
import itertools
import json
import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import anyio
import trio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from purerpc import Cardinality, RPCSignature, Service
from purerpc.server import ConnectionHandler, Server

from statehouse.v1 import statehouse_pb2 as pb

RECORD_BYTES: Final = 200
SERVED: Final = pb.DESCRIPTOR.services_by_name["StatehouseService"]


def record_of(size_bytes: int) -> pb.GetStateResponse:
    """The answer to GetState with a value of that many encoded bytes: one string."""
    record = pb.GetStateResponse(version=1, commit_ts=1, exists=True)
    for length in range(size_bytes, -1, -1):
        record.value["v"] = "x" * length
        if record.value.ByteSize() == size_bytes:
            return record
    raise ValueError(f"no Struct has {size_bytes} bytes")


def event_of(size_bytes: int) -> pb.ReplayEvent:
    """A ReplayEvent of that many encoded bytes, with every field set, as the daemon sets them."""
    event = pb.ReplayEvent(txn_id="0" * 32, commit_ts=1_000_000, namespace="bench", agent_id="one-agent")
    event.committed_at.FromSeconds(1_800_000_000)
    operation = event.operations.add(key="key-00000000", version=1)
    for length in range(size_bytes, -1, -1):
        operation.value["v"] = "x" * length
        if event.ByteSize() == size_bytes:
            return event
    raise ValueError(f"no ReplayEvent has {size_bytes} bytes")


def signature(method: MethodDescriptor) -> Any:
    """What purerpc must know of a call; its own generator refuses proto3 `optional`."""
    cardinality = Cardinality.UNARY_STREAM if method.server_streaming else Cardinality.UNARY_UNARY
    return RPCSignature(cardinality, GetMessageClass(method.input_type), GetMessageClass(method.output_type))


def service(events: int, turn_every: int) -> Any:
    """The purerpc Service with the four calls."""
    record = record_of(RECORD_BYTES)
    event = event_of(RECORD_BYTES)

    async def get_state(_request: pb.GetStateRequest) -> pb.GetStateResponse:
        return record

    async def replay(_request: pb.ReplayRequest) -> AsyncIterator[pb.ReplayEvent]:
        for number in range(1, events + 1) if events else itertools.count(1):
            yield event
            if turn_every and number % turn_every == 0:
                await trio.lowlevel.checkpoint()

    async def commit(_request: pb.CommitRequest) -> pb.CommitResponse:
        await trio.sleep_forever()

    async def version(_request: pb.VersionRequest) -> pb.VersionResponse:
        tasks = trio.lowlevel.current_statistics().tasks_living
        return pb.VersionResponse(version="purerpc", git_sha=json.dumps({"tasks": tasks}))

    served = Service(SERVED.full_name)
    for name, function in {"GetState": get_state, "Replay": replay, "Commit": commit, "Version": version}.items():
        served.add_method(name, function, signature(SERVED.methods_by_name[name]))
    return served


async def serve(events: int, turn_every: int) -> None:
    """Serve until cancelled: `Server.serve_async` but for the socket."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    handler = ConnectionHandler({SERVED.full_name: service(events, turn_every)}, Server(port))
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
    await listener.serve(handler)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--events", type=int, default=0, metavar="N", help="events of a Replay; 0 (default): no end")
    parser.add_argument("--turn-every", type=int, default=1, metavar="N", help="events in one go; default 1")
    arguments = parser.parse_args()
    if min(arguments.events, arguments.turn_every) < 0:
        parser.error("--events and --turn-every must not be negative")
    logging.getLogger("purerpc").addHandler(logging.NullHandler())  # it says "Got exception" when a client leaves
    try:
        anyio.run(partial(serve, arguments.events, arguments.turn_every), backend="trio")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
