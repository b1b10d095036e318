"""How a connection's output leaves: at once, as far as the socket takes it; what is left, by a task."""

from collections.abc import Callable
from typing import Final

import trio

from statehouse.limits import KIB
from statehouse.rpc.server.link import Link
from statehouse.rpc.server.protocol import ServerProtocol

__all__ = ["OUTPUT_BYTES", "Sender"]

OUTPUT_BYTES: Final = 128 * KIB
"""With this much waiting to be sent, whoever produces more waits until it is gone."""


class Sender:
    """Sends what gathers in the protocol's `output`, in its order; `broken` is told of a peer that is gone."""

    def __init__(self, link: Link, protocol: ServerProtocol, broken: Callable[[], None]) -> None:
        self._link = link
        self._protocol = protocol
        self._broken = broken
        self._writing = False
        self._finishing = False
        self._work = trio.Event()
        self._ended = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def is_full(self) -> bool:
        """Whether who produces more must wait."""
        return len(self._protocol.output) > OUTPUT_BYTES

    def flush(self) -> None:
        """Send what can be sent without waiting; the task sends the rest."""
        output = self._protocol.output
        if not output or self._writing:
            return
        try:
            sent = self._link.send_now(output)
        except trio.BrokenResourceError:
            self._broken()
            return
        if sent == len(output):
            output.clear()
            self._waiting.unpark_all()
        else:
            del output[:sent]
            self._work.set()

    def wake(self) -> None:
        """Have everything sent by the task: later in this turn of the event loop more may come."""
        self._work.set()

    async def room(self) -> None:
        """Wait until more may be produced."""
        while self.is_full:
            self._work.set()
            await self._waiting.park()

    async def finish(self) -> None:
        """Send what there is, then end the task. Returns when it is done, or cannot be done."""
        self._finishing = True
        self._work.set()
        await self._ended.wait()

    async def run(self) -> None:
        """Send until `finish`, or until the peer is gone."""
        try:
            while True:
                if self._protocol.output:
                    self._writing = True
                    await self._link.send_all(self._protocol.take_output())
                    self._writing = False
                    self._waiting.unpark_all()
                elif self._finishing:
                    return
                else:
                    self._work = trio.Event()
                    await self._work.wait()
        except trio.BrokenResourceError:
            self._broken()
        finally:
            self._ended.set()
