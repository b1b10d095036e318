"""What a client says at the beginning of each call, as header blocks.

Nearly all calls of a connection have the same block: once every field is in HPACK's table the bytes stay the same
until the table changes, so they are kept. The token is sent as a field that nobody may put into a table, and the
timeout as one that nobody does, because it would push out the others.
"""

from functools import lru_cache
from typing import Final

from attrs import field, frozen

from statehouse.rpc.http2.header_blocks import HeaderEncoder, literal_block
from statehouse.rpc.metadata import format_timeout
from statehouse.version import VERSION

__all__ = ["Greeting", "RequestHeaders"]

_USER_AGENT: Final = f"statehouse-python/{VERSION}".encode()
_EVERY_INDEXED: Final = frozenset(range(0x80, 0xFF))
"""First bytes of indexed fields whose index fits into them (RFC 7541, 6.1)."""


@frozen
class Greeting:
    """What all calls of a connection say about themselves."""

    authority: str
    scheme: str = "http"
    authorization: bytes | None = field(default=None, repr=False)


class RequestHeaders:
    """The header blocks of one connection, in the order in which they are sent."""

    def __init__(self, greeting: Greeting) -> None:
        self._encoder = HeaderEncoder()
        self._scheme = greeting.scheme.encode()
        self._same: tuple[tuple[bytes, bytes], ...] = (
            (b":authority", greeting.authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", _USER_AGENT),
            (b"grpc-accept-encoding", b"identity,gzip"),
        )
        secret = greeting.authorization
        self._secret = b"" if secret is None else literal_block([(b"authorization", secret)], never_indexed=True)
        self._kept: dict[str, bytes] = {}

    def limit_table(self, size_bytes: int) -> None:
        """The server's HEADER_TABLE_SIZE."""
        self._encoder.limit_table(size_bytes)
        self._kept.clear()

    def block(self, path: str, timeout_s: float | None) -> bytes:
        """The block of a call; it must be sent, for the table has changed with it."""
        block = self._kept.get(path)
        if block is None:
            named = ((b":method", b"POST"), (b":scheme", self._scheme), (b":path", path.encode()), *self._same)
            indexed = self._encoder.encode(named)
            block = indexed + self._secret
            if _EVERY_INDEXED.issuperset(indexed):
                self._kept[path] = block
            else:
                self._kept.clear()
        return block if timeout_s is None else block + _timeout_block(timeout_s)


@lru_cache(maxsize=256)
def _timeout_block(timeout_s: float) -> bytes:
    return literal_block([(b"grpc-timeout", format_timeout(timeout_s))])
