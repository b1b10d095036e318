"""How gRPC writes what is not plain text into headers: binary values, messages and timeouts.

Rules: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import base64
import binascii
import re
import urllib.parse
from typing import Final

__all__ = [
    "LONGEST_TIMEOUT_S",
    "decode_binary",
    "decode_text",
    "encode_binary",
    "encode_text",
    "format_timeout",
    "parse_timeout",
]

LONGEST_TIMEOUT_S: Final = 365 * 24 * 3600.0
"""A longer deadline is as good as none, and far below where arithmetic on it could fail."""

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_MS: Final = 99_999_999

# Printable ASCII but for the percent sign stands for itself.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def encode_binary(value: bytes) -> bytes:
    """The text of a value whose header's name ends in `-bin`: base64 without padding."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(text: bytes) -> bytes:
    """The value of a `-bin` header, padded or not; ValueError when it is none."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error


def encode_text(text: str) -> bytes:
    """A `grpc-message`: UTF-8, percent-encoded where it is not printable ASCII; half a surrogate pair is a `?`."""
    return urllib.parse.quote(text, safe=_PLAIN, errors="replace").encode()


def decode_text(text: bytes) -> str:
    """The text of a `grpc-message`; what is not UTF-8 is replaced, never an error."""
    return urllib.parse.unquote_to_bytes(text).decode("utf-8", "replace")


def parse_timeout(text: bytes) -> float | None:
    """The seconds of a `grpc-timeout`, at most LONGEST_TIMEOUT_S; None when the text is none."""
    match = _TIMEOUT.fullmatch(text)
    return min(int(match[1]) * _UNIT_S[match[2]], LONGEST_TIMEOUT_S) if match else None


def format_timeout(timeout_s: float) -> bytes:
    """A `grpc-timeout` of so many seconds: in milliseconds, rounded up, or in hours where those are too many."""
    timeout_s = min(timeout_s, LONGEST_TIMEOUT_S)  # `math.inf` is no number of anything
    milliseconds = max(1, -int(-timeout_s * 1000 // 1))
    if milliseconds <= _MOST_MS:
        return b"%dm" % milliseconds
    return b"%dH" % -int(-timeout_s // 3600)
