"""Verification of the store that is served: in a worker thread, a little at a time, beside the commits.

A chunk of work takes about CHUNK_S. While others commit, every chunk is followed by a pause as long as it took, and
within it the interpreter's lock is given up at each step: a verification takes its time, and the commits do not. With
nobody else there, it has no pauses.

One verification runs at a time: it reads the whole store, and keeps the rows alive that the view had when it began.
So one of which nothing is taken for STALL_S is ended: whoever asked for it and does not read keeps nobody else out.
"""

import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from typing import Final

import trio
from attrs import define

from statehouse.errors import InvalidRequestError, OverloadedError, StorageError
from statehouse.findings import Head, VerifyEvent
from statehouse.storage.verification import StoreMoment, Verification
from statehouse.storage.view import ViewClosedError, ViewError

__all__ = ["Verifying"]

CHUNK_S: Final = 0.02
CHUNK_EVENTS: Final = 64
GIVE_WAY_S: Final = 0.000_1
"""How long a step lets the lock go: so that who waits for it has it, and not the same thread again."""
STALL_S: Final = 60.0
"""Of a verification that has something to tell, something must be taken within this time."""


@define(eq=False)
class _Run:
    """A verification that is under way. `steps` is not being worked on while `is_offered`."""

    moment: StoreMoment | None = None
    steps: Generator[VerifyEvent | None, None, None] | None = None
    is_offered: bool = False

    def close(self) -> None:
        if self.steps is not None:
            self.steps.close()  # and with it the file that it reads
        if self.moment is not None and self.moment.view is not None:
            self.moment.view.close()


class Verifying:
    """Runs the verifications of one store. `moment` blocks; `newest_ts` grows with each commit."""

    def __init__(self, moment: Callable[[], StoreMoment], newest_ts: Callable[[], int]) -> None:
        self._moment = moment
        self._newest_ts = newest_ts
        self._thread = trio.CapacityLimiter(1)
        self._run: _Run | None = None
        self._patience = trio.CancelScope()

    async def run(self) -> None:
        """The task: ends verifications of which nothing is taken."""
        while True:
            with trio.CancelScope() as self._patience:
                await trio.sleep_forever()
            run = self._run
            if run is not None and run.is_offered:
                self._run = None
                run.close()

    async def events(self, heads: Iterable[Head]) -> AsyncGenerator[list[VerifyEvent], None]:
        """Verify; gives lists of what there is to tell, the verdict last. Cancelling waits for the chunk under way.

        OverloadedError: another is under way, the view was opened anew meanwhile, or nothing was taken for STALL_S.
        InvalidRequestError: bad heads. StorageError: the disk refused.
        """
        if self._run is not None:
            raise OverloadedError("a verification is under way, and one runs at a time")
        run = self._run = _Run()
        try:
            run.moment = await trio.to_thread.run_sync(self._moment, limiter=self._thread)
            run.steps = await trio.to_thread.run_sync(_steps, run.moment, heads, limiter=self._thread)
            over = gently = False
            while not over:
                newest_ts = self._newest_ts()
                began_s = time.monotonic()
                events, over = await trio.to_thread.run_sync(_chunk, run.steps, gently, limiter=self._thread)
                worked_s = time.monotonic() - began_s
                if events:
                    self._offer(run)
                    yield events
                    self._taken(run)
                gently = self._newest_ts() != newest_ts
                if gently:
                    await trio.sleep(worked_s)
        finally:
            if self._run is run:
                self._run = None
                self._patience.deadline = math.inf
            run.close()

    def _offer(self, run: _Run) -> None:
        run.is_offered = True
        self._patience.deadline = trio.current_time() + STALL_S

    def _taken(self, run: _Run) -> None:
        run.is_offered = False
        if self._run is not run:
            raise OverloadedError(f"nothing of the verification was taken for {STALL_S:.0f} seconds, and it was ended")
        self._patience.deadline = math.inf


def _steps(moment: StoreMoment, heads: Iterable[Head]) -> Generator[VerifyEvent | None, None, None]:
    try:
        verification = Verification(moment, heads)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    except OSError as error:
        raise StorageError(f"the store cannot be verified: {error}") from error
    return verification.events()


def _chunk(steps: Iterator[VerifyEvent | None], gently: bool) -> tuple[list[VerifyEvent], bool]:  # noqa: FBT001 - a call
    """What a chunk of work gives, and whether it was the last."""
    events: list[VerifyEvent] = []
    end_s = time.monotonic() + CHUNK_S
    try:
        for event in steps:
            if event is not None:
                events.append(event)
            elif gently:
                time.sleep(GIVE_WAY_S)
            if time.monotonic() >= end_s or len(events) >= CHUNK_EVENTS:
                return events, False
    except ViewClosedError as error:
        raise OverloadedError("the view was opened anew meanwhile: verify again") from error
    except (ViewError, OSError) as error:
        raise StorageError(f"the store cannot be verified: {error}") from error
    return events, True
