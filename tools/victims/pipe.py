"""From a victim to its parent: each event as one frame in a pipe, written before the victim takes its next step.

A frame is a length and a pickle. Whatever ends the victim, the parent has every frame whose write had returned, and at
most the beginning of one more, which it drops: whoever was about to tell it had not gone on.
"""

import os
import pickle
import select
import time
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final

__all__ = ["SilentError", "Teller", "hear"]

_LENGTH_BYTES: Final = 4
_CHUNK_BYTES: Final = 1 << 16


class SilentError(Exception):
    """The victim neither ended nor said anything more within its time."""


class Teller:
    """The victim's end. Any thread may tell: frames do not mix."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = Lock()

    def tell(self, what: str, *details: Any) -> None:
        """Write one event; blocks while the pipe is full, until the parent has read on."""
        pickled = pickle.dumps((what, *details))
        frame = len(pickled).to_bytes(_LENGTH_BYTES, "big") + pickled
        with self._lock:
            while frame:
                frame = frame[os.write(self._descriptor, frame) :]


def hear(descriptor: int, seconds: float) -> Iterator[tuple[Any, ...]]:
    """Every whole frame until the other end is closed. SilentError when that takes more than `seconds`."""
    deadline_s = time.monotonic() + seconds
    heard = bytearray()
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(deadline_s - time.monotonic(), 0))
        if not ready:
            raise SilentError(f"the victim was still there after {seconds:.0f} s")
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            return
        heard += chunk
        begin = 0
        while len(heard) - begin >= _LENGTH_BYTES:
            end = begin + _LENGTH_BYTES + int.from_bytes(heard[begin : begin + _LENGTH_BYTES], "big")
            if len(heard) < end:
                break
            yield pickle.loads(memoryview(heard)[begin + _LENGTH_BYTES : end])
            begin = end
        del heard[:begin]
