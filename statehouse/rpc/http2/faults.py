"""What a peer does wrong, and how far it reaches: a stream, or the connection (RFC 9113, 5.4)."""

from attrs import frozen

from statehouse.rpc.http2.frames import ErrorCode

__all__ = ["ConnectionFaultError", "Ended", "StreamFaultError"]


@frozen
class Ended:
    """Why a connection is over; `by_peer` when the peer said so."""

    code: int
    reason: str
    by_peer: bool = False


class ConnectionFaultError(Exception):
    """The peer breaks the protocol as a whole (5.4.1)."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamFaultError(Exception):
    """The peer breaks the rules of one stream (5.4.2)."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream_id = stream_id
        self.code = code
