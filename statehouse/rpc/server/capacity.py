"""What all connections of a server share: how much they may hold together, and what is counted over them."""

from typing import Final

import trio
from attrs import define, field

from statehouse.errors import OverloadedError
from statehouse.limits import (
    ANSWERS_BYTES,
    CALLS,
    CALLS_PER_CONNECTION,
    CONNECTION_ANSWERS_BYTES,
    CONNECTION_KEPT_REQUESTS_BYTES,
    CONNECTION_LISTINGS_BYTES,
    KEPT_REQUESTS_BYTES,
    LISTINGS_BYTES,
    MIB,
    OPEN_CALLS,
    REQUESTS_BYTES,
    WATCHERS,
)
from statehouse.rpc.server.answer_budget import AnswerBudget
from statehouse.rpc.server.dispatch import Endpoint
from statehouse.rpc.server.kept_requests import Kept, KeptRequests
from statehouse.rpc.server.refusals import Refusals
from statehouse.rpc.server.request_budget import RequestBudget

__all__ = ["LISTING_BYTES", "Capacity", "ConnectionAnswers"]

LISTING_BYTES: Final = 4 * MIB
"""An answer that may be larger than this is a listing; the others are chunks of streams, and point reads."""
INFLATING_THREADS: Final = 1
"""Messages in gzip that are inflated at once: more would only take the processor from those who send none."""


@define(eq=False)
class Capacity:
    """Belongs to a server; its connections take from it and give back."""

    requests: RequestBudget = field(factory=lambda: RequestBudget(REQUESTS_BYTES))
    kept_requests: KeptRequests = field(factory=lambda: KeptRequests(KEPT_REQUESTS_BYTES, ""))
    answers: AnswerBudget = field(factory=lambda: AnswerBudget(ANSWERS_BYTES))
    listings: AnswerBudget = field(factory=lambda: AnswerBudget(LISTINGS_BYTES))
    refusals: Refusals = field(factory=Refusals)
    inflating: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(INFLATING_THREADS))
    calls: int = 0
    """Under way, on all connections."""
    open_calls: int = 0
    """Of them, those that need no token."""
    watchers: int = 0
    """Calls that wait for what is committed from now on. They are idle by nature, so they do not count as calls."""

    def let_in(self, endpoint: Endpoint, connection_calls: int) -> bool:
        """Count a call of a connection that has so many others, if there is room for it."""
        if self.calls >= CALLS or connection_calls >= CALLS_PER_CONNECTION:
            return False
        if endpoint.open_to_all:
            if self.open_calls >= OPEN_CALLS:
                return False
            self.open_calls += 1
        self.calls += 1
        return True

    def begin_watching(self) -> None:
        """A call that was let in counts as a watcher from now on. OverloadedError past WATCHERS: then it does not."""
        if self.watchers >= WATCHERS:
            raise OverloadedError("too many streams follow what is committed", details={"limit": str(WATCHERS)})
        self.watchers += 1
        self.calls -= 1

    def let_out(self, endpoint: Endpoint, *, watches: bool = False) -> None:
        """A call that was let in has ended, with its work; `watches`: as a watcher."""
        if watches:
            self.watchers -= 1
        else:
            self.calls -= 1
        self.open_calls -= endpoint.open_to_all


class ConnectionAnswers:
    """A connection's share of what answers may hold, and of what the requests of reads that wait for that may."""

    __slots__ = ("_answers", "_kept_requests", "_listings")

    def __init__(self, capacity: Capacity) -> None:
        self._answers = AnswerBudget(CONNECTION_ANSWERS_BYTES, within=capacity.answers)
        self._listings = AnswerBudget(CONNECTION_LISTINGS_BYTES, within=capacity.listings)
        self._kept_requests = KeptRequests(
            CONNECTION_KEPT_REQUESTS_BYTES, " of this connection", within=(capacity.kept_requests,)
        )

    def budget(self, answer_bytes: int) -> AnswerBudget:
        """The budget that an answer of at most this size is held in."""
        return self._listings if answer_bytes > LISTING_BYTES else self._answers

    def keep(self, request_bytes: int) -> Kept:
        """Keep a request that waits to be read. OverloadedError: there is no room for it."""
        return self._kept_requests.keep(request_bytes)
