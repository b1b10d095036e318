"""How long a connection lives, and what it must show for it: the rules, without a clock and without a socket.

A peer must begin HTTP/2 soon, be heard from now and then, and go when it has not called for long or has been
here for very long. Whoever is silent is pinged: a machine that died says nothing, and TCP takes its time.
"""

import math
from enum import Enum
from typing import Final

from attrs import define, frozen

__all__ = ["PREFACE_S", "Lifetime", "LifetimeLimits", "Step"]

PREFACE_S: Final = 5.0
"""How long a peer may take for TLS's handshake, and then until its first settings have come."""
KEEPALIVE_S: Final = 60.0
"""A peer that was not heard of for this long is pinged."""
KEEPALIVE_ANSWER_S: Final = 20.0
"""How long it may take to answer."""


@frozen
class LifetimeLimits:
    """What an operator chooses; infinite means without limit."""

    idle_s: float = math.inf
    """How long a connection may be without a call."""
    age_s: float = math.inf
    """How old it may become before it takes no new calls."""


class Step(Enum):
    """What is due."""

    NOTHING = "nothing"
    PING = "ping"
    SAY_GOODBYE = "say goodbye"
    """Take no new calls, and end when those under way have ended."""
    CUT_OFF = "cut off"


@define
class Lifetime:
    """Of one connection. Times are seconds on the caller's clock."""

    limits: LifetimeLimits
    began_at: float
    heard_at: float
    """When something last came."""
    called_at: float
    """When a call last ended, or the connection began."""
    greeted: bool = False
    """The peer's settings have come: it speaks HTTP/2."""
    pinged_at: float | None = None
    said_goodbye: bool = False

    @classmethod
    def beginning(cls, limits: LifetimeLimits, now: float) -> "Lifetime":
        """Of a connection that was just accepted."""
        return cls(limits, began_at=now, heard_at=now, called_at=now)

    def next_at(self, *, calls: int) -> float:
        """When to look again."""
        if not self.greeted:
            return self.began_at + PREFACE_S
        silent_at = self.heard_at + KEEPALIVE_S
        if self._waits_for_ping:
            silent_at = self._ping_at + KEEPALIVE_ANSWER_S
        return min(silent_at, math.inf if self.said_goodbye else self._leaves_at(calls))

    def step(self, now: float, *, calls: int) -> Step:
        """What is due now, with so many calls under way; it counts as done."""
        if not self.greeted:
            return Step.CUT_OFF if now >= self.began_at + PREFACE_S else Step.NOTHING
        if self._waits_for_ping and now >= self._ping_at + KEEPALIVE_ANSWER_S:
            return Step.CUT_OFF
        if not self.said_goodbye and now >= self._leaves_at(calls):
            self.said_goodbye = True
            return Step.SAY_GOODBYE
        if not self._waits_for_ping and now >= self.heard_at + KEEPALIVE_S:
            self.pinged_at = now
            return Step.PING
        return Step.NOTHING

    @property
    def _ping_at(self) -> float:
        return -math.inf if self.pinged_at is None else self.pinged_at

    @property
    def _waits_for_ping(self) -> bool:
        return self._ping_at > self.heard_at

    def _leaves_at(self, calls: int) -> float:
        idle_at = math.inf if calls else self.called_at + self.limits.idle_s
        return min(idle_at, self.began_at + self.limits.age_s)
