"""How long values last: what an event leaves of its keys, and what a look at a clock may make of that.

Times are in whole microseconds since 1970, as the public types have them, cut off and not rounded: what was before
something else is not after it when both are cut off. So a moment that falls into the microsecond in which a value
expires may show it or not, and nothing else is let pass.
"""

import datetime as dt
from collections.abc import Iterable, Iterator

from attrs import field, frozen

from statehouse import ReplayEvent, StateResult

__all__ = ["NEVER_US", "Look", "expired", "expiry_us", "is_sweep", "microseconds", "states_of"]

DAWN = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
NEVER_US = 1 << 64


def microseconds(time: dt.datetime | None) -> int:
    """A time as a number; 0 for none."""
    return 0 if time is None else (time - DAWN) // MICROSECOND


def expiry_us(state: StateResult) -> int:
    """When a value expires; NEVER_US for one that does not."""
    return NEVER_US if state.expires_at is None else microseconds(state.expires_at)


def expired(state: StateResult) -> StateResult:
    """As a read of now shows a value that has expired and was not deleted yet."""
    return StateResult(None, state.version, state.commit_ts, exists=False)


def states_of(event: ReplayEvent) -> Iterator[tuple[str, StateResult]]:
    """What each operation of an event has left, by key, in their order."""
    for each in event.operations:
        expires_at = None
        if each.ttl_s is not None and event.committed_at is not None:
            expires_at = event.committed_at + dt.timedelta(seconds=each.ttl_s)
        yield (
            each.key,
            StateResult(each.value, each.version, event.commit_ts, each.value is not None, expires_at=expires_at),
        )


def is_sweep(event: ReplayEvent) -> bool:
    """Whether anything of it says that it is a tombstone of what has expired, which only the store itself writes."""
    return any(operation.expired for operation in event.operations)


@frozen
class Look:
    """One reading of the store's clock, some time from `began_us` to `ended_us`, and the values that it showed."""

    began_us: int
    ended_us: int
    least_us: int = NEVER_US
    """When the first of what was shown expires."""
    least_ts: frozenset[int] = field(factory=frozenset)
    """The commits of those that expire then."""

    @classmethod
    def of(cls, began_ns: int, ended_ns: int, shown: Iterable[StateResult] = ()) -> "Look":
        """A look that showed these."""
        shown = [state for state in shown if state.exists]
        least_us = min(map(expiry_us, shown), default=NEVER_US)
        least_ts = frozenset(state.commit_ts for state in shown if expiry_us(state) == least_us)
        return cls(began_ns // 1_000, ended_ns // 1_000, least_us, least_ts)

    def may_show(self, state: StateResult) -> bool:
        """Whether a value had not expired yet when the look began."""
        return expiry_us(state) >= self.began_us

    def may_hide(self, state: StateResult) -> bool:
        """Whether a value may have expired at the moment at which those that were shown had not."""
        at_us = expiry_us(state)
        if at_us > self.ended_us:
            return False
        # Two values of one commit that expire in one microsecond expire in one nanosecond.
        return at_us < self.least_us or (at_us == self.least_us and state.commit_ts not in self.least_ts)
