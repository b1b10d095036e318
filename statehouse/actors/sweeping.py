"""The Sweeper: what has expired becomes a tombstone here, so that replay and state agree.

Nobody waits for it: whoever reads what there is now takes an expired value for absent, tombstone or not. It sleeps
until the next value expires. Then it has everything that expired deleted through the agents' partitions, one agent a
commit, and notes in a commit of its own how far it is; not where all had been replaced or deleted in time, until that
was much to go through. A restart goes on from the newest note, and finds deleted what was.

It may only note a time when nothing that expires up to it can still come. So it reads the clock, and waits until all
that was on its way to the disk then is visible: whatever the sequencer takes later is dated no earlier than the clock
was, and a value lasts at least a second.

What fails is tried again later from where the last note was made; with a poisoned log, after the next start.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog
import trio

from statehouse.actors.messages import Committed
from statehouse.actors.reply import Reply
from statehouse.errors import LogPoisonedError, StatehouseError
from statehouse.limits import BACKGROUND_RETRY_S, SWEEP_COMMITS, SWEEP_KEYS, SWEEP_LOOK_S, SWEEP_REST_S, SWEEP_VALUES
from statehouse.storage.expiries import Expired, SweepStep, Swept
from statehouse.storage.store import Store
from statehouse.types import AgentId

__all__ = ["Sweeper"]

log = structlog.stdlib.get_logger(__name__)

_NEVER_NS: Final = 2**64
_NS_PER_S: Final = 1_000_000_000
_LEAST_S: Final = 0.05


class Sweeper:
    """`expire` sends what is to be deleted of an agent; `note` the commit that says up to which time all was.

    `barrier()` is the sequencer's, `now_ns()` the engine's clock.
    """

    def __init__(
        self,
        store: Store,
        *,
        expire: Callable[[AgentId, Sequence[tuple[bytes, int]]], Reply[Committed]],
        note: Callable[[int], Reply[int]],
        barrier: Callable[[], Reply[None]],
        now_ns: Callable[[], int],
    ) -> None:
        self._store = store
        self._expire = expire
        self._note = note
        self._barrier = barrier
        self._now_ns = now_ns
        self._swept_ns: int | None = None
        """All that expired up to then is deleted; None: ask the store."""
        self._due_ns = _NEVER_NS
        """When there is something to do, as far as that was told since the view was asked."""
        self._unnoted = 0
        """Rows that were gone through since the last note, with nothing to delete: the next start does so again."""
        self._woken = trio.Event()
        self._thread = trio.CapacityLimiter(1)

    def poke(self, at_ns: int) -> None:
        """Something was committed that expires then; cheap."""
        if at_ns < self._due_ns:
            self._due_ns = at_ns
            self._woken.set()

    async def run(self) -> None:
        """The task. Cancelling it waits for the step under way; a commit that was sent goes on."""
        while True:
            try:
                self._due_ns = self._next_ns()
                await self._rest()
                await self._sweep()
            except LogPoisonedError as error:
                log.warning("what has expired is deleted after the next start", reason=str(error))
                await trio.sleep_forever()
            except StatehouseError as error:
                self._swept_ns = None
                self._unnoted = SWEEP_KEYS  # some of it may be deleted, so the next note is due
                log.warning("deleting what has expired failed", reason=str(error), retry_in_s=BACKGROUND_RETRY_S)
                await trio.sleep(BACKGROUND_RETRY_S)
            await trio.sleep(SWEEP_REST_S)

    def _next_ns(self) -> int:
        """When there is something to do, by the view; a commit that is not visible yet will tell when it is."""
        if self._swept_ns is None:
            self._swept_ns = self._store.swept_until()
        next_ns = self._store.next_expiry(self._swept_ns)
        return _NEVER_NS if next_ns is None else next_ns

    async def _rest(self) -> None:
        """Sleep until something is due. The clock may run at another pace than the one that is slept by, or be set."""
        while (wait_ns := self._due_ns - self._now_ns()) > 0:
            self._woken = trio.Event()
            is_known = self._due_ns < _NEVER_NS
            with trio.move_on_after(
                min(max(wait_ns / _NS_PER_S, _LEAST_S), SWEEP_LOOK_S) if is_known else float("inf")
            ):
                await self._woken.wait()

    async def _sweep(self) -> None:
        if self._swept_ns is None:
            return
        now_ns = self._now_ns()
        # failpoint: sweep.begun
        await self._barrier().wait()
        # failpoint: sweep.all_visible
        steps = self._store.sweep(self._swept_ns, now_ns)
        sent = _Sent()
        while True:
            batch = await trio.to_thread.run_sync(_some, steps, limiter=self._thread)
            for step in batch:
                match step:
                    case Expired(agent, values):
                        await sent.room(len(values))
                        sent.add(self._expire(agent, values), len(values))
                        # failpoint: sweep.tombstones_sent
                    case Swept(until_ns, rows):
                        self._unnoted += rows
                        is_worth_noting = await sent.done() or self._unnoted >= SWEEP_KEYS
                        # failpoint: sweep.tombstones_durable
                        if is_worth_noting and until_ns > self._swept_ns:  # many may expire at one time
                            await self._note(until_ns).wait()
                            # failpoint: sweep.noted
                            self._unnoted = 0
                        self._swept_ns = until_ns
            if not batch:
                return


class _Sent:
    """The deletes that were sent and are not durable yet."""

    def __init__(self) -> None:
        self._replies: deque[tuple[Reply[Committed], int]] = deque()
        self._values = 0
        self._deleted = False

    async def room(self, values: int) -> None:
        """Wait until one more may be sent, of so many values; at least a turn: to prepare one takes a while."""
        await trio.lowlevel.checkpoint()
        while self._replies and (len(self._replies) >= SWEEP_COMMITS or self._values + values > SWEEP_VALUES):
            await self._oldest()

    def add(self, reply: Reply[Committed], values: int) -> None:
        self._replies.append((reply, values))
        self._values += values

    async def done(self) -> bool:
        """Wait until all are durable; whether something was deleted since it was asked. What one of them raises."""
        while self._replies:
            await self._oldest()
        deleted, self._deleted = self._deleted, False
        return deleted

    async def _oldest(self) -> None:
        reply, values = self._replies.popleft()
        committed = await reply.wait()
        self._deleted = self._deleted or committed.commit_ts > 0
        self._values -= values


def _some(steps: Iterator[SweepStep]) -> list[SweepStep]:
    """In a worker thread: a few steps; the last of a chunk is the one that asks to be waited for. Empty: it is over."""
    found: list[SweepStep] = []
    values = 0
    for step in steps:
        found.append(step)
        if isinstance(step, Expired):
            values += len(step.values)
        if isinstance(step, Swept) or len(found) >= SWEEP_COMMITS or values >= SWEEP_VALUES:
            break
    return found
