"""Fixtures that start a real statehoused."""

from contextlib import ExitStack

import pytest
from daemon_process import DaemonFailedError, DaemonProcess


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


def refusal(daemon, exit_code):
    """The one line that a daemon says instead of starting."""
    with pytest.raises(DaemonFailedError) as caught:
        daemon.start()
    assert caught.value.exit_code == exit_code, caught.value
    said = [line for line in daemon.lines if '"level": "info"' not in line]
    assert len(said) == 1, list(daemon.lines)
    assert said[0].startswith("statehoused: ")
    return said[0]
