"""Servers in memory, for virtual time: what a client dials is a stream to h2, and a script plays the daemon."""

import errno
import os

import anyio
import h2.events
import trio
from rpc.client.h2_peer import H2Peer

from statehouse.rpc.client.credentials import Target
from statehouse.rpc.client.transport import Transport


class MemoryStream(anyio.abc.ByteStream):
    """The client's end; the peer acts while the client sends."""

    def __init__(self, server, number):
        self.number = number
        self.peer = H2Peer()
        self._server = server
        self._requests = {}
        self._to_client, self._from_peer = trio.open_memory_channel(1_000)
        self.flush()

    def flush(self):
        data = self.peer.h2.data_to_send()
        if data:
            self._to_client.send_nowait(data)

    def hang_up(self):
        self.flush()
        self._to_client.close()

    async def send(self, item):
        await trio.lowlevel.checkpoint()
        if self._server.deaf:
            return
        seen = len(self.peer.events)
        self.peer.take(bytes(item))
        for event in self.peer.events[seen:]:
            if isinstance(event, h2.events.RequestReceived):
                self._requests[event.stream_id] = [dict(event.headers), b""]
            elif isinstance(event, h2.events.DataReceived):
                self._requests[event.stream_id][1] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                headers, data = self._requests[event.stream_id]
                self._server.requests.append((self.number, headers, data[5:]))
                self._server.script(self, event.stream_id, headers, data[5:])
        try:
            self.flush()
        except trio.ClosedResourceError:
            raise anyio.BrokenResourceError from None

    async def receive(self, max_bytes=65536):
        try:
            return await self._from_peer.receive()
        except trio.EndOfChannel:
            raise anyio.EndOfStream from None

    async def send_eof(self):
        raise NotImplementedError

    async def aclose(self):
        self._from_peer.close()
        await trio.lowlevel.checkpoint()


class MemoryServer:
    """`script(stream, stream_id, headers, message)` is called for each request."""

    def __init__(self, script):
        self.script = script
        self.requests = []
        self.dials = []
        self.refuses = False
        self.deaf = False

    async def dial(self):
        await trio.lowlevel.checkpoint()
        self.dials.append(trio.current_time())
        if self.refuses:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return MemoryStream(self, len(self.dials) - 1)

    def transport(self, **options):
        return Transport(Target("db", 1), dial=self.dial, **{"random": lambda: 0.5, **options})
