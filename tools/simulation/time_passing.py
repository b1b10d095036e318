"""Time as a simulated machine has it: a wall clock that is set now and then, and waits in which values expire."""

from random import Random
from typing import Final

import trio
from attrs import define

from statehouse.actors.engine import Engine
from statehouse.limits import BACKGROUND_RETRY_S, SWEEP_LOOK_S

__all__ = ["IDLE_S", "LONGEST_TTL_S", "TTLS_S", "WallClock", "all_expires", "rest"]

TTLS_S: Final = {None: 55, 1: 25, 2: 12, 3: 5, 20: 3}
"""How long the values of a load last, with the weight of each."""
LONGEST_TTL_S: Final = 20
RESTS_S: Final = (1, 1, 2, 3)
RESTING_MORE_S: Final = 0.04
IDLE_S: Final = (0.0, 0.0, 1.0, 3.5)
"""What may come behind the clients of a life, who are gone."""
FIRST_TIME_NS: Final = 1_700_000_000_000_000_000
SET_SHARE: Final = 0.03
"""Of the times that the clock is read, those at which it was set before."""
BACK_NS: Final = (3_600_000_000_000, 1_500_000_000, -1)
AHEAD_S: Final = 2.5
"""How far at most it is set ahead of whatever it has shown: then values expire from one moment to the next."""
NS_PER_S: Final = 1_000_000_000


@define
class WallClock:
    """Of one machine, for all lives."""

    rng: Random
    _skew_ns: int = FIRST_TIME_NS
    _furthest_ns: int = FIRST_TIME_NS

    def now_ns(self) -> int:
        """Nanoseconds since 1970, as far as anybody knows."""
        steady_ns = int(trio.current_time() * NS_PER_S)
        self._furthest_ns = max(self._furthest_ns, self._skew_ns + steady_ns)
        if self.rng.random() < SET_SHARE:
            if self.rng.random() < 0.5:
                self._skew_ns -= self.rng.choice(BACK_NS)
            else:
                self._skew_ns = self._furthest_ns + int(self.rng.random() * AHEAD_S * NS_PER_S) - steady_ns
        return self._skew_ns + steady_ns


async def rest(rng: Random) -> None:
    """As long as values last, or a little longer or shorter: whoever rests is back when they expire."""
    await trio.sleep(rng.choice(RESTS_S) + rng.uniform(-RESTING_MORE_S, RESTING_MORE_S))


async def all_expires(engine: Engine) -> None:
    """Wait until everything that was written with a TTL has expired, and had its time to be deleted."""
    until_ns = engine.now_ns() + LONGEST_TTL_S * NS_PER_S
    while engine.now_ns() <= until_ns:  # noqa: ASYNC110 - a clock has no event
        await trio.sleep(LONGEST_TTL_S / 2)
    await trio.sleep(SWEEP_LOOK_S + BACKGROUND_RETRY_S)
