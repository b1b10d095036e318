"""Exit codes: part of the interface of both commands, and nowhere else spelled out in code."""

from enum import IntEnum
from typing import Final

from statehouse.errors import (
    AddressError,
    AgentDeletedError,
    AgentExistsError,
    ConfigError,
    ConflictError,
    ConnectionError,
    DataDirectoryError,
    DataDirectoryHeldError,
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
)


class DaemonExit(IntEnum):
    """Why `statehoused` ended."""

    STOPPED = 0
    BUG = 1
    BAD_CONFIGURATION = 2
    DATA_DIRECTORY_HELD = 3
    BAD_ADDRESS = 4
    STORE_DAMAGED = 5
    DISK_FAILED = 6


class ControlExit(IntEnum):
    """How a `statehousectl` command went."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    DAEMON_FAILED = 5
    CONFLICT = 6
    BUG = 70
    OUTPUT_FAILED = 74
    INTERRUPTED = 130
    BROKEN_PIPE = 141


DAEMON_EXIT_TEXTS: Final = {
    DaemonExit.STOPPED: "stopped as asked (SIGTERM, SIGINT), calls finished or their grace time over; --check: sound",
    DaemonExit.BUG: "a bug in Statehouse",
    DaemonExit.BAD_CONFIGURATION: "bad configuration: a setting, or a data directory that cannot be used",
    DaemonExit.DATA_DIRECTORY_HELD: "the data directory is held by another daemon",
    DaemonExit.BAD_ADDRESS: "the address is taken or not allowed",
    DaemonExit.STORE_DAMAGED: "the store is damaged, or of a newer format: refused; --check: something was found",
    DaemonExit.DISK_FAILED: "the log is poisoned or the disk failed",
}

CONTROL_EXIT_TEXTS: Final = {
    ControlExit.OK: "done, and the answer is positive",
    ControlExit.NEGATIVE: "a negative answer: the agent, key, version, lease or token does not exist, the daemon is "
    "not 'ok', verify found something, a question was answered with no",
    ControlExit.USAGE: "bad usage: an unknown command or option, a bad value, a token file that cannot be used",
    ControlExit.UNREACHABLE: "the daemon cannot be reached, went away, or cannot serve now",
    ControlExit.REFUSED: "the daemon refused the request: malformed, over a limit, or not allowed by its token",
    ControlExit.DAEMON_FAILED: "the daemon failed: its disk, its store, or a bug",
    ControlExit.CONFLICT: "somebody else was first: a precondition did not hold, the lease is another's, the fork's "
    "name is taken, or the agent was deleted; nothing was changed",
    ControlExit.BUG: "a bug in statehousectl",
    ControlExit.OUTPUT_FAILED: "the answer could not be written, or not all of it, as to a full disk",
    ControlExit.INTERRUPTED: "interrupted (Ctrl-C)",
    ControlExit.BROKEN_PIPE: "whoever read the output stopped reading",
}

# The first class that fits decides.
_DAEMON_EXITS: Final = (
    (ConfigError, DaemonExit.BAD_CONFIGURATION),
    (DataDirectoryError, DaemonExit.BAD_CONFIGURATION),
    (DataDirectoryHeldError, DaemonExit.DATA_DIRECTORY_HELD),
    (AddressError, DaemonExit.BAD_ADDRESS),
    (StoreDamagedError, DaemonExit.STORE_DAMAGED),
    (LogPoisonedError, DaemonExit.DISK_FAILED),
    (StorageError, DaemonExit.DISK_FAILED),
    (OSError, DaemonExit.DISK_FAILED),
)


def daemon_exit_for(error: BaseException) -> DaemonExit:
    """The exit code for what ended the daemon; anything that is not foreseen is a bug.

    Of a group of exceptions the gravest known member decides, unless one of them is a bug.
    """
    if isinstance(error, BaseExceptionGroup):
        codes = {daemon_exit_for(member) for member in error.exceptions}
        return DaemonExit.BUG if DaemonExit.BUG in codes else max(codes)
    return next((code for kind, code in _DAEMON_EXITS if isinstance(error, kind)), DaemonExit.BUG)


_CONTROL_EXITS: Final = (
    (NotFoundError, ControlExit.NEGATIVE),
    (ConnectionError, ControlExit.UNREACHABLE),
    (InvalidRequestError, ControlExit.REFUSED),
    (OverloadedError, ControlExit.REFUSED),
    (ConflictError, ControlExit.CONFLICT),
    (LeaseError, ControlExit.CONFLICT),
    (AgentExistsError, ControlExit.CONFLICT),
    (AgentDeletedError, ControlExit.CONFLICT),
    (TransactionError, ControlExit.REFUSED),
    (UnauthenticatedError, ControlExit.REFUSED),
    (PermissionDeniedError, ControlExit.REFUSED),
    (ConfigError, ControlExit.USAGE),
)


def control_exit_for(error: StatehouseError) -> ControlExit:
    """The exit code for an error that a call ended with."""
    return next((code for kind, code in _CONTROL_EXITS if isinstance(error, kind)), ControlExit.DAEMON_FAILED)


def documented(texts: dict[DaemonExit, str] | dict[ControlExit, str]) -> str:
    """The exit codes as the lines that `--help` shows."""
    return "\n".join(f"{int(code):>5}  {text}" for code, text in texts.items())
