import subprocess
import sys
from pathlib import Path

import pytest

import statehouse
from statehouse.errors import ErrorCode
from statehouse.rpc.error_table import decode_error
from statehouse.v1 import statehouse_pb2


def test_the_names_of_the_package():
    for name in statehouse.__all__:
        assert getattr(statehouse, name) is not None
        assert name in dir(statehouse)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        statehouse.Nothing  # noqa: B018


def test_the_error_family():
    for name in ("TransactionError", "NotFoundError", "ConnectionError", "InvalidRequestError"):
        assert issubclass(getattr(statehouse, name), statehouse.StatehouseError)
    assert not issubclass(statehouse.ConnectionError, OSError)
    assert issubclass(statehouse.StoreDamagedError, statehouse.StorageError)


def test_every_error_that_a_client_can_meet_is_a_name_of_the_package():
    for status in range(-1, 20):
        met = [decode_error(status, "", None)]
        for code in ErrorCode:
            trailer = statehouse_pb2.StatehouseError(code=int(code)).SerializeToString()
            met.append(decode_error(status, "", trailer))
        for error in met:
            assert getattr(statehouse, type(error).__name__, None) is type(error)


def test_importing_the_package_loads_no_client():
    heavy = ("anyio", "google.protobuf", "purerpc")
    program = f"import sys, statehouse; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_types_that_users_see():
    checked = Path(__file__).with_name("typing_public_api.py")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", str(checked)],
        capture_output=True,
        check=False,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
