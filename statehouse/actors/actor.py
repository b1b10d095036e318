"""The kernel: an actor is one mailbox, one task, and one message at a time.

A turn is a plain function: it cannot wait, so nothing interleaves with it. That allows the one shortcut
that the kernel takes: a message to an actor that is idle, with an empty mailbox, is handled in the sender's
own turn, which is what its task would do next anyway, without the two task switches. Order and exclusion are
as with the mailbox; when the actor is in a turn, or held, messages queue and its task handles them later.

What a turn raises:

* a `StatehouseError` is an expected failure: it travels in the message's reply;
* anything else is a bug: the message's reply fails with an `InternalError`, and the supervisor decides
  whether the actor is restarted or the daemon stops.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from statehouse.actors.mailbox import Mailbox
from statehouse.actors.reply import Reply
from statehouse.errors import InternalError, StatehouseError, UnavailableError

__all__ = ["Actor", "Message"]


class Message(Protocol):
    """What an actor is sent: immutable but for the reply that it owes."""

    @property
    def reply(self) -> Reply[Any]: ...


M = TypeVar("M", bound=Message)


class Actor(Generic[M]):
    """Feeds messages to `turn`, one at a time.

    `crashed(message, error)` is told of each bug, logs it, and gives the `InternalError` for the caller.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[M], None],
        *,
        mailbox_messages: int,
        crashed: Callable[[M, Exception], InternalError],
    ) -> None:
        self.name = name
        self._turn = turn
        self._mailbox: Mailbox[M] = Mailbox(name, mailbox_messages)
        self._crashed = crashed
        self._in_turn = False
        self._holds = 0
        self._closed: UnavailableError | None = None

    @property
    def idle(self) -> bool:
        """Whether the actor is in no turn, held by nobody, and has nothing to do."""
        return not (self._in_turn or self._holds or self._mailbox)

    def send(self, message: M, *, refusable: bool = True) -> None:
        """Hand a message over: handled now when the actor is idle, else queued.

        A full mailbox fails the message's reply with OverloadedError, a closed one with UnavailableError. What is not
        `refusable` finds room in a full one: an answer that is owed, whose number somebody else bounds.
        """
        if self._closed is not None:
            message.reply.fail(self._closed)
        elif self._in_turn or self._holds or self._mailbox:
            try:
                self._mailbox.put(message, refusable=refusable)
            except StatehouseError as error:
                message.reply.fail(error)
        else:
            self._handle(message)

    def hold(self) -> None:
        """Handle no message until `release`; what arrives waits in the mailbox."""
        self._holds += 1

    def release(self, first: M | None = None) -> None:
        """End one `hold`; `first` is handled before what waits."""
        if first is not None and self._closed is not None:
            first.reply.fail(self._closed)
        elif first is not None:
            self._mailbox.put_first(first)
        self._holds -= 1
        if not self._holds:
            self._mailbox.wake()

    def close(self, reason: str) -> None:
        """Fail everything that waits, and everything that is sent from now on; `run` returns."""
        self._closed = UnavailableError(reason)
        for message in self._mailbox.take_all():
            message.reply.fail(self._closed)
        self._mailbox.wake()

    async def run(self) -> None:
        """The actor's task: handles what could not be handled in the sender's turn, until `close`."""
        try:
            while self._closed is None:
                if self._holds:
                    await self._mailbox.sleep()
                    continue
                await self._mailbox.wait()
                while len(self._mailbox) and not self._holds:
                    self._handle(self._mailbox.take())
        finally:
            if self._closed is None:
                self.close(f"{self.name} has stopped")

    def _handle(self, message: M) -> None:
        self._in_turn = True
        try:
            self._turn(message)
        except StatehouseError as error:
            message.reply.fail(error)
        except Exception as error:  # noqa: BLE001 - the boundary of a turn: any bug ends here and is told to the supervisor
            message.reply.fail(self._crashed(message, error))
        finally:
            self._in_turn = False
