"""From the engine's replies to those that a connection waits for: the same, encoded."""

from collections.abc import Callable
from typing import TypeVar

from statehouse.actors.reply import Reply

__all__ = ["encoded", "encoded_later"]

T = TypeVar("T")


def encoded(reply: Reply[T], encode: Callable[[T], bytes]) -> bytes | Reply[bytes]:
    """The response of a reply: at once when it is settled (or its error is raised), else when it settles."""
    return encode(reply.result()) if reply.settled else encoded_later(reply, encode)


def encoded_later(reply: Reply[T], encode: Callable[[T], bytes]) -> Reply[bytes]:
    """A reply with the response, or the error, of another."""
    response: Reply[bytes] = Reply()

    def settle(settled: Reply[T]) -> None:
        error = settled.error
        if error is None:
            response.succeed(encode(settled.result()))
        else:
            response.fail(error)

    reply.then(settle)
    return response
