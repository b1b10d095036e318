"""Every error that Statehouse raises, in the daemon and in the client: one root, one flat family.

Each class says whose fault it is and whether trying again can help. Which gRPC status and error code an
error has on the wire stands in one table, `statehouse/rpc/error_table.py`, and nowhere else.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import ClassVar, Final

from attrs import frozen

__all__ = [
    "AddressError",
    "AgentDeletedError",
    "AgentExistsError",
    "ConfigError",
    "ConflictError",
    "ConnectionError",
    "DataDirectoryError",
    "DataDirectoryHeldError",
    "DiskFullError",
    "ErrorCode",
    "FailedPrecondition",
    "InternalError",
    "InvalidRequestError",
    "LeaseError",
    "LogPoisonedError",
    "NewerFormatError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "StartError",
    "StatehouseError",
    "StorageError",
    "StoreDamagedError",
    "TransactionError",
    "UnauthenticatedError",
    "UnavailableError",
]


class ErrorCode(IntEnum):
    """The codes of `statehouse.v1.ErrorCode`, for code that must not know protobuf."""

    UNKNOWN = 0
    INVALID_REQUEST = 1
    TXN_NOT_FOUND = 2
    TXN_EXPIRED = 3
    TXN_ALREADY_COMMITTED = 4
    KEY_NOT_FOUND = 5
    VERSION_NOT_FOUND = 6
    STORAGE_ERROR = 7
    INTERNAL_ERROR = 8
    PRECONDITION_FAILED = 100
    UNAUTHENTICATED = 101
    PERMISSION_DENIED = 102
    LEASE_NOT_HELD = 103
    IDEMPOTENCY_KEY_REUSED = 104
    AGENT_NOT_FOUND = 105
    AGENT_EXISTS = 106
    AGENT_DELETED = 107


class StatehouseError(Exception):
    """The root of the family.

    `code` says what happened, `retryable` whether the same call may succeed later as it is, `details`
    holds short machine-readable facts (`commit_ts` of a transaction that was already committed, `limit`
    and `size` of a request over a limit).
    """

    default_code: ClassVar[ErrorCode] = ErrorCode.UNKNOWN
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, code: ErrorCode | None = None, details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.details: dict[str, str] = dict(details or {})


class InvalidRequestError(StatehouseError):
    """The caller's fault: the request is malformed or over a limit. Nothing was changed."""

    default_code = ErrorCode.INVALID_REQUEST


class TransactionError(StatehouseError):
    """The caller's fault, or its lateness: the transaction is unknown, expired or already ended."""

    default_code = ErrorCode.TXN_NOT_FOUND


@frozen
class FailedPrecondition:
    """What was found where a precondition did not hold. Only what the precondition is about is filled in."""

    index: int
    """Its place among the preconditions of the commit, from 0."""
    version: int = 0
    exists: bool = False
    agent_commit_ts: int = 0
    lease_epoch: int = 0
    lease_held: bool = False


class ConflictError(TransactionError):
    """The commit's preconditions did not hold: somebody else was there before. Nothing was done.

    `failed` has every one that did not hold, in the order of their `index`, with what was found. Read again, decide
    again, commit again: `update` of the clients does.
    """

    default_code = ErrorCode.PRECONDITION_FAILED

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        details: Mapping[str, str] | None = None,
        failed: Sequence[FailedPrecondition] = (),
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.failed: Final = tuple(failed)


class LeaseError(TransactionError):
    """The lease is another's, or, to be renewed or released, not this one any more.

    `details` has the `epoch` and the `holder` of the newest.
    """

    default_code = ErrorCode.LEASE_NOT_HELD


class AgentDeletedError(TransactionError):
    """The agent was deleted, and the commit writes to it without saying that it is to live again. Nothing was done.

    A precondition on the agent says so, and so does `revive`. `details` has the `commit_ts` of the agent's end.
    """

    default_code = ErrorCode.AGENT_DELETED


class AgentExistsError(StatehouseError):
    """The fork's name is taken by an agent that was written to, or forked, before. Nothing was done."""

    default_code = ErrorCode.AGENT_EXISTS


class NotFoundError(StatehouseError):
    """What was asked for is not there: the agent to fork or to delete, or the service of a health check.

    A key or version that is not there is an answer, and no error of this daemon.
    """

    default_code = ErrorCode.KEY_NOT_FOUND


class UnauthenticatedError(StatehouseError):
    """The caller's to mend: the daemon asks for a token, and none came that it knows. Nothing was done."""

    default_code = ErrorCode.UNAUTHENTICATED


class PermissionDeniedError(StatehouseError):
    """The caller's token is known and does not allow this: its role, or the agents it is bound to. Nothing was done.

    It is decided before anything is looked up, so it says nothing about what exists.
    """

    default_code = ErrorCode.PERMISSION_DENIED


class OverloadedError(StatehouseError):
    """Nobody's fault: a limit that protects the daemon is reached. Nothing was changed; try again later."""

    default_code = ErrorCode.INVALID_REQUEST
    retryable = True


class StorageError(StatehouseError):
    """The disk's fault: what was asked could not be read or written."""

    default_code = ErrorCode.STORAGE_ERROR


class DiskFullError(StorageError):
    """There is no room for the commit (the disk, or the limit on the log). It did not happen."""

    retryable = True


class LogPoisonedError(StorageError):
    """A write or sync of the log failed. No commit is accepted until the daemon is started again.

    For the commits that were in the failed sync the outcome is unknown until then (`outcome_unknown`); any other
    has not happened.
    """

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        details: Mapping[str, str] | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.outcome_unknown = outcome_unknown


class StoreDamagedError(StorageError):
    """The store is damaged in a way that must not be skipped; the message names file, offset and commit_ts."""


class NewerFormatError(StoreDamagedError):
    """Nothing is damaged, but the store was written by a newer Statehouse, and this one must not touch it."""


class UnavailableError(StatehouseError):
    """The daemon is starting or stopping."""

    default_code = ErrorCode.INTERNAL_ERROR
    retryable = True


class InternalError(StatehouseError):
    """A bug in Statehouse. The message carries an id under which the daemon's log has the details."""

    default_code = ErrorCode.INTERNAL_ERROR


class StartError(StatehouseError):
    """The operator's to mend: the daemon cannot start as it was asked to. Never travels to a client."""


class ConfigError(StartError):
    """A setting is unknown or its value is bad; the message names it, where it came from and the accepted form."""


class DataDirectoryError(StartError):
    """The data directory cannot be used: it is a file, not writable, not ours, or its disk is too full."""


class DataDirectoryHeldError(StartError):
    """Another daemon holds the data directory; the message has its pid."""


class AddressError(StartError):
    """The address to listen on is taken, not allowed, or not one of this machine's."""


class ConnectionError(StatehouseError):
    """The daemon cannot be reached, went away, or cannot serve. Not the builtin of the same name.

    For a commit in flight the outcome is unknown: committing the same transaction again tells it.
    """

    default_code = ErrorCode.UNKNOWN
    retryable = True
