"""Ctrl-C ends a command also when what it waits for never ends."""

import signal
import subprocess
import sys
import time

import pytest

from statehouse.cli.interrupts import END_S

HANGS = """
import sys, threading
from statehouse.cli.interrupts import end_soon_when_interrupted
end_soon_when_interrupted(130)
try:
    print("ready", flush=True)  # in here: the signal may come before anything else is done
    threading.Event().wait()
except KeyboardInterrupt:
    if sys.argv[1] == "ends":
        sys.exit(7)
    threading.Event().wait()
"""


@pytest.mark.parametrize(("how", "exit_code"), [("ends", 7), ("hangs", 130)])
def test_an_interrupted_command_ends(how, exit_code):
    with subprocess.Popen([sys.executable, "-c", HANGS, how], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        begun_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == exit_code
    assert how == "ends" or time.monotonic() - begun_s >= END_S
