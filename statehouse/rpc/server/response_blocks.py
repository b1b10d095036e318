"""The header blocks of answers: encoded once, and never again.

What nearly every answer says (its content type, what encodings are taken, that it went well) is put into HPACK's
dynamic table by the first answer of a connection; from then on it is a byte each. Errors, which have texts of their
own, use no table, so they move nothing in it. A client that makes the table smaller gets no table at all.
"""

from collections.abc import Iterable
from typing import Final

from statehouse.rpc.http2.header_blocks import TABLE_BYTES, literal_block
from statehouse.rpc.server.call_headers import ACCEPTED_ENCODINGS

__all__ = ["ResponseBlocks"]

_STATUS_200: Final = (b":status", b"200")
_TYPE: Final = (b"content-type", b"application/grpc")
_ENCODINGS: Final = (b"grpc-accept-encoding", ACCEPTED_ENCODINGS)
_OK: Final = (b"grpc-status", b"0")

_TABLE_SIZE_ZERO: Final = b"\x20"
"""What an encoder that uses no table says when its peer makes the table smaller (RFC 7541, 4.2)."""


def _added(*fields: tuple[bytes, bytes]) -> bytes:
    """These fields, put into the table in this order (RFC 7541, 6.2.1)."""
    return b"".join(b"\x40" + literal_block([field])[1:] for field in fields)


# By how much is in the table: nothing; the fields of a response, as entries 63 and 62; and its status, as 62, which
# moves them to 64 and 63 (RFC 7541, 2.3.2, 2.3.3). An indexed field is 0x80 and its index.
_HEADERS: Final = (literal_block([_STATUS_200]) + _added(_TYPE, _ENCODINGS), b"\x88\xbf\xbe", b"\x88\xc0\xbf")
_TRAILERS: Final = (b"", _added(_OK), b"\xbe")

_HEADERS_WITHOUT: Final = literal_block([_STATUS_200, _TYPE, _ENCODINGS])
_TRAILERS_WITHOUT: Final = literal_block([_OK])
_ONLY_TRAILERS: Final = literal_block([_STATUS_200, _TYPE, _ENCODINGS, _OK])


class ResponseBlocks:
    """Those of one connection. Each block must be sent, in the order in which they were asked for."""

    __slots__ = ("_in_table", "_update", "_without_table")

    def __init__(self) -> None:
        self._in_table = 0
        self._without_table = False
        self._update = b""

    def headers(self) -> bytes:
        """Of a response that has messages."""
        if self._without_table:
            return self._after_update(_HEADERS_WITHOUT)
        block = _HEADERS[self._in_table]
        if not self._in_table:
            self._in_table = 1
        return block

    def trailers(self) -> bytes:
        """Of a response with messages that went well."""
        if self._without_table:
            return self._after_update(_TRAILERS_WITHOUT)
        block = _TRAILERS[self._in_table]
        self._in_table = 2
        return block

    def only_trailers(self) -> bytes:
        """Of a response without a message that went well."""
        return self._after_update(_ONLY_TRAILERS)

    def failure(self, fields: Iterable[tuple[bytes, bytes]], *, started: bool) -> bytes:
        """Of a call that failed with these fields, after its headers (`started`) or instead of them."""
        return self.other(fields if started else [_STATUS_200, _TYPE, _ENCODINGS, *fields])

    def other(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Of anything else."""
        return self._after_update(literal_block(fields))

    def table_set(self, size_bytes: int) -> None:
        """The client's HEADER_TABLE_SIZE."""
        if size_bytes < TABLE_BYTES:
            self._without_table = True
            self._update = _TABLE_SIZE_ZERO

    def _after_update(self, block: bytes) -> bytes:
        update, self._update = self._update, b""
        return update + block
