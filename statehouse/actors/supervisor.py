"""What happens after a bug: it is logged with an id, and either one partition begins again or the daemon stops."""

import secrets
from typing import NoReturn

import structlog
import trio

from statehouse.errors import InternalError

__all__ = ["Supervisor"]

log = structlog.stdlib.get_logger(__name__)


class Supervisor:
    """Told of every exception that an actor did not expect."""

    def __init__(self) -> None:
        self._fatal: Exception | None = None
        self._escalated = trio.Event()

    def bug(self, error: Exception, **state: object) -> InternalError:
        """Log an unexpected exception with a summary of the actor's state; what its caller is told instead."""
        error_id = secrets.token_hex(8)
        log.error("internal error", error_id=error_id, exc_info=error, **state)
        return InternalError(f"internal error {error_id}", details={"error_id": error_id})

    def escalate(self, error: Exception) -> None:
        """Stop the engine with this error: what has gone wrong cannot be mended by starting one actor again."""
        self._fatal = self._fatal or error
        self._escalated.set()

    async def run(self) -> NoReturn:
        """Wait for an escalation, and raise it."""
        await self._escalated.wait()
        raise self._fatal or RuntimeError("escalated without an error")
