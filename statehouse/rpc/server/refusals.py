"""Who was turned away, counted by reason, and the line in the log about it.

Whoever is turned away may come again at once, and a line each time would let strangers fill the disk. So everything
is counted, and logged now and then, with the numbers and the latest case of each kind.
"""

from collections import Counter
from enum import StrEnum
from typing import Final

import structlog
from attrs import define, field

from statehouse.errors import PermissionDeniedError, StatehouseError, UnauthenticatedError

__all__ = ["LOGGED_S", "Refusal", "Refusals"]

LOGGED_S: Final = 10.0
"""Refusals are logged at most this often."""

log = structlog.stdlib.get_logger(__name__)


class Refusal(StrEnum):
    """Why somebody was turned away."""

    UNAUTHENTICATED = "unauthenticated"
    """A call without a token, or with one that is not known."""
    PERMISSION_DENIED = "permission_denied"
    """A call that its token does not allow."""
    TOO_MANY_CALLS = "too_many_calls"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    FAILED_HANDSHAKE = "failed_handshake"
    """No TLS, or none that we take."""
    BROKE_HTTP2 = "broke_http2"
    """The connection was ended for what its peer sent."""


_OF_ERRORS: Final[dict[type[StatehouseError], Refusal]] = {
    UnauthenticatedError: Refusal.UNAUTHENTICATED,
    PermissionDeniedError: Refusal.PERMISSION_DENIED,
}


@define(eq=False)
class Refusals:
    """The refusals since the server began. Times are in seconds, on any clock that does not go back."""

    counts: Counter[Refusal] = field(factory=Counter)
    _logged: Counter[Refusal] = field(factory=Counter, init=False)
    _next_log: float = field(default=float("-inf"), init=False)
    _latest: dict[Refusal, str] = field(factory=dict, init=False)

    def note(self, refusal: Refusal, why: str, *, peer: str, now: float) -> None:
        """Count one, of `peer` (its address or name).

        It is logged at once when the last line is LOGGED_S old; what comes sooner waits for the next `note` or
        `log_due` after that.
        """
        self.counts[refusal] += 1
        self._latest[refusal] = f"{peer}: {why}"
        self.log_due(now)

    def note_error(self, error: StatehouseError, *, peer: str, now: float) -> None:
        """Count a call's error, if it is a refusal."""
        refusal = _OF_ERRORS.get(type(error))
        if refusal is not None:
            self.note(refusal, error.message, peer=peer, now=now)

    def log_due(self, now: float) -> None:
        """Log what is not yet logged, when there is something and it is time. At the end: `now` infinite."""
        if self.counts == self._logged or now < self._next_log:
            return
        log.warning(
            "turned away",
            **{str(each): count for each, count in (self.counts - self._logged).items()},
            latest=self._latest,
        )
        self._logged = self.counts.copy()
        self._latest = {}
        self._next_log = now + LOGGED_S
