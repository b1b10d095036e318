"""The headers of a call: from what a client sent to a purerpc `RequestReceived`, or to the reason of a refusal.

purerpc's own parser raises for whatever it does not like (a path with three parts, a header that is
missing), and its exception ends every other call of the connection. Here each of them is an answer to the
one call that it concerns. Rules: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any, Final

from purerpc.grpclib.events import RequestReceived

from statehouse.errors import InvalidRequestError
from statehouse.rpc.error_table import EncodedError, GrpcStatus, encode_error

__all__ = ["parse_headers", "parse_timeout", "refusal"]

_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
LONGEST_TIMEOUT_S: Final = 365 * 24 * 3600.0
"""A longer deadline is as good as none, and far below where arithmetic on it could fail."""


def refusal(status: GrpcStatus, message: str) -> EncodedError:
    """The answer to a call that no handler will see: the caller's fault, told under the transport's own status."""
    return encode_error(InvalidRequestError(message), status=status)


def parse_headers(stream_id: int, headers: Iterable[tuple[bytes, bytes]]) -> Any:
    """A `RequestReceived`, or an `EncodedError` for a call that must be refused. Never raises.

    A name that stands there twice counts with its last value; bytes that are not UTF-8 match nothing.
    """
    fields = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in headers}
    if fields.get(":method") != "POST":
        return refusal(GrpcStatus.UNIMPLEMENTED, "a gRPC call is a POST")
    content_type = fields.get("content-type", "")
    if not content_type.startswith("application/grpc"):
        return refusal(GrpcStatus.UNIMPLEMENTED, "a gRPC call has a content-type of application/grpc")
    path = fields.get(":path", "").split("/")
    if len(path) != 3 or path[0] or not path[1] or not path[2]:
        return refusal(GrpcStatus.UNIMPLEMENTED, "the path is not /<service>/<method>")
    encoding = fields.get("grpc-encoding", "identity")
    if encoding != "identity":
        return refusal(GrpcStatus.UNIMPLEMENTED, "compressed messages are not supported; use the encoding identity")
    request = RequestReceived(stream_id, fields.get(":scheme", "http"), path[1], path[2], content_type)
    if "grpc-timeout" in fields:
        timeout_s = parse_timeout(fields["grpc-timeout"])
        if timeout_s is None:
            return refusal(GrpcStatus.INVALID_ARGUMENT, "grpc-timeout is not a number and one of H, M, S, m, u, n")
        request.timeout = dt.timedelta(seconds=timeout_s)
    return request


def parse_timeout(text: str) -> float | None:
    """The seconds of a `grpc-timeout`, at most LONGEST_TIMEOUT_S; None when the text is none."""
    match = _TIMEOUT.fullmatch(text)
    return min(int(match[1]) * _UNIT_S[match[2]], LONGEST_TIMEOUT_S) if match else None
