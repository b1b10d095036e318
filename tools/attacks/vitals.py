"""What a daemon's process holds, as the kernel and the daemon itself tell it; and whether it holds it still.

Memory and descriptors come from /proc. Connections, calls and tasks come from the line `edge` that the daemon logs
at SIGUSR1; a daemon that does not catch that signal would die of it, so it is asked only when /proc says that it does.
"""

import json
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from daemon_process import DaemonProcess

__all__ = ["Vitals", "answers_census", "descriptors", "peak_bytes", "resident_bytes", "settled", "start_peak", "take"]

CENSUS_EVENT: Final = "edge"
CENSUS_S: Final = 5.0
SETTLED_S: Final = 5.0
"""How long after an attack everything must be back."""
COUNTED: Final = ("connections", "calls", "tasks", "streams")
"""Of the fields of the line; a field that is not there is not judged."""
SLACK: Final = {"files": 16}
"""Segments of the log and tables of LevelDB come and go with what the honest client commits."""
UNANSWERED: Final = "censuses unanswered"
LINES_LOOKED_AT: Final = 500
LOOK_EVERY_S: Final = 0.1


@frozen
class Vitals:
    """Counts by name: `sockets` and `files` are the open descriptors; the others are the census's."""

    counts: Mapping[str, int]

    def beyond(self, before: "Vitals") -> dict[str, tuple[int, int]]:
        """What there is more of now: name, how many before and now."""
        return {
            name: (before.counts[name], now)
            for name, now in self.counts.items()
            if name in before.counts and now > before.counts[name] + SLACK.get(name, 0)
        }


def resident_bytes(pid: int) -> int:
    """VmRSS."""
    return _memory(pid, "VmRSS")


def start_peak(pid: int) -> None:
    """Let `peak_bytes` begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """VmHWM: the most that was resident since `start_peak`."""
    return _memory(pid, "VmHWM")


def answers_census(pid: int) -> bool:
    """Whether the process catches SIGUSR1."""
    caught = int(_status(pid)["SigCgt"], 16)
    return bool(caught >> (signal.SIGUSR1 - 1) & 1)


def take(daemon: DaemonProcess) -> Vitals:
    """The counts now."""
    census = _census(daemon) if answers_census(daemon.pid) else {}
    return Vitals(descriptors(daemon.pid) | census)


def settled(daemon: DaemonProcess, before: Vitals, timeout_s: float) -> tuple[Vitals, float]:
    """The counts once nothing is beyond `before`, or when the time is over; and how long that took."""
    started_s = time.monotonic()
    while True:
        now, took_s = take(daemon), time.monotonic() - started_s
        if not now.beyond(before) or took_s > timeout_s:
            return now, took_s
        time.sleep(LOOK_EVERY_S)


def descriptors(pid: int) -> dict[str, int]:
    """How many sockets and how many other files the process has open."""
    counts = {"sockets": 0, "files": 0}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            counts["sockets" if str(descriptor.readlink()).startswith("socket:") else "files"] += 1
    return counts


def _census(daemon: DaemonProcess) -> dict[str, int]:
    before = _newest_census(daemon)
    daemon.send(signal.SIGUSR1)
    end_s = time.monotonic() + CENSUS_S
    while time.monotonic() < end_s:
        newest = _newest_census(daemon)
        if newest != before:  # every line has its own time
            return _counts(json.loads(newest)) | {UNANSWERED: 0}
        time.sleep(0.005)
    return {UNANSWERED: 1}


def _newest_census(daemon: DaemonProcess) -> str:
    newest = reversed(list(daemon.lines)[-LINES_LOOKED_AT:])
    return next((line for line in newest if f'"event": "{CENSUS_EVENT}"' in line), "")


def _counts(fields: Mapping[str, Any]) -> dict[str, int]:
    """The counts of the line, wherever in it they stand."""
    flat = dict(fields)
    for value in fields.values():
        if isinstance(value, Mapping):
            flat |= value
    return {name: flat[name] for name in COUNTED if isinstance(flat.get(name), int)}


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def _memory(pid: int, name: str) -> int:
    return int(_status(pid)[name].split()[0]) * 1024
