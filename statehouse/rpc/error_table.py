"""The one table between our errors and the wire: class and `ErrorCode` on one side, gRPC status on the other.

The daemon encodes with it, the clients decode with it; nobody else maps a status. A failed call carries the
status, a short message, and a serialized `statehouse.v1.StatehouseError` in the trailer
`statehouse-error-bin`.

Decoding is not the inverse in one respect, and on purpose: whatever comes as UNAVAILABLE is a
`ConnectionError`, whoever sent it, because its caller has one thing to do about it. A failure without a
trailer (a proxy's, a library's, an older daemon's) decodes by its status alone, with `ErrorCode.UNKNOWN`
where the status leaves the code open.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from attrs import asdict, frozen
from google.protobuf.message import DecodeError

from statehouse.errors import (
    AgentDeletedError,
    AgentExistsError,
    ConflictError,
    ConnectionError,
    DiskFullError,
    ErrorCode,
    FailedPrecondition,
    InternalError,
    InvalidRequestError,
    LeaseError,
    LogPoisonedError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    StatehouseError,
    StorageError,
    StoreDamagedError,
    TransactionError,
    UnauthenticatedError,
    UnavailableError,
)
from statehouse.v1 import statehouse_pb2

__all__ = ["TABLE", "TRAILER_NAME", "EncodedError", "GrpcStatus", "Row", "decode_error", "encode_error", "row_of"]

TRAILER_NAME: Final = "statehouse-error-bin"

MESSAGE_BYTES: Final = 768
DETAIL_ENTRIES: Final = 8
DETAIL_BYTES: Final = 128
"""Of a detail's name or value. With these, the trailers stay below the 8 KiB that gRPC peers accept."""


