"""Ctrl-C ends a command, whatever it is at; and one that waits for what may never come ends with its reader.

An interrupt can strike where the main thread has just taken a lock that it shares with the client's thread, and leave
it held: no `with` of Python's is safe from that. The client's thread then never ends, nor does whoever waits for it.
"""

import io
import os
import select
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread
from types import FrameType
from typing import Final

__all__ = ["END_S", "READER_S", "end_soon_when_interrupted", "ended_with_its_reader"]

END_S: Final = 3.0
"""A command that was interrupted has so long to end by itself."""
READER_S: Final = END_S + 1.0
"""Likewise one whose reader is gone: it may have been at its end, or interrupted together with its reader."""


def end_soon_when_interrupted(exit_code: int) -> None:
    """From now on SIGINT raises KeyboardInterrupt, as ever, and END_S after it the process ends with this code.

    Where SIGINT is ignored, it stays so. Belongs in the main thread.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return

    def end(_: int, __: FrameType | None) -> None:
        os._exit(exit_code)

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, END_S)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGINT, interrupted)


@contextmanager
def ended_with_its_reader(exit_code: int) -> Generator[None, None, None]:
    """During the block the process ends with this code READER_S after whoever read its stdout, `head -1` for one.

    A write would tell at once; but who follows a log may have nothing to write for days.
    """
    try:
        output = sys.stdout.fileno()
    except io.UnsupportedOperation:  # it is none of the system's, as in a test
        yield
        return
    left, leave = os.pipe()
    try:
        Thread(target=_watch_reader, args=(output, left, exit_code), name="reader of stdout", daemon=True).start()
        yield
    finally:
        os.close(leave)


def _watch_reader(output: int, left: int, exit_code: int) -> None:
    """End the process when `output` has no reader, unless the other end of the pipe `left` is closed before."""
    try:
        poller = select.poll()
        poller.register(left, 0)  # hang-ups and errors are told of without being asked for
        poller.register(output, 0)
        ready = dict(poller.poll())
        poller.unregister(output)
        if ready.get(output, 0) & (select.POLLERR | select.POLLHUP) and not poller.poll(READER_S * 1_000):
            os._exit(exit_code)
    finally:
        os.close(left)
