"""statehousectl in this process, against a daemon of the module's own, or against a client that is made up."""

import pytest
from daemon_process import DaemonProcess

from statehouse import Statehouse
from statehouse.cli import ctl_connection
from statehouse.cli.ctl_connection import OPTIONS, TOKEN_VARIABLE
from statehouse.cli.statehousectl import exit_code_of


@pytest.fixture(scope="module")
def module_daemon(tmp_path_factory):
    """A daemon for the tests of one module; each uses agents of its own."""
    with DaemonProcess(tmp_path_factory.mktemp("module") / "data") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def module_client(module_daemon):
    with Statehouse(module_daemon.address) as client:
        yield client


@pytest.fixture
def run_ctl(capsys, monkeypatch):
    """Run a command; its exit code, what it printed, what it said on stderr."""
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)

    def run(*arguments):
        code = exit_code_of([str(each) for each in arguments])
        captured = capsys.readouterr()
        return int(code), captured.out, captured.err

    return run


@pytest.fixture
def ctl_there(module_daemon, run_ctl):
    """`run_ctl` at the module's daemon."""
    return lambda *arguments: run_ctl("--address", module_daemon.address, *arguments)


@pytest.fixture
def made_up_client(monkeypatch):
    """Give commands a client that has these methods, and no daemon."""

    def take(**methods):
        calls = {name: staticmethod(method) for name, method in methods.items()}
        entered = {
            "__init__": lambda self, *_, **__: None,
            "__enter__": lambda self: self,
            "__exit__": lambda self, *_: None,
        }
        monkeypatch.setattr(ctl_connection, "Statehouse", type("MadeUp", (), calls | entered))

    return take