class GrpcStatus(IntEnum):
    """The status codes of gRPC: https://grpc.io/docs/guides/status-codes/."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@frozen
class Row:
    """One pairing. A message that is not `public` may name files and is kept from clients."""

    error: type[StatehouseError]
    code: ErrorCode
    status: GrpcStatus
    public: bool = True


# A class's first row serves it under any code that it has no row for.
TABLE: Final = (
    Row(InvalidRequestError, ErrorCode.INVALID_REQUEST, GrpcStatus.INVALID_ARGUMENT),
    Row(InvalidRequestError, ErrorCode.IDEMPOTENCY_KEY_REUSED, GrpcStatus.INVALID_ARGUMENT),
    Row(TransactionError, ErrorCode.TXN_NOT_FOUND, GrpcStatus.NOT_FOUND),
    Row(TransactionError, ErrorCode.TXN_EXPIRED, GrpcStatus.DEADLINE_EXCEEDED),
    Row(TransactionError, ErrorCode.TXN_ALREADY_COMMITTED, GrpcStatus.FAILED_PRECONDITION),
    Row(ConflictError, ErrorCode.PRECONDITION_FAILED, GrpcStatus.ABORTED),
    Row(LeaseError, ErrorCode.LEASE_NOT_HELD, GrpcStatus.FAILED_PRECONDITION),
    Row(AgentDeletedError, ErrorCode.AGENT_DELETED, GrpcStatus.FAILED_PRECONDITION),
    Row(AgentExistsError, ErrorCode.AGENT_EXISTS, GrpcStatus.ALREADY_EXISTS),
    Row(NotFoundError, ErrorCode.KEY_NOT_FOUND, GrpcStatus.NOT_FOUND),
    Row(NotFoundError, ErrorCode.VERSION_NOT_FOUND, GrpcStatus.NOT_FOUND),
    Row(NotFoundError, ErrorCode.AGENT_NOT_FOUND, GrpcStatus.NOT_FOUND),
    Row(UnauthenticatedError, ErrorCode.UNAUTHENTICATED, GrpcStatus.UNAUTHENTICATED),
    Row(PermissionDeniedError, ErrorCode.PERMISSION_DENIED, GrpcStatus.PERMISSION_DENIED),
    Row(OverloadedError, ErrorCode.INVALID_REQUEST, GrpcStatus.RESOURCE_EXHAUSTED),
    Row(DiskFullError, ErrorCode.STORAGE_ERROR, GrpcStatus.RESOURCE_EXHAUSTED),
    Row(LogPoisonedError, ErrorCode.STORAGE_ERROR, GrpcStatus.UNAVAILABLE),
    Row(StoreDamagedError, ErrorCode.STORAGE_ERROR, GrpcStatus.DATA_LOSS, public=False),
    Row(StorageError, ErrorCode.STORAGE_ERROR, GrpcStatus.INTERNAL, public=False),
    Row(UnavailableError, ErrorCode.INTERNAL_ERROR, GrpcStatus.UNAVAILABLE),
    Row(InternalError, ErrorCode.INTERNAL_ERROR, GrpcStatus.INTERNAL),
    Row(ConnectionError, ErrorCode.UNKNOWN, GrpcStatus.UNAVAILABLE),
    Row(StatehouseError, ErrorCode.UNKNOWN, GrpcStatus.UNKNOWN, public=False),
)

# What a status means when no trailer explains it.
_BARE: Final[Mapping[int, tuple[type[StatehouseError], ErrorCode]]] = {
    # A call that was cut short, by its deadline or by the other side, has an unknown outcome: the same
    # thing to its caller as a connection that was lost.
    GrpcStatus.CANCELLED: (ConnectionError, ErrorCode.UNKNOWN),
    GrpcStatus.DEADLINE_EXCEEDED: (ConnectionError, ErrorCode.UNKNOWN),
    GrpcStatus.UNAVAILABLE: (ConnectionError, ErrorCode.UNKNOWN),
    GrpcStatus.INVALID_ARGUMENT: (InvalidRequestError, ErrorCode.INVALID_REQUEST),
    GrpcStatus.OUT_OF_RANGE: (InvalidRequestError, ErrorCode.INVALID_REQUEST),
    GrpcStatus.UNIMPLEMENTED: (InvalidRequestError, ErrorCode.INVALID_REQUEST),
    GrpcStatus.NOT_FOUND: (NotFoundError, ErrorCode.UNKNOWN),
    GrpcStatus.FAILED_PRECONDITION: (TransactionError, ErrorCode.UNKNOWN),
    GrpcStatus.ABORTED: (TransactionError, ErrorCode.UNKNOWN),
    GrpcStatus.RESOURCE_EXHAUSTED: (OverloadedError, ErrorCode.UNKNOWN),
    GrpcStatus.INTERNAL: (InternalError, ErrorCode.INTERNAL_ERROR),
    GrpcStatus.DATA_LOSS: (StorageError, ErrorCode.STORAGE_ERROR),
    GrpcStatus.UNAUTHENTICATED: (UnauthenticatedError, ErrorCode.UNAUTHENTICATED),
    GrpcStatus.PERMISSION_DENIED: (PermissionDeniedError, ErrorCode.PERMISSION_DENIED),
}

# What a code means under a status that no row pairs it with.
_BY_CODE: Final[Mapping[ErrorCode, type[StatehouseError]]] = {
    ErrorCode.INVALID_REQUEST: InvalidRequestError,
    ErrorCode.TXN_NOT_FOUND: TransactionError,
    ErrorCode.TXN_EXPIRED: TransactionError,
    ErrorCode.TXN_ALREADY_COMMITTED: TransactionError,
    ErrorCode.KEY_NOT_FOUND: NotFoundError,
    ErrorCode.VERSION_NOT_FOUND: NotFoundError,
    ErrorCode.STORAGE_ERROR: StorageError,
    ErrorCode.INTERNAL_ERROR: InternalError,
    ErrorCode.UNAUTHENTICATED: UnauthenticatedError,
    ErrorCode.PERMISSION_DENIED: PermissionDeniedError,
    ErrorCode.PRECONDITION_FAILED: ConflictError,
    ErrorCode.LEASE_NOT_HELD: LeaseError,
    ErrorCode.IDEMPOTENCY_KEY_REUSED: InvalidRequestError,
    ErrorCode.AGENT_NOT_FOUND: NotFoundError,
    ErrorCode.AGENT_EXISTS: AgentExistsError,
    ErrorCode.AGENT_DELETED: AgentDeletedError,
}


@frozen
class EncodedError:
    """A failed call as it goes on the wire. `message` is plain text; `trailer` is the serialized detail."""

    status: GrpcStatus
    message: str
    trailer: bytes


def row_of(error: StatehouseError) -> Row:
    """The row that decides how `error` travels: that of its class and code, else of its nearest class."""
    for parent in type(error).__mro__:
        rows = [row for row in TABLE if row.error is parent]
        if rows:
            return next((row for row in rows if row.code == error.code), rows[0])
    raise TypeError(f"{type(error).__name__} is no StatehouseError")


def encode_error(error: StatehouseError, *, status: GrpcStatus | None = None) -> EncodedError:
    """Put an error into its wire form; `status` overrides the table's, for what only the transport knows.

    The error's message and details go out as they are, cut to MESSAGE_BYTES and DETAIL_BYTES: whether they
    are fit for a client is decided before (`Row.public`).
    """
    message = _cut(error.message, MESSAGE_BYTES)
    details = {
        _cut(name, DETAIL_BYTES): _cut(value, DETAIL_BYTES)
        for name, value in list(error.details.items())[:DETAIL_ENTRIES]
    }
    detail = statehouse_pb2.StatehouseError(code=int(error.code), message=message, details=details)  # type: ignore[arg-type]
    if isinstance(error, ConflictError):
        detail.failed_preconditions.extend(
            statehouse_pb2.FailedPrecondition(**asdict(failed)) for failed in error.failed
        )
    return EncodedError(row_of(error).status if status is None else status, message, detail.SerializeToString())


def decode_error(status: int, message: str, trailer: bytes | None) -> StatehouseError:
    """The error that a failed call stands for.

    `status` is the number in `grpc-status` (any integer), `message` the decoded `grpc-message`, `trailer`
    the decoded `statehouse-error-bin`, or None. A trailer that does not parse counts as none. Never raises.
    """
    code, details = ErrorCode.UNKNOWN, dict[str, str]()
    failed: list[FailedPrecondition] = []
    if trailer is not None:
        try:
            detail = statehouse_pb2.StatehouseError.FromString(trailer)
        except DecodeError:
            pass
        else:
            message, details = detail.message or message, dict(detail.details)
            code = _known_code(int(detail.code))
            failed = [_failed_precondition(each) for each in detail.failed_preconditions]
    error, bare_code = _class_of(status, code)
    message = message or f"the call failed with gRPC status {_status_name(status)}"
    code = bare_code if code is ErrorCode.UNKNOWN else code
    if error is ConflictError:
        return ConflictError(message, code=code, details=details, failed=failed)
    return error(message, code=code, details=details)


def _failed_precondition(failed: statehouse_pb2.FailedPrecondition) -> FailedPrecondition:
    return FailedPrecondition(
        failed.index, failed.version, failed.exists, failed.agent_commit_ts, failed.lease_epoch, failed.lease_held
    )


def _class_of(status: int, code: ErrorCode) -> tuple[type[StatehouseError], ErrorCode]:
    if status == GrpcStatus.UNAVAILABLE:
        return ConnectionError, ErrorCode.UNKNOWN
    if code is not ErrorCode.UNKNOWN:
        for row in TABLE:
            if row.status == status and row.code == code:
                return row.error, code
        return _BY_CODE[code], code
    return _BARE.get(status, (StatehouseError, ErrorCode.UNKNOWN))


def _known_code(number: int) -> ErrorCode:
    """A code that a newer daemon may have added is UNKNOWN here; its status still says what it amounts to."""
    try:
        return ErrorCode(number)
    except ValueError:
        return ErrorCode.UNKNOWN


def _status_name(status: int) -> str:
    try:
        return GrpcStatus(status).name
    except ValueError:
        return str(status)


def _cut(text: str, limit_bytes: int) -> str:
    """`text` as valid UTF-8 of at most `limit_bytes`, its end replaced by `...` when it is longer."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - 3].decode("utf-8", "ignore") + "..."
