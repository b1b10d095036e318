"""The headers of a call, as the server reads them: a list of fields is a call, trailers, or nothing at all.

Three kinds of wrong are told apart. What breaks HTTP's rules (RFC 9113, 8.2 and 8.3) is `Malformed`: the stream is
reset. What is HTTP and no gRPC is `Plain`, and gets an HTTP status. What is gRPC and no call that we answer has a gRPC
status in `refused`, and is answered. A name that nobody knows is passed over. Rules: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import re
from typing import Final, TypeAlias

from attrs import frozen

from statehouse.errors import InvalidRequestError, OverloadedError
from statehouse.rpc.error_table import EncodedError, GrpcStatus, encode_error
from statehouse.rpc.http2.header_blocks import Fields
from statehouse.rpc.metadata import parse_timeout

__all__ = [
    "ACCEPTED_ENCODINGS",
    "HEADER_LIST_BYTES",
    "CallHeaders",
    "Malformed",
    "Plain",
    "Received",
    "Trailers",
    "read",
    "refusal",
]

HEADER_LIST_BYTES: Final = 8 * 1024
"""The headers of a call, as RFC 9113, 6.5.2 counts them; gRPC's own default."""
ACCEPTED_ENCODINGS: Final = b"identity,gzip"

_FIELD_BYTES: Final = 32
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_NEEDED: Final = (b":method", b":scheme", b":path")
_OF_ANOTHER_HTTP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


@frozen
class CallHeaders:
    """What the headers of a call say."""

    path: bytes
    timeout_s: float | None = None
    gzip: bool = False
    """Whether its messages may be compressed."""
    authorization: bytes | None = None
    content_length: int | None = None
    refused: EncodedError | None = None
    """The answer to a call that no handler may see."""


@frozen
class Trailers:
    """Fields without a path: they may end a request, and mean nothing."""


@frozen
class Plain:
    """A request of HTTP that is no gRPC; `status` is the HTTP status that says so."""

    status: bytes
    content_length: int | None = None
    head: bool = False
    """It asks for the headers alone."""


@frozen
class Malformed:
    """No HTTP message."""

    reason: str


Received: TypeAlias = CallHeaders | Trailers | Plain | Malformed


def refusal(status: GrpcStatus, message: str) -> EncodedError:
    """The answer to a call that no handler will see: the caller's fault, told under the transport's own status."""
    return encode_error(InvalidRequestError(message), status=status)


def read(fields: Fields) -> Received:
    """What a header list is. A regular field that stands there twice counts with its last value."""
    found: dict[bytes, bytes] = {}
    regular = False
    list_bytes = 0
    for name, value, _ in fields:
        list_bytes += len(name) + len(value) + _FIELD_BYTES
        if name[:1] == b":":
            if regular or name in found or name not in _PSEUDO:
                return Malformed("a pseudo-header field that is unknown, doubled or late")
        else:
            regular = True
            if not _NAME.fullmatch(name) or name in _OF_ANOTHER_HTTP or (name == b"te" and value != b"trailers"):
                return Malformed("a field that HTTP/2 does not have")
        if _CONTROL.search(value):
            return Malformed("a control character in a header")
        # Of two tokens neither counts: who stands between may have judged the other one.
        found[name] = b"" if name == b"authorization" and name in found else value
    if not any(name in found for name in _PSEUDO):
        return Trailers()
    if not all(found.get(name) for name in _NEEDED):
        return Malformed("a request without method, scheme or path")
    length = found.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) < 20):
        return Malformed("a content-length that is none")
    content_length = None if length is None else int(length)
    if found[b":method"] != b"POST":
        return Plain(b"405", content_length, head=found[b":method"] == b"HEAD")
    if not _GRPC.fullmatch(found.get(b"content-type", b"")):
        return Plain(b"415", content_length)
    timeout = found.get(b"grpc-timeout")
    return CallHeaders(
        path=found[b":path"],
        timeout_s=None if timeout is None else parse_timeout(timeout),
        gzip=found.get(b"grpc-encoding") == b"gzip",
        authorization=found.get(b"authorization"),
        content_length=content_length,
        refused=_refused(found, list_bytes),
    )


def _refused(found: dict[bytes, bytes], list_bytes: int) -> EncodedError | None:
    if list_bytes > HEADER_LIST_BYTES:
        details = {"limit": str(HEADER_LIST_BYTES), "size": str(list_bytes)}
        message = f"the call's headers take {list_bytes} bytes; the limit is {HEADER_LIST_BYTES}"
        return encode_error(OverloadedError(message, details=details))
    if found.get(b"grpc-encoding", b"identity") not in (b"identity", b"gzip"):
        return refusal(GrpcStatus.UNIMPLEMENTED, "messages may be compressed with gzip, or not at all")
    timeout = found.get(b"grpc-timeout")
    if timeout is not None and parse_timeout(timeout) is None:
        return refusal(GrpcStatus.INVALID_ARGUMENT, "grpc-timeout is not a number and one of H, M, S, m, u, n")
    return None
