"""What an engine says for itself: its log, what its recovery reports, and its exceptions in a line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from simulation.world import World
from statehouse.errors import StorageError
from statehouse.storage.recovery import RecoveryReporter

__all__ = ["Reporter", "first_of", "silent", "told"]


class Reporter(RecoveryReporter):
    """Counts what recovery says, and puts it into the trace."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cuts = 0

    def tail_cut(self, cut: object) -> None:
        self.cuts += 1
        self._world.say(f"{cut}")

    def view_set_aside(self, reason: str, where: str | None) -> None:
        self._world.coverage.counts["views and snapshots passed over"] += 1
        self._world.say(f"passed over: {reason}; moved to {where}")


@contextmanager
def silent(complaints: list[str]) -> Iterator[None]:
    """The engine's log: nothing of it is shown, and its errors are complaints, because a bug is what it logs as one."""

    def keep(_: object, method: str, event: Any) -> Any:
        if method in {"error", "critical", "exception"}:
            complaints.append(f"the engine's log: {told(event.get('exc_info')) or event.get('event')}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(40), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def first_of(group: BaseExceptionGroup[Any]) -> StorageError:
    """The error in a group in which all are of one kind."""
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    found: StorageError = error
    return found


def told(error: object) -> str:
    """An exception in one line, with where it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, BaseException):
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    where = "; ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-4:])
    return f"{type(error).__name__}: {error} ({where})"
