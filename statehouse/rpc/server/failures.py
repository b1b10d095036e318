"""What becomes of an exception that a call raised: what its client is told, and what only the log is told.

An error that is meant for clients goes out as it is. Anything else is a bug, or names what is nobody's
business outside (a file, an offset): the client gets the message `internal error <id>`, and the log has the
same id beside the whole of it.
"""

import secrets
from collections.abc import Callable
from typing import Final

import structlog

from statehouse.errors import (
    DiskFullError,
    InternalError,
    InvalidRequestError,
    LogPoisonedError,
    OverloadedError,
    StatehouseError,
    UnavailableError,
)
from statehouse.limits import ANSWER_STALL_S
from statehouse.rpc.error_table import EncodedError, GrpcStatus, encode_error, row_of

__all__ = ["answer_stalled", "deadline_passed", "encode_failure", "goodbye", "request_overdue", "shutting_down"]

log = structlog.stdlib.get_logger(__name__)


# Said instead of a message that was made from the operating system's, which may name a file.
_WITHOUT_FILES: Final[dict[type[StatehouseError], str]] = {
    DiskFullError: "there is no room for the commit; nothing of it was done",
    LogPoisonedError: "a write or sync of the log failed; no commit is taken until the daemon is started again",
}


def _new_error_id() -> str:
    return secrets.token_hex(8)


def encode_failure(error: Exception, call: str, new_error_id: Callable[[], str] = _new_error_id) -> EncodedError:
    """The wire form of what `call` (the name of a method) raised; logs what the client must not see."""
    status = None
    if isinstance(error, StatehouseError):
        row = row_of(error)
        if row.public and isinstance(error.__cause__, OSError) and row.error in _WITHOUT_FILES:
            log.warning("call failed", call=call, error=error.message)
            return encode_error(row.error(_WITHOUT_FILES[row.error], code=error.code))
        if row.public:
            return encode_error(error)
        status = row.status
    error_id = new_error_id()
    log.error("call failed", call=call, error_id=error_id, exc_info=error)
    code = error.code if isinstance(error, StatehouseError) else None
    message = InternalError(f"internal error {error_id}", code=code, details={"error_id": error_id})
    return encode_error(message, status=status)


def deadline_passed() -> EncodedError:
    """For a call that took longer than the `grpc-timeout` its client had set."""
    message = "the call's deadline has passed; its outcome is unknown"
    return encode_error(StatehouseError(message), status=GrpcStatus.DEADLINE_EXCEEDED)


def request_overdue(limit_s: float) -> EncodedError:
    """For a call whose request did not come in."""
    message = f"the request did not come in within {limit_s:g} s; nothing was done"
    return encode_error(InvalidRequestError(message), status=GrpcStatus.DEADLINE_EXCEEDED)


def answer_stalled() -> EncodedError:
    """For a call whose client does not read its answer, or lets it not begin, when others needed the memory."""
    message = f"nothing of the answer was read for {ANSWER_STALL_S:g} s, and others need room: read on, or ask for less"
    return encode_error(OverloadedError(message))


def goodbye() -> UnavailableError:
    """For streams that would go on for ever, when their connection is to end."""
    return UnavailableError("the connection ends: connect again, and go on behind the last event")


def shutting_down() -> UnavailableError:
    """For calls that come while the daemon stops, and those that its grace time was too short for."""
    return UnavailableError("the daemon is shutting down")
