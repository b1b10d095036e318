"""One call in flight, from the client's side: what came for it and was not taken lives here.

A call holds what came and was not taken, and hands flow control back only when its reader asks for more. A
slow reader thus holds at most a window (STREAM_WINDOW_BYTES) beside the message that is coming in, and at
most one such window more in the batch that it works on.
"""

import base64
import urllib.parse
from typing import TYPE_CHECKING, Final

import anyio

from statehouse.errors import ConnectionError, StatehouseError
from statehouse.rpc.error_table import TRAILER_NAME, GrpcStatus, decode_error

if TYPE_CHECKING:
    from statehouse.rpc.client.connection import ClientConnection

__all__ = ["RECEIVE_MESSAGE_BYTES", "Call"]

RECEIVE_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The largest message taken from a server. A daemon that is not ours must not fill the client's memory."""


class Call:
    """One call in flight. Made by `ClientConnection.open`; its owner must `finish` it, however it ends."""

    def __init__(self, connection: "ClientConnection", stream_id: int) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._changed = anyio.Event()
        self._partial = bytearray()
        self._messages: list[bytes] = []
        self._unacknowledged = 0
        self._reading = False
        self._sent = False
        self._answered = False
        self._ended = False
        self._error: StatehouseError | None = None

    async def send(self, message: bytes) -> None:
        """Send the one request message and end the request. Waits while the server's flow control says so.

        Returns early, without an error, when the server has answered already.
        """
        protocol = self._connection.protocol
        unsent = memoryview(len(message).to_bytes(5, "big") + message)  # the first byte: not compressed
        while not self._answered:
            room = min(len(unsent), protocol.flow_control_window(self._stream_id))
            if room <= 0:
                await self._change()
                continue
            self._sent = room == len(unsent)
            protocol.send_data(self._stream_id, bytes(unsent[:room]), end_stream=self._sent)
            self._connection.flush()
            if self._sent:
                return
            unsent = unsent[room:]

    async def receive(self) -> list[bytes]:
        """The messages that are there, at least one; none at the end. Raises what the call failed with."""
        self._reading = True
        self._acknowledge()
        while not self._messages and not self._answered:
            await self._change()
        self._reading = False
        messages, self._messages = self._messages, []
        if not messages and self._error is not None:
            raise self._error
        return messages

    def finish(self) -> None:
        """Let go of the call; one that has not run to its end is reset. Idempotent, never waits."""
        self._messages.clear()
        self._partial.clear()
        self._acknowledge()
        self._connection.forget(self._stream_id, reset=not (self._sent and self._ended))
        self._answered = True

    # What the connection tells the call.

    def data_came(self, chunk: bytes, flow_controlled_bytes: int) -> None:
        self._unacknowledged += flow_controlled_bytes
        if self._answered:
            self._acknowledge()
            return
        partial = self._partial
        partial += chunk
        start = 0
        while len(partial) - start >= 5:
            size = int.from_bytes(partial[start + 1 : start + 5], "big")
            if partial[start]:
                self.fail(StatehouseError("the server sent a compressed message, which was not asked for"))
                return
            if size > RECEIVE_MESSAGE_BYTES:
                what = f"the answer is a message of {size} bytes; this client takes {RECEIVE_MESSAGE_BYTES}"
                self.fail(StatehouseError(what))
                return
            end = start + 5 + size
            if end > len(partial):
                break
            with memoryview(partial) as view:
                self._messages.append(bytes(view[start + 5 : end]))
            start = end
        del partial[:start]
        if self._reading:
            if self._messages:
                self._changed.set()
            else:
                self._acknowledge()  # a message larger than the window, and somebody waits for it

    def status_came(self, headers: dict[str, str]) -> None:
        """The end of the call as the server tells it: trailers, or headers alone."""
        self._ended = True
        try:
            status = int(headers["grpc-status"])
            message = urllib.parse.unquote(headers.get("grpc-message", ""))
            encoded = headers.get(TRAILER_NAME)
            trailer = None if encoded is None else base64.b64decode(encoded + "=" * (-len(encoded) % 4))
        except (KeyError, ValueError):
            self.fail(ConnectionError("the server ended the call without a readable gRPC status"))
            return
        if status != GrpcStatus.OK:
            self.fail(decode_error(status, message, trailer))
        elif self._partial:
            self.fail(ConnectionError("the server ended the call in the middle of a message"))
        else:
            self._answered = True
            self._changed.set()

    def cut(self, error: StatehouseError) -> None:
        """The server ended the call, and not in the way of gRPC."""
        self._ended = True
        self.fail(error)

    def fail(self, error: StatehouseError) -> None:
        """The call is over without an answer; nothing happens when it has one."""
        if not self._answered:
            self._error = error
            self._answered = True
        self._changed.set()

    def look_again(self) -> None:
        self._changed.set()

    async def _change(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()

    def _acknowledge(self) -> None:
        if self._unacknowledged:
            self._connection.acknowledge(self._stream_id, self._unacknowledged)
            self._unacknowledged = 0
