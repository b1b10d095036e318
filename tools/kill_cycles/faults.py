"""What is done to the daemon: how and when it ends, and what happens before it serves again."""

import random
import shutil
import signal
import time
from enum import Enum
from functools import partial
from typing import Final

import trio
from attrs import frozen
from daemon_process import DaemonProcess

__all__ = ["Before", "End", "Ended", "FaultPlan", "Restart", "bring_back", "plan_fault", "strike"]

LOAD_S: Final = (0.15, 0.6)
START_S: Final = (0.0, 1.0)
STOP_TIMEOUT_S: Final = 30.0


class End(Enum):
    """How the daemon ends."""

    KILL = "kill -9"
    STOP = "SIGTERM"


class Before(Enum):
    """What comes before the next start that counts."""

    NOTHING = ""
    VIEW_DELETED = "state/ deleted"
    LOG_LEFT = "state/ and snapshots/ deleted"
    KILLED_STARTING = "kill -9 while starting"


@frozen
class FaultPlan:
    """One fault. `after_s` is how long the load runs, `starting_s` how long a start that is killed may take."""

    end: End
    before: Before
    after_s: float
    starting_s: float


@frozen
class Ended:
    """How the daemon ended, and when (time.monotonic)."""

    exit_code: int
    at_s: float


@frozen
class Restart:
    """How long the daemon took: from its launch to its ready line, and of that the recovery by its own account."""

    total_s: float
    recovery_s: float
    view_from: str
    """What the view was brought up from: the view that was there, a snapshot, or the log."""


def plan_fault(rng: random.Random) -> FaultPlan:
    """Choose a fault. Both draws of time are made in any case: the same seed plans the same faults."""
    return FaultPlan(
        end=rng.choices((End.KILL, End.STOP), (85, 15))[0],
        before=rng.choices(list(Before), (75, 8, 5, 12))[0],
        after_s=rng.uniform(*LOAD_S),
        starting_s=rng.uniform(*START_S),
    )


async def strike(daemon: DaemonProcess, plan: FaultPlan) -> Ended:
    """Wait for the moment, then end the daemon; how it ended."""
    await trio.sleep(plan.after_s)
    daemon.send(signal.SIGKILL if plan.end is End.KILL else signal.SIGTERM)
    at_s = time.monotonic()
    exit_code = await trio.to_thread.run_sync(daemon.wait, STOP_TIMEOUT_S)
    return Ended(exit_code, at_s)


async def bring_back(daemon: DaemonProcess, plan: FaultPlan) -> Restart:
    """Do what comes before the start, then start the daemon. DaemonFailedError when it does not become ready."""
    if plan.before in {Before.VIEW_DELETED, Before.LOG_LEFT}:
        await trio.to_thread.run_sync(shutil.rmtree, daemon.data_dir / "state")
    if plan.before is Before.LOG_LEFT:
        await trio.to_thread.run_sync(partial(shutil.rmtree, daemon.data_dir / "snapshots", ignore_errors=True))
    if plan.before is Before.KILLED_STARTING:
        daemon.launch()
        await trio.sleep(plan.starting_s)
        daemon.send(signal.SIGKILL)
        await trio.to_thread.run_sync(daemon.wait)
    started_s = time.monotonic()
    await trio.to_thread.run_sync(daemon.start)
    return Restart(
        total_s=time.monotonic() - started_s,
        recovery_s=float(daemon.ready["recovery_s"]),
        view_from=str(daemon.events("store opened")[-1]["view_from"]),
    )
