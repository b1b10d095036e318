"""Threads that take turns where the simulation says so, and nowhere else.

What the engine gives to `trio.to_thread.run_sync` runs as a greenlet. It goes on until it comes to an operation of
disk or view; there it may go back to the Trio task that started it, which sleeps for as long as it is told (on the
virtual clock) and lets it go on. Everything is one thread of the system, so that the same seed gives the same run, and
still any other task or thread may have its turn between any two operations of this one (docs/adr/0013).

A lock that such a thread holds across an operation may be wanted by another meanwhile. `threading.Lock` would then stop
the only thread there is: `YieldingLock` stands in for it in the modules of LOCKED while `patched` lasts, and lets the
task of whoever waits sleep until the lock is free. The event loop itself cannot sleep: as in a real process, it stands
still while the thread that has the lock goes on.

`patched` also seeds the order in which Trio runs the tasks that can run.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar, cast

import greenlet
import trio
from seeded_turns import seeded_turns

from statehouse.storage import reading, recovery, segments

__all__ = ["SimulatedThread", "Threads", "WorldEnded", "YieldingLock", "current_thread", "patched"]

T = TypeVar("T")

LOCKED: Final = (segments, reading)
"""The modules whose threads hold a lock across an operation."""
REOPEN_BYTES: Final = 2_048
"""In place of VIEW_REOPEN_BYTES: the simulated disks are small."""


class WorldEnded(BaseException):
    """The process that this thread belongs to is no more: no error, and nothing that an engine may catch."""


class SimulatedThread:
    """A function that runs in turns."""

    def __init__(self, role: str, function: Callable[[], Any]) -> None:
        self.role = role
        self.last = ""
        """The operation that it did last."""
        self.waits_for: YieldingLock | None = None
        self.killed = False
        self.finished = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._pause_s = 0.0
        self._greenlet = greenlet.greenlet(self._run)

    def step(self) -> float:
        """One turn: up to the next pause, whose length in seconds this is, or to the end."""
        global _current  # noqa: PLW0603 - there is one thread of the system, and it is in one simulated thread at a time
        _current = self
        try:
            self._greenlet.switch()
        finally:
            _current = None
        return self._pause_s

    def pause(self, seconds: float) -> None:
        """From within: let others have their turns."""
        if not self.killed:
            self._pause_s = seconds
            self._greenlet.parent.switch()
        if self.killed:
            raise WorldEnded

    def kill(self) -> None:
        """Unwind it. What it still does on its way out must find that its world has ended."""
        if self.finished:
            return
        self.killed = True
        if self._greenlet.dead or not self._greenlet:
            self.finished = True
        else:
            self.step()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:  # noqa: BLE001 - as `trio.to_thread`: it is raised where the thread is waited for
            self.error = error
        self.finished = True


_current: SimulatedThread | None = None


def current_thread() -> SimulatedThread | None:
    """The simulated thread that runs, None on the event loop."""
    return _current


class YieldingLock:
    """`threading.Lock`, for simulated threads."""

    def __init__(self) -> None:
        self._held = False
        self._holder: SimulatedThread | None = None
        self._freed: trio.Event | None = None

    def __enter__(self) -> None:
        thread = _current
        while self._held:
            if thread is None:
                self._let_holder_go_on()
            else:
                thread.waits_for = self
                thread.pause(0)
        if thread is not None:
            thread.waits_for = None
        self._held, self._holder = True, thread

    def __exit__(self, *_: object) -> None:
        self._held, self._holder = False, None
        if self._freed is not None:
            self._freed.set()
            self._freed = None

    async def free(self) -> None:
        """Wait until it may be free."""
        if self._held:
            if self._freed is None:
                self._freed = trio.Event()
            await self._freed.wait()

    def _let_holder_go_on(self) -> None:
        holder = self._holder
        while holder is not None and holder.waits_for is not None and holder.waits_for._holder is not None:  # noqa: SLF001
            holder = holder.waits_for._holder  # noqa: SLF001
        if holder is None or holder.finished:
            raise RuntimeError("the event loop waits for a lock that nobody will give back")
        holder.step()


class Threads:
    """What `trio.to_thread.run_sync` is in a world."""

    def __init__(self) -> None:
        self.running: list[SimulatedThread] = []
        self.roles: tuple[str, ...] = ()
        """Of those that run."""
        self.ended = False
        self._shields: list[trio.CancelScope] = []

    async def run_sync(
        self,
        function: Callable[..., T],
        *args: object,
        abandon_on_cancel: bool = False,  # noqa: ARG002 - no thread of the engine below the edge is
        limiter: AbstractAsyncContextManager[object] | None = None,
    ) -> T:
        """As `trio.to_thread.run_sync`: not given up when it is cancelled, unless the whole world ends."""
        await trio.lowlevel.checkpoint_if_cancelled()
        async with nullcontext() if limiter is None else limiter:
            return cast("T", await self._run(function, *args))

    def end(self) -> None:
        """The world has ended: nobody waits any more, not even for what was shielded."""
        self.ended = True
        for shield in self._shields:
            shield.shield = False

    async def _run(self, function: Callable[..., Any], *args: object) -> Any:
        thread = SimulatedThread(_role(function, *args), lambda: function(*args))
        self.running.append(thread)
        self._count()
        with trio.CancelScope(shield=not self.ended) as shield:
            self._shields.append(shield)
            try:
                await _turns(thread)
            finally:
                self._shields.remove(shield)
                thread.kill()
                self.running.remove(thread)
                self._count()
        if isinstance(thread.error, WorldEnded):
            await trio.sleep_forever()
        if thread.error is not None:
            raise thread.error
        return thread.result

    def _count(self) -> None:
        self.roles = tuple(sorted(thread.role for thread in self.running))


def _role(function: Callable[..., Any], *args: object) -> str:
    """What a thread does: the name of the function that it calls in the end."""
    for called in (*args, function):
        if isinstance(called, partial):
            return str(called.func.__name__)
    return function.__name__


async def _turns(thread: SimulatedThread) -> None:
    """All turns of a thread, and what comes between them."""
    while True:
        pause_s = thread.step()
        if thread.finished:
            return
        if thread.waits_for is not None:
            await thread.waits_for.free()
            # Free or not any more, it looks for itself.
        elif pause_s:
            await trio.sleep(pause_s)
        else:
            await trio.lowlevel.checkpoint()
        if thread.finished:  # the event loop has let it go on meanwhile
            return


@contextmanager
def patched(threads: Callable[[], Threads], seed: int) -> Iterator[None]:
    """Have the engine's threads be those that `threads` gives at each start of one, and Trio's order that of a seed."""
    opening: Any = recovery
    locked: list[Any] = [*LOCKED]
    run_sync, reopen_bytes = trio.to_thread.run_sync, opening.VIEW_REOPEN_BYTES
    locks = [module.Lock for module in locked]

    async def in_world(function: Callable[..., T], *args: object, **options: Any) -> T:
        return await threads().run_sync(function, *args, **options)

    setattr(trio.to_thread, "run_sync", in_world)  # noqa: B010 - mypy: a function is assigned to
    opening.VIEW_REOPEN_BYTES = REOPEN_BYTES
    for module in locked:
        module.Lock = YieldingLock
    try:
        with seeded_turns() as seed_turns:
            seed_turns(seed)
            yield
    finally:
        for module, lock in zip(locked, locks, strict=True):
            module.Lock = lock
        opening.VIEW_REOPEN_BYTES = reopen_bytes
        setattr(trio.to_thread, "run_sync", run_sync)  # noqa: B010
