"""The order in which Trio runs the tasks that are ready, drawn from a seed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio

__all__ = ["seeded_turns"]


@contextmanager
def seeded_turns() -> Iterator[Callable[[int], None]]:
    """For the time of the block; gives what seeds the order. After it, Trio draws on from where it was before."""
    # Private, and what pytest-trio and Hypothesis rely on to make Trio repeat itself.
    scheduler: Any = trio._core._run  # noqa: SLF001
    state = scheduler._r.getstate()  # noqa: SLF001
    with patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True):
        try:
            yield scheduler._r.seed  # noqa: SLF001
        finally:
            scheduler._r.setstate(state)  # noqa: SLF001
