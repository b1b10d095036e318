"""Clocks of a load: the wall's, the load's own CPU, the server's CPU, all read at the same moment.

A `Window` is what lies between two readings: the time counts from the first to the last of them, not what was asked
for, so a load that is late to read its clock is not credited with calls of a longer time.
"""

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio
from attrs import frozen

__all__ = ["Reading", "call_repeatedly", "cpu_s_of", "warm_up_s", "window"]

WARM_UP_AT_MOST_S: Final = 0.5
LOOK_S: Final = 0.01
_PROCESS_CPU_CLOCK: Final = 2


def cpu_s_of(pid: int) -> float:
    """User and system time of a process with all its threads, also of those that have ended.

    It is the sum of `utime` and `stime` in /proc/PID/stat, which have ticks of 10 ms, to the nanosecond: the clock of
    another process, as clock_getcpuclockid(3) of Linux composes it.
    """
    return time.clock_gettime(~pid << 3 | _PROCESS_CPU_CLOCK)


@frozen
class Reading:
    """The clocks, in seconds."""

    wall_s: float
    load_cpu_s: float
    server_cpu_s: float

    @classmethod
    def now(cls, server_pid: int) -> "Reading":
        """Read them."""
        return cls(time.perf_counter(), time.process_time(), cpu_s_of(server_pid))


def window(first: Reading, count: int, server_pid: int, **more: float) -> dict[str, Any]:
    """What passed since `first`, in which `count` things were done, as a job answers it."""
    last = Reading.now(server_pid)
    if not count:
        raise RuntimeError("nothing was answered in that time: give it more --seconds")
    return {
        "count": count,
        "elapsed_s": last.wall_s - first.wall_s,
        "load_cpu_s": last.load_cpu_s - first.load_cpu_s,
        "server_cpu_s": last.server_cpu_s - first.server_cpu_s,
        **more,
    }


def warm_up_s(seconds: float) -> float:
    """How long to go on before anything counts."""
    return min(WARM_UP_AT_MOST_S, seconds / 4)


async def call_repeatedly(calls: Sequence[Callable[[], Awaitable[object]]], seconds: float, server_pid: int) -> Any:
    """Make every call again as soon as it is answered, all at once, for so long; only what ends in that time counts.

    It is longer where a busy machine answers nothing in that time: it ends with the first answer. Under asyncio or
    Trio. A call that fails ends it.
    """
    latencies_s: list[float] = []
    over = False

    async def repeat(call: Callable[[], Awaitable[object]]) -> None:
        while not over:
            started_s = time.perf_counter()
            await call()
            latencies_s.append(time.perf_counter() - started_s)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(repeat, call)
        await anyio.sleep(warm_up_s(seconds))
        latencies_s.clear()
        first = Reading.now(server_pid)
        await anyio.sleep(seconds)
        while not latencies_s:  # noqa: ASYNC110 - an event would cost every call something
            await anyio.sleep(LOOK_S)
        over = True
        counted = latencies_s.copy()
        answer = window(first, len(counted), server_pid)
    return answer | {"median_s": statistics.median(counted)}
