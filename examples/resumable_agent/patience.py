"""How long to go on trying when a daemon does not answer, and how often: doubling waits up to a bound."""

import time
from collections.abc import Callable
from typing import Final

from statehouse.errors import StatehouseError

__all__ = ["Patience"]

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0


class Patience:
    """For one thing that is to be done: from its first failure on, at most `patience_s` seconds."""

    def __init__(self, patience_s: float, say: Callable[[str], None]) -> None:
        self._patience_s = patience_s
        self._say = say
        self._wait_s = FIRST_WAIT_S
        self._lost_s: float | None = None

    def wait(self, error: StatehouseError) -> None:
        """Wait before the next try; when that is over the bound, or cannot help, raise the error."""
        now_s = time.monotonic()
        if self._lost_s is None:
            self._lost_s = now_s
            self._say(f"no answer ({error.message}); trying again for up to {self._patience_s:g} s")
        if now_s + self._wait_s - self._lost_s > self._patience_s:
            raise error
        time.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def rewarded(self) -> None:
        """It is done."""
        if self._lost_s is not None:
            self._say(f"the daemon answers again, after {time.monotonic() - self._lost_s:.1f} s")
            self._lost_s = None
