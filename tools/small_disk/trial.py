"""One daemon on one small disk: load that goes on while the disk fills and empties, and the judgement after each round.

A round: clients commit and read; something fills the disk; commits are refused while reads, scans and replays go on
and the daemon says `ok`; the ballast is thrown off; commits succeed again, with no restart. Then everybody stops, and
the oracle holds all that was told and shown against all that is there: what was acknowledged is, what was refused
is not.
"""

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio
from attrs import define, field
from daemon_process import DaemonProcess
from histories.audit import commit_nothing, gather, whole_history
from histories.oracle import Oracle
from histories.subject import DaemonSubject
from histories.submissions import Load, Outcome
from histories.workload import AGENTS, Shape, Workload

from small_disk.volume import Volume
from small_disk.watched import Seen, Watched
from statehouse import AsyncStatehouse
from statehouse.errors import ConnectionError, DiskFullError

__all__ = ["Round", "RoundFailedError", "Trial"]

READERS: Final = 2
HEALTH_EVERY_S: Final = 0.05
REFUSALS_IN_A_ROW: Final = 30
"""So many, without a commit between them, and the disk counts as full."""
READS_WHILE_FULL: Final = 200
AGAIN: Final = 20
"""Commits that must succeed once there is room."""
FULL_WITHIN_S: Final = 120.0
READS_WITHIN_S: Final = 60.0
AGAIN_WITHIN_S: Final = 60.0
LOOK_S: Final = 0.01

SMALL: Final[dict[int, int]] = {30: 60, 400: 30, 6_000: 10}
LARGE: Final[dict[int, int]] = {30: 20, 500_000: 80}


class RoundFailedError(Exception):
    """A round did not go as it has to."""


@define
class Round:
    """A round under way: its load, what its clients saw, and how to end it."""

    load: Load
    seen: Seen = field(factory=Seen)
    stopping: bool = False
    unhealthy: Counter[str] = field(factory=Counter)

    async def until(self, is_so: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait for it; RoundFailedError when it does not come in time."""
        with trio.move_on_after(within_s):
            while not is_so():  # noqa: ASYNC110 - what is waited for happens in the daemon, or on its disk
                await trio.sleep(LOOK_S)
            return
        raise RoundFailedError(f"{what}: not within {within_s:.0f} s ({self.seen}, {dict(self.unhealthy)})")


class Trial:
    """The daemon, the disk, and everything that was ever told about them."""

    def __init__(self, volume: Volume, daemon: DaemonProcess, seed: int, clients: int) -> None:
        self.volume = volume
        self.daemon = daemon
        self.oracle = Oracle()
        self.tried: Counter[str] = Counter()
        self.left = Load()
        """Of a round that ended with a kill, until it is judged."""
        self._seed = seed
        self._clients = clients
        self._rounds = 0

    async def round(
        self, fill: Callable[[Round], Awaitable[None]], *, large: bool = False, kill: bool = False
    ) -> list[str]:
        """One round, in which `fill` fills the disk under load. Violations, and RoundFailedError for what hangs.

        With `kill` the daemon gets kill -9 while it is full, and nothing is judged: what was told stays in the load
        that `judge` is to be called with, once it runs again.
        """
        self._rounds += 1
        shape = Shape(value_bytes=LARGE if large else SMALL, tolerated=(DiskFullError,), read_share=0.1)
        workload = Workload(random.Random(f"round {self._rounds} {self._seed}"), shape)
        this = Round(Load(newest_ts=self.oracle.newest_ts))
        async with trio.open_nursery() as nursery:
            for _ in range(self._clients):
                nursery.start_soon(self._client, this, partial(workload.client, transactions=1))
            for _ in range(READERS):
                nursery.start_soon(self._client, this, workload.read)
            nursery.start_soon(self._watch_health, this)
            await fill(this)
            await this.until(lambda: this.seen.refused_at_once >= REFUSALS_IN_A_ROW, FULL_WITHIN_S, "a full disk")
            this.seen.full = True
            await this.until(
                lambda: this.seen.reads_while_full >= READS_WHILE_FULL, READS_WITHIN_S, "reads while the disk is full"
            )
            if kill:
                this.stopping = True
                self.daemon.send(signal.SIGKILL)
                await trio.to_thread.run_sync(self.daemon.wait)
            else:
                this.seen.full = False
                before = this.seen.acknowledged
                self.volume.throw_off()
                await this.until(
                    lambda: this.seen.acknowledged >= before + AGAIN, AGAIN_WITHIN_S, "commits once there is room"
                )
            this.stopping = True
        self._count(this)
        violations = [f"health said {said!r} {count} times" for said, count in this.unhealthy.items()]
        if kill:
            self.left = this.load
            return violations
        return violations + await self.judge(this.load)

    async def judge(self, load: Load) -> list[str]:
        """Hold a load against what is there; then forget what the next one does not need."""
        async with AsyncStatehouse(self.daemon.address) as client:
            subject = DaemonSubject(client)
            evidence = await gather(subject, AGENTS, load, self.oracle)
            load.submissions.append(await commit_nothing(subject))
        self.tried["commits whose outcome was unknown"] += load.count(Outcome.UNKNOWN)
        self.tried["reads judged"] += len(load.reads)
        violations = self.oracle.judge(load, evidence)
        self.oracle.forget()
        return violations

    async def whole_history(self) -> list[str]:
        """Replay everything once more; what has changed."""
        async with AsyncStatehouse(self.daemon.address) as client:
            return await whole_history(DaemonSubject(client), AGENTS, self.oracle)

    async def _client(self, this: Round, act: Callable[[Watched, Load], Awaitable[None]]) -> None:
        async with AsyncStatehouse(self.daemon.address) as client:
            subject = Watched(client, this.seen)
            while not this.stopping:
                await self._unless_killed(this, partial(act, subject, this.load))

    async def _watch_health(self, this: Round) -> None:
        async with AsyncStatehouse(self.daemon.address) as client:

            async def ask() -> None:
                said = await client.health()
                if said != "ok":
                    this.unhealthy[said] += 1
                self.tried["health asked while full"] += this.seen.full

            while not this.stopping:
                await self._unless_killed(this, ask)
                await trio.sleep(HEALTH_EVERY_S)

    async def _unless_killed(self, this: Round, call: Callable[[], Awaitable[None]]) -> None:
        """A connection may be lost only because the daemon was killed, and that only by this proof."""
        try:
            await call()
        except ConnectionError as error:
            if not this.stopping:
                raise RoundFailedError(f"the daemon cannot be reached: {error.message}") from error
        if not this.stopping and not self.daemon.running:
            raise RoundFailedError(f"the daemon ended by itself: {list(self.daemon.lines)[-3:]}")

    def _count(self, this: Round) -> None:
        seen = this.seen
        self.tried["rounds"] += 1
        self.tried["commits acknowledged"] += seen.acknowledged
        self.tried["commits refused"] += seen.refused
        self.tried["reads, scans and replays answered"] += seen.reads
        self.tried["of these while the disk was full"] += seen.reads_while_full
        for reason, count in seen.reasons.items():
            self.tried[f"refused: {reason}"] += count
