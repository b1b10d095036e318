"""The same on whole daemons: one that ends at a failpoint under load over real connections, and one that follows it.

To be imported after `failpoints.here.activate`.
"""

import random
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import trio
from attrs import frozen
from daemon_process import DaemonFailedError, DaemonProcess
from histories.audit import commit_nothing, gather
from histories.oracle import Oracle
from histories.subject import connected
from histories.submissions import Load, Outcome
from histories.workload import AGENTS, Workload

from failpoints.arming import Action
from failpoints.case import EXITS
from failpoints.cases import Case

__all__ = ["ON_DAEMONS", "TriedOnDaemon", "try_on_daemon"]

ON_DAEMONS: Final[Mapping[str, tuple[int, int]]] = {
    "prepare.held": (20, 100),
    "log.written": (20, 100),
    "commit.appended": (20, 100),
    "commit.synced": (20, 100),
    "sequencer.answering": (20, 100),
    "snapshot.ended": (1, 3),
}
"""Places that tell most, and between which hits a daemon ends there."""
CLIENTS: Final = 8
SNAPSHOT_INTERVAL: Final = 50
PATIENCE_S: Final = 120.0
"""A daemon that has not come to its failpoint by then never will; on a busy machine it takes its time."""


@frozen
class TriedOnDaemon:
    """What came of it."""

    place: str
    violations: list[str]
    acknowledged: int


def try_on_daemon(place: str, seed: int) -> TriedOnDaemon:
    """End a daemon at the place, start another, and judge what it shows."""
    rng = random.Random(f"{seed} daemon {place}")
    with tempfile.TemporaryDirectory(prefix="statehouse-failpoints-") as directory:
        case = Case(place, Action.EXIT, rng.randint(*ON_DAEMONS[place]))
        load = Load()
        try:
            violations = trio.run(_ended_and_followed, case, rng, Path(directory), load)
        except* (DaemonFailedError, trio.TooSlowError) as failures:
            violations = [f"{case.name}: {failure}" for failure in failures.exceptions]
    return TriedOnDaemon(place, violations, load.count(Outcome.ACKNOWLEDGED))


def failed_daemon(place: str, why: str) -> TriedOnDaemon:
    """One that could not be tried to its end."""
    return TriedOnDaemon(place, [why], 0)


async def _ended_and_followed(case: Case, rng: random.Random, directory: Path, load: Load) -> list[str]:
    options = ("--snapshot-interval", str(SNAPSHOT_INTERVAL))
    command = (sys.executable, str(Path(__file__).with_name("daemon.py")), case.name)
    oracle = Oracle()
    violations: list[str] = []
    daemon = DaemonProcess(directory, options=options, command=command)
    try:
        await trio.to_thread.run_sync(daemon.start)
        with trio.fail_after(PATIENCE_S):
            await Workload(rng).run(partial(connected, daemon.address), CLIENTS, load)
        exit_code = await trio.to_thread.run_sync(daemon.wait)
        if exit_code not in EXITS or len(daemon.events("failpoint")) != 1:
            violations.append(f"the daemon ended with {exit_code}, and not at its failpoint")
    finally:
        if daemon.running:
            daemon.kill()
    following = DaemonProcess(directory, options=options)
    try:
        await trio.to_thread.run_sync(following.start)
        async with connected(following.address) as subject:
            evidence = await gather(subject, AGENTS, load, oracle)
            load.submissions.append(await commit_nothing(subject))
        violations += oracle.judge(load, evidence)
        exit_code = await trio.to_thread.run_sync(following.stop)
        if exit_code:
            violations.append(f"the daemon that followed ended with {exit_code}")
    finally:
        if following.running:
            following.kill()
    return violations
