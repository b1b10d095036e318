"""Blocking work that is done beside the commits, one run at a time: snapshots, and the log's next segment."""

from collections.abc import Callable

import structlog
import trio

from statehouse.errors import StorageError
from statehouse.limits import BACKGROUND_RETRY_S

__all__ = ["Background"]

log = structlog.stdlib.get_logger(__name__)


class Background:
    """Runs `work` in a worker thread whenever `due` says so, asked at each `poke`.

    What the disk refuses (OSError, StorageError) is logged, and tried again later: nothing depends on it now.
    """

    def __init__(self, name: str, *, due: Callable[[], bool], work: Callable[[], None]) -> None:
        self._name = name
        self._due = due
        self._work = work
        self._poked = trio.Event()
        self._thread = trio.CapacityLimiter(1)

    def poke(self) -> None:
        """Look whether there is work; cheap."""
        if not self._poked.is_set() and self._due():
            self._poked.set()

    async def run(self) -> None:
        """The task. Cancelling it waits for the run under way: a thread cannot be stopped halfway."""
        while True:
            await self._poked.wait()
            try:
                await trio.to_thread.run_sync(self._work, limiter=self._thread)
            except (OSError, StorageError) as error:
                log.warning("background work failed", work=self._name, reason=str(error), retry_in_s=BACKGROUND_RETRY_S)
                await trio.sleep(BACKGROUND_RETRY_S)
            self._poked = trio.Event()
            self.poke()
