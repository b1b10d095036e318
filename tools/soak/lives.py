"""The lives of a daemon in a soak: each is loaded, sampled each second and judged, and killed or left to become idle.

A life goes in cycles: traffic for some seconds, then a pause in which the oracle holds what was sent, told and shown
against what is there, and forgets what it does not need, so that the memory of the proof is flat, too. The first
pause of a life is its idle baseline. Slow and idle connections stay over the pauses.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio
from attrs import define, field, frozen
from daemon_process import DaemonProcess
from histories.audit import commit_nothing, gather
from histories.oracle import Oracle
from histories.subject import DaemonSubject
from histories.submissions import Load, Outcome

from soak.mischief import Mischief
from soak.rules import not_back
from soak.sample import LogMeter, Sample, take_sample
from soak.traffic import ALL_AGENTS, IdleConnections, Traffic
from statehouse import AsyncStatehouse

__all__ = ["Life", "Soak"]

SAMPLE_EVERY_S: Final = 1.0
CYCLE_S: Final = 8.0
FIRST_CYCLE_S: Final = 3.0
"""Until the idle baseline is taken; then every agent has been written to."""
BACK_WITHIN_S: Final = 15.0
"""Once everybody has left."""
LOOK_S: Final = 0.1


@frozen
class Life:
    """How long it lasts, and whether kill -9 ends it, under load."""

    seconds: float
    killed: bool


@define
class Soak:
    """All lives of one daemon, and the samples of them."""

    daemon: DaemonProcess
    seed: int
    say: Callable[[str], None]
    tried: Counter[str] = field(factory=Counter)
    lives: list[list[Sample]] = field(factory=list)
    oracle: Oracle = field(factory=Oracle)
    _meter: LogMeter = field(init=False)
    _started_s: float = field(factory=time.monotonic)
    _one_sample: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1))
    _ready_s: float = 0.0
    _loaded: bool = False
    _left: Load | None = None
    """Of the life before, which was killed: not judged yet."""

    def __attrs_post_init__(self) -> None:
        self._meter = LogMeter(self.daemon.data_dir / "log")

    async def live(self, life: Life) -> list[str]:
        """One life, from its start to its end; violations."""
        rng = random.Random(f"life {len(self.lives)} {self.seed}")
        await trio.to_thread.run_sync(self.daemon.start)
        self._ready_s = time.monotonic()
        self._meter.start_again()
        self.lives.append([])
        async with self._sampled():
            wrong = [] if self._left is None else await self._judge(self._left)
            self._left = None
            wrong += await self._cycle(rng, FIRST_CYCLE_S, is_first=True)
            baseline = await self._sample()
            wrong += await self._under_load(rng, life)
            if not life.killed:
                wrong += await self._back_to(baseline)
        if not life.killed:
            exit_code = await trio.to_thread.run_sync(self.daemon.stop)
            wrong += [f"SIGTERM: exit code {exit_code}"] if exit_code else []
        self.tried["lives"] += 1
        self.tried["lives that kill -9 ended, under load"] += life.killed
        return wrong

    async def _under_load(self, rng: random.Random, life: Life) -> list[str]:
        """Cycle after cycle beside the mischief; a life that is to be killed ends in the middle of one."""
        wrong: list[str] = []
        idle = IdleConnections(self.tried)
        await idle.open(self.daemon.address)
        host, port = self.daemon.address.rsplit(":", 1)
        over = trio.Event()
        mischief = Mischief((host, int(port)), rng, self.tried)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, mischief.run, over.is_set))
            end_s = self._ready_s + life.seconds
            next_end_s = 0.0
            while next_end_s < end_s:  # at least once, however slow the machine is
                wrong += await self._cycle(rng, CYCLE_S)
                now_s = time.monotonic() - self._ready_s
                self.say(f"life {len(self.lives)}, second {now_s:.0f}: judged up to commit {self.oracle.newest_ts}")
                next_end_s = time.monotonic() + CYCLE_S
            if life.killed:
                await self._killed(rng)
            over.set()
        await idle.close()
        return wrong

    async def _cycle(self, rng: random.Random, seconds: float, *, is_first: bool = False) -> list[str]:
        load = Load(newest_ts=self.oracle.newest_ts)
        traffic = Traffic.to(self.daemon.address, rng, load, self.tried)
        self._loaded = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            await trio.sleep(seconds)
            traffic.stopping = True
        await traffic.settle()
        if is_first:
            await traffic.touch_all()
        self._loaded = False
        return await self._judge(load)

    async def _killed(self, rng: random.Random) -> None:
        self._left = Load(newest_ts=self.oracle.newest_ts)
        traffic = Traffic.to(self.daemon.address, rng, self._left, self.tried)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            await trio.sleep(rng.uniform(0.2, 1.0) * FIRST_CYCLE_S)
            traffic.stopping = True
            self.daemon.send(signal.SIGKILL)
            await trio.to_thread.run_sync(self.daemon.wait)

    async def _judge(self, load: Load) -> list[str]:
        async with AsyncStatehouse(self.daemon.address) as client:
            subject = DaemonSubject(client)
            evidence = await gather(subject, ALL_AGENTS, load, self.oracle)
            load.submissions.append(await commit_nothing(subject))
        for outcome in (Outcome.ACKNOWLEDGED, Outcome.UNKNOWN):
            self.tried[f"commits {outcome.value}"] += load.count(outcome)
        self.tried["reads judged"] += len(load.reads)
        wrong = self.oracle.judge(load, evidence)
        self.oracle.forget()
        return wrong

    async def _back_to(self, baseline: Sample) -> list[str]:
        """Wait until the idle daemon has no more than it had; what it still has after BACK_WITHIN_S."""
        last = await self._sample()
        with trio.move_on_after(BACK_WITHIN_S):
            while not_back(baseline, last):
                await trio.sleep(LOOK_S)
                last = await self._sample()
        self.lives[-1].append(last)
        self.tried["lives that were left to become idle"] += 1
        return not_back(baseline, last)

    @asynccontextmanager
    async def _sampled(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample_each_second)
            yield
            nursery.cancel_scope.cancel()

    async def _sample_each_second(self) -> None:
        next_s = time.monotonic()
        while self.daemon.running:
            try:
                sample = await self._sample()
            except (OSError, KeyError):
                if self.daemon.running:
                    raise
                return
            self.lives[-1].append(sample)
            self.tried["samples"] += 1
            next_s += SAMPLE_EVERY_S
            await trio.sleep(max(next_s - time.monotonic(), 0.0))

    async def _sample(self) -> Sample:
        now_s = time.monotonic()
        take = partial(
            take_sample,
            self.daemon,
            self._meter,
            at_s=now_s - self._started_s,
            life=len(self.lives),
            life_s=now_s - self._ready_s,
            loaded=self._loaded,
        )
        return await trio.to_thread.run_sync(take, limiter=self._one_sample)
