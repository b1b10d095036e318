"""One connection from the server's side: its life, and the task that reads.

The reader takes what comes; `calls.py` has the calls that it is for, `sender.py` sends what they produce. Whoever
produces faster than the peer reads waits for it, the reader included.

The connection ends when the peer leaves or breaks HTTP/2, when its time is up (`lifetime.py`), when it has been
drained, or when `run` is cancelled. Its calls end with it.
"""

import math
import time
from collections import deque
from functools import partial
from typing import Final

import trio

from statehouse.rpc.error_table import EncodedError, encode_error
from statehouse.rpc.http2.frames import ErrorCode
from statehouse.rpc.server.calls import Calls, Find
from statehouse.rpc.server.capacity import Capacity
from statehouse.rpc.server.events import Event, PeerLeft
from statehouse.rpc.server.failures import goodbye
from statehouse.rpc.server.lifetime import Lifetime, LifetimeLimits, Step
from statehouse.rpc.server.link import Link
from statehouse.rpc.server.protocol import ServerProtocol
from statehouse.rpc.server.refusals import Refusal
from statehouse.rpc.server.sender import Sender

__all__ = ["FAREWELL_S", "ServerConnection"]

FAREWELL_S: Final = 1.0
"""How long the last output (statuses, GOAWAY) may take to leave when the connection ends."""
TURN_S: Final = 0.005
"""After so long the calls of other connections have their turn: fifty reads of large values fit in one packet."""
_PING: Final = b"statehse"


class ServerConnection:
    """One accepted connection. `run` is its whole life; the other methods belong to the server."""

    def __init__(
        self, link: Link, find: Find, capacity: Capacity, limits: LifetimeLimits, *, peer: str, request_bytes: int
    ) -> None:
        self._link = link
        self._find = find
        self._capacity = capacity
        self._peer = peer
        now = trio.current_time()
        self._lifetime = Lifetime.beginning(limits, now)
        self._protocol = ServerProtocol(request_bytes, capacity.requests, now, self._output_came)
        self._sender = Sender(link, self._protocol, self.leave)
        self._calls: Calls | None = None  # while it runs
        self._reading = trio.CancelScope()  # until the connection must be looked after
        self._next_look_at = math.inf
        self._unhandled: deque[Event] = deque()
        self._in_turn = False
        self._calls_ended = False  # in this turn
        self._draining = False
        self._leaving = False

    @property
    def streams(self) -> int:
        """How many HTTP/2 streams are open."""
        return len(self._protocol.streams)

    @property
    def idle_since(self) -> float | None:
        """When its last call ended, on Trio's clock; None while there are calls."""
        return None if self._calls else self._lifetime.called_at

    async def run(self) -> None:
        """Serve the connection to its end. Does not close the stream; cancelling drops what is under way."""
        async with trio.open_nursery() as nursery:
            calls = self._calls = Calls(
                self._protocol,
                self._sender,
                self._find,
                self._capacity,
                peer=self._peer,
                nursery=nursery,
                ended=self._call_ended,
            )
            try:
                nursery.start_soon(self._sender.run)
                self._sender.flush()
                while not self._leaving:
                    self._next_look_at = min(calls.soonest_due, self._lifetime.next_at(calls=len(calls)))
                    with trio.CancelScope(deadline=self._next_look_at) as self._reading:
                        await self._read(calls)
                    self._look(calls)
                calls.drop_all()
                self._protocol.end(ErrorCode.NO_ERROR, "")
                with trio.move_on_after(FAREWELL_S):
                    await self._sender.finish()
            finally:
                calls.drop_all()  # again, for a run that is cancelled
                self._protocol.let_go_of_all()
                nursery.cancel_scope.cancel()

    def drain(self) -> None:
        """Say goodbye, let the calls in flight finish, then end. Watchers are told at once to go elsewhere."""
        self._draining = True
        self._protocol.go_away()
        if self._calls is not None:
            self._calls.refuse_watchers()
            self._calls.end_watchers(encode_error(goodbye()))
        self._sender.flush()
        self._end_if_drained()

    def judge_callers_anew(self) -> None:
        """End what would go on for ever, or has not begun, under the rights that its caller had: it may call again."""
        if self._calls is not None:
            for end in (self._calls.end_watchers, self._calls.end_unstarted):
                end(encode_error(goodbye()))
            self._sender.flush()

    def leave(self) -> None:
        """End at once; the calls in flight are dropped."""
        self._leaving = True
        self._reading.cancel()

    def end_calls(self, error: EncodedError) -> None:
        """Stop every call in flight; its client is told `error`."""
        if self._calls is not None:
            self._calls.end_all(error)
            self._sender.flush()

    async def _read(self, calls: Calls) -> None:
        while not self._leaving:
            await self._sender.room()  # first: a look at the time must not let more in
            if self._unhandled:
                self._handle(calls, trio.current_time())
                await trio.lowlevel.checkpoint()
            else:
                await self._link.read(partial(self._take, calls))

    def _take(self, calls: Calls, received: bytes) -> bool:
        """Take what came; whether more may come now."""
        if not received:
            self._leaving = True
            return False
        now = self._lifetime.heard_at = trio.current_time()
        self._protocol.receive(received, now)
        self._lifetime.greeted = self._protocol.greeted
        self._unhandled.extend(self._protocol.take_events())
        self._handle(calls, now)
        if self._protocol.ended is not None:
            reason = self._protocol.ended.reason
            self._capacity.refusals.note(Refusal.BROKE_HTTP2, reason, peer=self._peer, now=now)
            self._leaving = True
        return not self._leaving and not self._unhandled and not self._sender.is_full

    def _handle(self, calls: Calls, now: float) -> None:
        """Handle what came, for a turn, while there is room for what it is answered: a packet may hold many calls."""
        self._in_turn = True
        turn_ends_s = time.monotonic() + TURN_S
        while self._unhandled:
            if self._sender.is_full:
                self._sender.flush()
                if self._sender.is_full:
                    break
            event = self._unhandled.popleft()
            if isinstance(event, PeerLeft):
                self._leaving = True
            else:
                calls.handle(event, now)
            ends_soon = self._leaving or self._protocol.ended is not None  # there is no other turn
            if self._unhandled and not ends_soon and time.monotonic() >= turn_ends_s:
                break
        else:
            self._protocol.let_go_of_ended()
        self._in_turn = False
        if self._calls_ended or self._draining:
            self._calls_ended = False
            self._after_calls(now)
        self._sender.flush()
        self._look_by(calls.soonest_due)

    def _look(self, calls: Calls) -> None:
        """Do what time asks for."""
        now = trio.current_time()
        step = self._lifetime.step(now, calls=len(calls))
        if step is Step.CUT_OFF:
            self._leaving = True
        elif step is Step.SAY_GOODBYE:
            self.drain()
        elif step is Step.PING:
            self._protocol.ping(_PING)
        calls.look(now)
        self._sender.flush()

    def _look_by(self, when: float) -> None:
        """Look at the time no later than this."""
        if when < self._next_look_at:  # to ask Trio for the deadline costs more than a call may
            self._next_look_at = self._reading.deadline = when

    def _output_came(self) -> None:
        self._sender.wake()

    def _call_ended(self) -> None:
        if self._in_turn:
            self._calls_ended = True  # and more may end in this turn
        else:
            self._after_calls(trio.current_time())

    def _after_calls(self, now: float) -> None:
        self._lifetime.called_at = now
        if not self._calls:
            self._look_by(now + self._lifetime.limits.idle_s)
            self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._draining and not self._calls and not self._unhandled:
            self.leave()
