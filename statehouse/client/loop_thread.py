"""A Trio event loop in a thread of its own, for the sync client: started when first needed, shared by threads.

The loop runs one `AsyncStatehouse` and anyio's blocking portal into it. It ends by `close`, when its
`LoopThread` is dropped, and with the interpreter: the thread is a daemon thread, so a client that was never
closed keeps no program alive. In the child of a fork, where the thread does not exist, a new one is started;
the parent's connection is left alone.
"""

import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import NamedTuple, TypeVar, TypeVarTuple

import anyio
import trio
from anyio.from_thread import BlockingPortal

from statehouse.client.async_client import AsyncStatehouse
from statehouse.errors import ConnectionError

__all__ = ["LoopThread"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Running(NamedTuple):
    portal: BlockingPortal
    token: trio.lowlevel.TrioToken
    stop: trio.Event
    thread: threading.Thread


class LoopThread:
    """The loop in which `client` lives. Every method may be called from any thread."""

    def __init__(self, client: AsyncStatehouse) -> None:
        self._client = client
        self._closed = False
        self._running: _Running | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Call an async function in the loop and wait for it. KeyboardInterrupt here cancels it there."""
        self._leave_to_the_parent()
        with self._lock:
            if self._closed:
                raise ConnectionError("the client is closed")
            running = self._running
            if running is None:
                running = self._running = _start(self._client)
                weakref.finalize(self, _stop, running, self._pid)
        try:
            future = running.portal.start_task_soon(function, *args)
        except RuntimeError as error:  # closed by another thread just now
            raise ConnectionError("the client is closed") from error
        try:
            return future.result()
        except CancelledError:
            raise ConnectionError("the client was closed") from None
        finally:
            future.cancel()  # changes nothing unless waiting for it was interrupted

    def close(self) -> None:
        """End the loop; calls in flight fail with ConnectionError. Idempotent."""
        self._leave_to_the_parent()
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            _stop(running, self._pid)
            running.thread.join()

    def _leave_to_the_parent(self) -> None:
        """In the child of a fork: the loop, its connection and whoever holds the lock exist in the parent only."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._running = None
            self._client.forget_connection()


def _start(client: AsyncStatehouse) -> _Running:
    started: Future[tuple[BlockingPortal, trio.lowlevel.TrioToken, trio.Event]] = Future()
    thread = threading.Thread(target=_run_loop, args=(client, started), name="statehouse-client", daemon=True)
    thread.start()
    return _Running(*started.result(), thread)


def _run_loop(
    client: AsyncStatehouse, started: Future[tuple[BlockingPortal, trio.lowlevel.TrioToken, trio.Event]]
) -> None:
    async def main() -> None:
        stop = trio.Event()
        async with client, BlockingPortal() as portal:
            started.set_result((portal, trio.lowlevel.current_trio_token(), stop))
            await stop.wait()
            await client.close()  # so that the calls in flight end, for the portal waits for them

    try:
        anyio.run(main, backend="trio")
    except Exception as error:  # told to the caller, unless the loop had started
        if started.done():
            raise
        started.set_exception(error)


def _stop(running: _Running, pid: int) -> None:
    """Ask the loop to end. Never waits: the garbage collector may call it, in any thread, also the loop's."""
    if os.getpid() == pid:
        with suppress(trio.RunFinishedError):
            running.token.run_sync_soon(running.stop.set)
