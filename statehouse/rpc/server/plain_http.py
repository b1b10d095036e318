"""Answers to requests that are HTTP and no gRPC: a browser's, or curl's. They get a status and a line for people."""

from typing import Final

from statehouse.rpc.http2.outgoing import Outgoing
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.server.call_headers import Plain
from statehouse.rpc.server.response_blocks import ResponseBlocks

__all__ = ["PlainAnswers"]

TEXT: Final = b"This is a Statehouse daemon. It speaks gRPC: use a Statehouse client, statehousectl or grpcurl.\n"
_SIZE: Final = b"%d" % len(TEXT)


class PlainAnswers:
    """Those of one connection that its peer's windows hold up. It has as many as it may have streams."""

    def __init__(self, connection: Outgoing, blocks: ResponseBlocks) -> None:
        self._connection = connection
        self._blocks = blocks
        self._unsent: dict[int, tuple[Stream, bytes]] = {}

    def answer(self, stream: Stream, request: Plain) -> None:
        """Begin to answer; the rest follows by `go_on`."""
        headers = [(b":status", request.status), (b"content-type", b"text/plain"), (b"content-length", _SIZE)]
        if request.status == b"405":
            headers.append((b"allow", b"POST"))
        if request.head:
            self._connection.send_headers(stream, self._blocks.other(headers), ends=True)
            self._connection.need_no_more(stream)
            return
        self._connection.send_headers(stream, self._blocks.other(headers), ends=False)
        # Those that were reset since: a peer whose window never grows must not have us keep them.
        self._unsent = {each.id: (each, text) for each, text in self._unsent.values() if not each.closed}
        self._unsent[stream.id] = stream, TEXT
        self._send(stream, TEXT)

    def go_on(self) -> None:
        """Windows have grown."""
        for stream, text in list(self._unsent.values()):
            self._send(stream, text)

    def _send(self, stream: Stream, text: bytes) -> None:
        if stream.closed:
            del self._unsent[stream.id]
            return
        room = self._connection.room(stream)
        if room <= 0:
            return
        rest = text[room:]
        self._connection.send_data(stream, text[:room], ends=not rest)
        if rest:
            self._unsent[stream.id] = stream, rest
            return
        del self._unsent[stream.id]
        self._connection.need_no_more(stream)
