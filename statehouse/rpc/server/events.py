"""What a server's connection tells of calls: the events of `protocol.py`, in the order in which they came."""

from typing import NamedTuple, TypeAlias

from statehouse.rpc.error_table import EncodedError
from statehouse.rpc.http2.streams import Stream
from statehouse.rpc.messages import Compressed
from statehouse.rpc.server.call_headers import CallHeaders

__all__ = [
    "CallBegan",
    "CallEvent",
    "CallRefused",
    "CallReset",
    "Event",
    "MessageCame",
    "PeerLeft",
    "RequestEnded",
    "RoomGrew",
]


class CallBegan(NamedTuple):
    """A call's headers came, and are well-formed."""

    stream: Stream
    headers: CallHeaders


class MessageCame(NamedTuple):
    """A message of the request is whole."""

    stream: Stream
    message: bytes | Compressed


class RequestEnded(NamedTuple):
    """The client has sent all that it will."""

    stream: Stream


class CallRefused(NamedTuple):
    """A call that no handler may see, or see any more; it is to be answered with this."""

    stream: Stream
    error: EncodedError


class CallReset(NamedTuple):
    """The stream is gone; nothing can be sent on it any more."""

    stream: Stream


class RoomGrew(NamedTuple):
    """More may be sent, on a stream or on any (None)."""

    stream: Stream | None


class PeerLeft(NamedTuple):
    """The client said goodbye (GOAWAY): its calls are over."""


CallEvent: TypeAlias = CallBegan | MessageCame | RequestEnded | CallRefused | CallReset | RoomGrew
Event: TypeAlias = CallEvent | PeerLeft
