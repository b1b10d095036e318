"""Makes what happens in this process depend on the seed alone: the same turns, in the same order, every time.

Two things about an engine are left to chance on purpose: which of the tasks that are ready Trio runs first, and when a
worker thread is done. Neither changes what a commit means, but both change which commits share a group, and with that
the bytes of the log. Here the first is drawn from the seed, and the second does not happen: what belongs in a thread is
a turn of the event loop.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio
from seeded_turns import seeded_turns

__all__ = ["same_turns"]


@contextmanager
def same_turns() -> Iterator[Callable[[int], None]]:
    """For the time of the block; gives what seeds the order of turns."""
    with patch.object(trio.to_thread, "run_sync", _in_this_turn), seeded_turns() as seed_turns:
        yield seed_turns


async def _in_this_turn(function: Callable[..., Any], *args: Any, limiter: object = None) -> Any:  # noqa: ARG001
    await trio.lowlevel.checkpoint()
    return function(*args)
