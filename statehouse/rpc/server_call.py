"""One call in flight, from the server's side: what it is, how far its answer is, and what ends it early."""

import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeAlias

import trio
from attrs import define, field

from statehouse.actors.reply import Reply
from statehouse.rpc.error_table import EncodedError

__all__ = ["ServerCall", "Work"]

Work: TypeAlias = Reply[bytes] | Coroutine[Any, Any, bytes] | AsyncGenerator[list[bytes], None]
"""What a handler returns when its answer is not there at once."""


@define(eq=False)
class ServerCall:
    """Belongs to one connection, which alone changes it."""

    stream_id: int
    method: str
    handler: Callable[[bytes], bytes | Work]
    deadline: float = math.inf
    """On Trio's clock."""
    request: bytes | None = None
    working: bool = False
    """A task runs for it, inside `scope`, and will end it."""
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    room: trio.Event = field(factory=trio.Event)
    """Set when the client's flow control may have let more through."""
    response_started: bool = False
    inside_message: bool = False
    """Part of a message is sent: nothing but the rest of it may follow."""
    over: bool = False
    """Nothing more can be sent: answered, reset by the client, or its connection is gone."""
    ended_by: EncodedError | None = None
    """Why the server itself cancelled the call."""
