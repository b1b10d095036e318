"""Exit codes: every one documented, and the right one for what happened."""

import pytest

from statehouse import errors
from statehouse.cli.exit_codes import (
    CONTROL_EXIT_TEXTS,
    DAEMON_EXIT_TEXTS,
    ControlExit,
    DaemonExit,
    control_exit_for,
    daemon_exit_for,
)


def test_every_code_is_documented():
    assert set(DAEMON_EXIT_TEXTS) == set(DaemonExit)
    assert set(CONTROL_EXIT_TEXTS) == set(ControlExit)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.DataDirectoryError("x"), 2),
        (errors.DataDirectoryHeldError("x"), 3),
        (errors.AddressError("x"), 4),
        (errors.StoreDamagedError("x"), 5),
        (errors.NewerFormatError("x"), 5),
        (errors.LogPoisonedError("x"), 6),
        (errors.DiskFullError("x"), 6),
        (errors.StorageError("x"), 6),
        (OSError(5, "x"), 6),
        (errors.InternalError("x"), 1),
        (ZeroDivisionError("x"), 1),
        (ExceptionGroup("g", [ExceptionGroup("h", [errors.AddressError("x")])]), 4),
        (ExceptionGroup("g", [errors.StorageError("x"), errors.StoreDamagedError("x")]), 6),
        (ExceptionGroup("g", [errors.StoreDamagedError("x"), ZeroDivisionError("x")]), 1),
    ],
    ids=repr,
)
def test_what_ends_the_daemon(error, code):
    assert daemon_exit_for(error) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFoundError("x"), 1),
        (errors.ConnectionError("x"), 3),
        (errors.InvalidRequestError("x"), 4),
        (errors.OverloadedError("x"), 4),
        (errors.TransactionError("x"), 4),
        (errors.ConflictError("x"), 6),
        (errors.LeaseError("x"), 6),
        (errors.AgentExistsError("x"), 6),
        (errors.AgentDeletedError("x"), 6),
        (errors.UnauthenticatedError("x"), 4),
        (errors.PermissionDeniedError("x"), 4),
        (errors.ConfigError("x"), 2),
        (errors.StorageError("x"), 5),
        (errors.InternalError("x"), 5),
        (errors.StatehouseError("x"), 5),
    ],
    ids=repr,
)
def test_how_a_command_ends(error, code):
    assert control_exit_for(error) == code
