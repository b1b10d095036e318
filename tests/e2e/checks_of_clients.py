"""What a client must do: each check asserts one remedy on a client that makes one call to a server that is scripted."""

import threading
from contextlib import ExitStack

import anyio
from client.scripted_server import ScriptedServer
from purerpc import Cardinality, Client, RPCSignature, insecure_channel

from statehouse import AsyncStatehouse, ConnectionError
from statehouse.v1 import statehouse_pb2 as pb

DEADLINE_S = 7.0
VERSION = pb.VersionResponse(version="1")


async def ours(url):
    """Ask our client for the version, with a deadline that is not the default."""
    async with AsyncStatehouse(url, timeout_s=DEADLINE_S) as client:
        await client.version()


async def as_shipped(url):
    """Ask purerpc's own client stub, as its generated code does."""
    host, _, port = url.rpartition(":")
    signature = RPCSignature(Cardinality.UNARY_UNARY, pb.VersionRequest, pb.VersionResponse)
    async with insecure_channel(host, int(port)) as channel:
        stub = Client("statehouse.v1.StatehouseService", channel).get_method_stub("Version", signature)
        await stub(pb.VersionRequest())


async def check_a_lost_connection_ends_the_call(ask, patience_s):
    """The server takes the request, and is gone."""
    with ExitStack() as stack:
        server = ScriptedServer(lambda peer, stream_id: peer.hang_up())
        stack.callback(server.close)
        with anyio.move_on_after(patience_s) as waiting:
            try:
                await ask(server.url)
            except ConnectionError:
                return
        assert not waiting.cancelled_caught, "the call hangs"
        raise AssertionError("the call failed in another way, or not at all")


async def check_a_deadline_is_sent(ask, patience_s):
    """The request has a grpc-timeout."""
    headers: list[dict[str, str]] = []
    answered = threading.Event()

    def on_event(peer, event):
        if hasattr(event, "headers"):
            headers.append(dict(event.headers))

    def script(peer, stream_id):
        peer.answer(stream_id, VERSION.SerializeToString())
        answered.set()

    with ExitStack() as stack:
        server = ScriptedServer(script, on_event=on_event)
        stack.callback(server.close)
        with anyio.move_on_after(patience_s):
            await ask(server.url)
    assert answered.is_set(), "the client sent no request"
    assert "grpc-timeout" in headers[0]
