"""A server's header lists: a response's headers, its trailers, or both in one, read without raising."""

from typing import Final

from statehouse.rpc.error_table import TRAILER_NAME
from statehouse.rpc.http2.header_blocks import Fields
from statehouse.rpc.metadata import decode_binary, decode_text

__all__ = ["Response", "read_response"]

_TRAILER_NAME: Final = TRAILER_NAME.encode()
_STATUS_DIGITS: Final = 9


class Response:
    """What a header list says. Shared by all calls whose lists are the same: nobody changes it."""

    __slots__ = ("encoding", "informational", "message", "problem", "status", "trailer")

    def __init__(
        self,
        *,
        informational: bool,
        problem: str | None,
        encoding: bytes,
        status: int | None,
        message: str,
        trailer: bytes | None,
    ) -> None:
        self.informational = informational
        """A status of 1xx: the response is still to come."""
        self.problem = problem
        """Why it is no response of gRPC; None for trailers."""
        self.encoding = encoding
        self.status = status
        """The `grpc-status`; None when there is none that can be read."""
        self.message = message
        self.trailer = trailer
        """The serialized detail of an error, if there is one."""


def read_response(fields: Fields) -> Response:
    """What a list of fields says. A name that stands there twice counts with its last value."""
    values = {name: value for name, value, _ in fields}
    http_status = values.get(b":status")
    problem = None
    if http_status is not None and http_status != b"200":
        problem = f"HTTP status {http_status.decode('ascii', 'replace')}"
    elif http_status is not None and not values.get(b"content-type", b"").startswith(b"application/grpc"):
        problem = f"HTTP status 200 and no content-type of gRPC's ({values.get(b'content-type', b'none')[:64]!r})"
    digits = values.get(b"grpc-status", b"")
    encoded = values.get(_TRAILER_NAME)
    status = int(digits) if digits.isdigit() and len(digits) <= _STATUS_DIGITS else None
    try:
        trailer = None if encoded is None else decode_binary(encoded)
    except ValueError:
        trailer = None  # the status alone says enough
    return Response(
        informational=http_status is not None and http_status.startswith(b"1"),
        problem=problem,
        encoding=values.get(b"grpc-encoding", b"identity"),
        status=status,
        message=decode_text(values.get(b"grpc-message", b"")),
        trailer=trailer,
    )
