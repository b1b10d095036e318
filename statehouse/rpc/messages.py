"""gRPC's frame of a message, and gzip: `compressed u8 | length u32 | message`, one after another in a stream's DATA.

A message's length is judged at its fifth byte, before any of it is kept. One that is compressed is inflated to
at most the same limit, so a small bomb stays small. Rules:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and compression.md beside it.
"""

import zlib
from struct import Struct
from typing import Final

from attrs import frozen

from statehouse.errors import InvalidRequestError

__all__ = ["MESSAGE_HEADER", "MESSAGE_HEADER_BYTES", "Compressed", "MessageReader", "MessageTooLargeError"]

MESSAGE_HEADER: Final = Struct(">BL")
"""Compressed or not, and the length."""
MESSAGE_HEADER_BYTES: Final = MESSAGE_HEADER.size

_GZIP: Final = 16 + zlib.MAX_WBITS


class MessageTooLargeError(InvalidRequestError):
    """A message longer than its receiver takes."""


@frozen
class Compressed:
    """A message as it came, in gzip."""

    content: bytes
    limit_bytes: int

    def inflate(self) -> bytes:
        """The message. Takes as long as inflating `limit_bytes` takes, at most; InvalidRequestError if it is none."""
        inflater = zlib.decompressobj(_GZIP)
        try:
            message = inflater.decompress(self.content, self.limit_bytes + 1)
        except zlib.error as error:
            raise InvalidRequestError(f"a message that is no gzip: {error}") from error
        if len(message) > self.limit_bytes:
            del message  # the error's traceback would keep it
            raise _too_large("more than " + str(self.limit_bytes), self.limit_bytes)
        if not inflater.eof or inflater.unused_data:
            raise InvalidRequestError("a message that is no gzip: it does not end where its message does")
        return message


class MessageReader:
    """Takes DATA apart into messages, for one stream in one direction."""

    __slots__ = ("_begun", "_limit_bytes", "_needed_bytes", "begun_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._begun = bytearray()
        self.begun_bytes = 0
        """What has come of the message that has begun, its header included. `_begun` may have room for more."""
        self._needed_bytes = MESSAGE_HEADER_BYTES

    @property
    def missing_bytes(self) -> int:
        """What must still come until the message that has begun is whole; 0 between messages."""
        return self._needed_bytes - self.begun_bytes if self.begun_bytes else 0

    @property
    def message_bytes(self) -> int:
        """The size, with its header, of the message that has begun; 0 until that is known."""
        return self._needed_bytes if self.begun_bytes >= MESSAGE_HEADER_BYTES else 0

    def make_room(self) -> None:
        """Take all the memory of the message that has begun now, if that is not done.

        Messages that grow side by side, piece by piece, are moved again and again, and leave holes in the heap that are
        as large as they are.
        """
        if len(self._begun) < self.message_bytes:
            begun, self._begun = self._begun, bytearray(self.message_bytes)
            self._begun[: len(begun)] = begun

    def feed(self, data: bytes) -> list[bytes | Compressed]:
        """The messages that are whole now. Raises MessageTooLargeError, and InvalidRequestError for no message."""
        size = len(data) - MESSAGE_HEADER_BYTES
        if not self.begun_bytes and 0 <= size <= self._limit_bytes and data[:5] == MESSAGE_HEADER.pack(0, size):
            return [data[MESSAGE_HEADER_BYTES:]]  # nearly always: one frame, one message
        begun, came = self._begun, self.begun_bytes + len(data)
        if came < len(begun):  # into the room that was made
            begun[self.begun_bytes : came] = data
            self.begun_bytes = came
            return []
        begun[self.begun_bytes :] = data
        messages: list[bytes | Compressed] = []
        at = 0
        while len(begun) - at >= MESSAGE_HEADER_BYTES:
            compressed, size = MESSAGE_HEADER.unpack_from(begun, at)
            if compressed > 1:
                raise InvalidRequestError("a message that is neither compressed nor not")
            if size > self._limit_bytes:
                raise _too_large(str(size), self._limit_bytes)
            end = at + MESSAGE_HEADER_BYTES + size
            if end > len(begun):
                self._needed_bytes = end - at
                break
            with memoryview(begun) as view:
                content = bytes(view[at + MESSAGE_HEADER_BYTES : end])
            messages.append(Compressed(content, self._limit_bytes) if compressed else content)
            at = end
        else:
            self._needed_bytes = MESSAGE_HEADER_BYTES
        del begun[:at]
        self.begun_bytes = len(begun)
        return messages


def _too_large(size: str, limit_bytes: int) -> MessageTooLargeError:
    details = {"limit": str(limit_bytes), "size": size}
    return MessageTooLargeError(f"the message is {size} bytes; the limit is {limit_bytes}", details=details)
