"""Fixtures that start a real statehoused."""

from contextlib import ExitStack

import pytest
from daemon_process import DaemonProcess


@pytest.fixture
def make_daemon(tmp_path):
    """Make daemons, by default on the test's own data directory; what still runs when the test ends is killed."""
    with ExitStack() as stack:

        def make(data_dir=tmp_path / "statehouse-data", **arguments):
            daemon = DaemonProcess(data_dir, **arguments)
            stack.callback(lambda: daemon.kill() if daemon.running else None)
            return daemon

        yield make


@pytest.fixture
def daemon(make_daemon):
    """A daemon that is ready, on a data directory and a port of its own."""
    return make_daemon().start()
