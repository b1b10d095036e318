"""The run: one life of the daemon after the other, over one data directory, and the judgement between them.

A life ends by kill -9 or SIGTERM while all clients are at work. What they wrote down until then is held against what
the next daemon shows, and then forgotten but for what later lives are judged by: memory does not grow with the run by
more than a few bytes for each commit.
"""

import gc
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import trio
from attrs import define, evolve, field, frozen
from daemon_process import DaemonProcess
from histories.at_once import is_name
from histories.audit import commit_nothing, gather, send_again
from histories.oracle import Answer, Oracle
from histories.submissions import Load, Outcome, Staged, Submission
from histories.workload import AGENTS
from kill_cycles.faults import Before, End, FaultPlan, bring_back, plan_fault, strike
from proof_report import ProofReport

from linearizability.bank import Bank
from linearizability.clients import Clients
from linearizability.journal import Journal
from linearizability.money import ACCOUNTS, BALANCE, MoneyJudge, wrong_statement, wrong_sum
from linearizability.one_call import OneCallSubject, connected
from linearizability.proxied import ProxyProcess
from linearizability.snapshot_money import SnapshotMoney
from linearizability.sweep_notes import sweep_notes
from statehouse import AsyncStatehouse, ErrorCode, InvalidRequestError

__all__ = ["KEPT", "Lives", "Size", "kept_for_later"]

EVERYBODY: Final = (*AGENTS, *ACCOUNTS)
LOOK_S: Final = 0.02
STUCK_S: Final = 30.0
CALL_TIMEOUT_S: Final = 20.0
REMEMBERED: Final = 20
KEPT: Final = 300
"""Transactions in one call that are kept from life to life, to be sent again."""
SAID_EVERY_S: Final = 8.0
VIEW_DELETED_EVERY: Final = 5
"""In lives; now and then it is by chance, too."""


@frozen
class Size:
    """How much is tried."""

    operations: int
    lives: int
    clients: int = 96
    connections: int = 6
    tellers: int = 12
    watchers: int = 2
    cut_every_s: float = 0.3


@define
class Tally:
    """Sums over all lives."""

    calls: Counter[str] = field(factory=Counter)
    lost: Counter[str] = field(factory=Counter)
    resolved: Counter[str] = field(factory=Counter)
    outcomes: Counter[Outcome] = field(factory=Counter)
    faults: Counter[str] = field(factory=Counter)
    sources: Counter[str] = field(factory=Counter)
    expired: int = 0
    sent_again: int = 0
    load_s: float = 0.0
    judge_s: float = 0.0
    audit_s: float = 0.0
    restart_s: float = 0.0

    def add(self, journal: Journal) -> None:
        """Count a life."""
        self.calls += journal.calls
        self.lost += journal.lost
        self.resolved += journal.resolved
        self.expired += journal.expired
        self.sent_again += journal.sent_again
        self.outcomes.update(submission.outcome for submission in journal.load.submissions)


class Lives:
    """All lives of one run. Violations go to the report; it ends at the first life that has one."""

    def __init__(self, daemon: DaemonProcess, size: Size, seed: int, report: ProofReport, repeat: str) -> None:
        self._daemon = daemon
        self._size = size
        self._seed = seed
        self._report = report
        self._repeat = repeat
        self._rng = random.Random(f"lives {seed}")
        self._clients = Clients(random.Random(f"clients {seed}"))
        self._money = MoneyJudge()
        self._kept: list[Submission] = []
        self.bank = Bank(random.Random(f"bank {seed}"))
        self.oracle = Oracle()
        self.tally = Tally()
        self.snapshots = SnapshotMoney(daemon.data_dir / "snapshots", 0)
        self.cuts: Counter[str] = Counter()

    async def run(self) -> None:
        """Everything. Raises what a daemon that does not start raises, and what it refuses that it has to accept."""
        await trio.to_thread.run_sync(self._daemon.start)
        gc.disable()  # next to nothing here is a cycle, and each life is collected by hand
        proxy = ProxyProcess(self._daemon.address, self._seed, self._size.cut_every_s)
        try:
            with proxy:
                await self._open_the_bank()
                async with AsyncExitStack() as stack:
                    connections = [
                        await stack.enter_async_context(AsyncStatehouse(proxy.address, timeout_s=CALL_TIMEOUT_S))
                        for _ in range(self._size.connections)
                    ]
                    number = 0
                    while self.tally.calls.total() < self._size.operations and not self._report.violations:
                        number += 1
                        await self._life(number, connections)
                        gc.collect()
            if not self._report.violations:
                await self._last_look()
        finally:
            self.cuts.update(proxy.counted.get("cuts", {}))
            gc.enable()

    async def _open_the_bank(self) -> None:
        journal = Journal(Load())
        async with connected(self._daemon.address) as subject:
            await self.bank.open(subject.client, journal)
            await self._judge(subject, journal)
        self.tally.add(journal)

    async def _life(self, number: int, connections: Sequence[AsyncStatehouse]) -> None:
        plan = evolve(plan_fault(self._rng), after_s=0.0)
        if number % VIEW_DELETED_EVERY == 0:
            plan = evolve(plan, before=Before.VIEW_DELETED)
        average = self._size.operations / self._size.lives
        operations = int(average * self._rng.uniform(0.5, 1.5))
        journal = Journal(Load(newest_ts=self.oracle.newest_ts), earlier=[self._anew(each) for each in self._kept])
        started_s = time.monotonic()
        exit_code = await self._run_under_load(connections, plan, journal, operations)
        load_s = time.monotonic() - started_s
        if plan.end is End.STOP and exit_code:
            self._tell([f"SIGTERM under load: exit code {exit_code}"])
        self._tell(await trio.to_thread.run_sync(self.snapshots.count_new))
        restart = await bring_back(self._daemon, plan)
        self.tally.sources[restart.view_from] += 1
        self.tally.faults.update(each.value for each in (plan.end, plan.before) if each is not Before.NOTHING)
        self.tally.load_s += load_s
        self.tally.restart_s += restart.total_s
        async with connected(self._daemon.address) as subject:
            await self._judge(subject, journal)
        self.tally.add(journal)
        load = journal.load
        ending = plan.end.value + (f", {plan.before.value}" if plan.before.value else "")
        self._report.say(
            f"life {number:>2}: {journal.operations:,} operations ({journal.operations / load_s:,.0f}/s), "
            f"{journal.lost.total()} lost, then {ending}: {load.count(Outcome.UNKNOWN)} outcomes unknown; "
            f"commit_ts {self.oracle.newest_ts}"
        )

    async def _run_under_load(
        self, connections: Sequence[AsyncStatehouse], plan: FaultPlan, journal: Journal, operations: int
    ) -> int:
        """Load the daemon, and end it after so many operations; its exit code."""
        exit_codes: list[int] = []

        async def end() -> None:
            await self._until(journal, operations)
            journal.over = True
            exit_codes.append((await strike(self._daemon, plan)).exit_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            nursery.start_soon(partial(self._clients.run, connections, self._size.clients, journal))
            nursery.start_soon(self.bank.run, connections, self._size.tellers, self._size.watchers, journal)
        return exit_codes[0]

    async def _until(self, journal: Journal, operations: int) -> None:
        """Wait for so many operations; less, if the daemon is gone or nobody gets on."""
        seen, seen_s, said_s = 0, time.monotonic(), time.monotonic()
        while journal.operations < operations:
            await trio.sleep(LOOK_S)
            now = time.monotonic()
            done = journal.operations - journal.lost.total()
            if done > seen:
                seen, seen_s = done, now
            if now - said_s > SAID_EVERY_S:
                said_s = now
                self._report.say(f"         {self.tally.calls.total() + journal.operations:,} operations")
            if not self._daemon.running:
                self._tell(["the daemon ended by itself"])
                return
            if now - seen_s > STUCK_S:
                self._tell([f"no call was answered for {STUCK_S:g} s"])
                return

    async def _judge(self, subject: OneCallSubject, journal: Journal) -> None:
        """Ask the daemon what there is, and hold what was written down against it."""
        started_s = time.monotonic()
        known = [txn_id for txn_id in self.oracle.placed if not is_name(txn_id)]
        remembered = self._rng.sample(known, min(REMEMBERED, len(known)))
        everybody = (*EVERYBODY, *self.oracle.lives.origins)
        journal.load.submissions.append(await commit_nothing(subject))
        again = await self._send_again(subject)
        evidence = await gather(subject, everybody, journal.load, self.oracle, remembered)
        log, newest_ts = self._daemon.data_dir / "log", self.oracle.newest_ts
        noted = await trio.to_thread.run_sync(sweep_notes, log, newest_ts, evidence.head_ts)
        evidence = evolve(evidence, answers={**evidence.answers, **again}, noted=noted)
        asked_s = time.monotonic()
        violations = self.oracle.judge(journal.load, evidence)
        violations += self._money.judge(evidence.events)
        states = {account: evidence.states[account] for account in ACCOUNTS}
        balances = {account: found[BALANCE] for account, found in states.items() if BALANCE in found}
        for wrong in (
            wrong_sum(balances, "after a restart"),
            *(wrong_statement(account, found) for account, found in states.items()),
        ):
            violations += [] if wrong is None else [wrong]
        self.oracle.forget()
        named = [submission for submission in journal.load.submissions if submission.at_once]
        self._kept = kept_for_later(self._rng, self._kept, named)
        self.tally.audit_s += asked_s - started_s
        self.tally.judge_s += time.monotonic() - asked_s
        self._tell([*violations, *self.bank.violations])
        self.bank.violations.clear()

    async def _send_again(self, subject: OneCallSubject) -> dict[str, Answer]:
        """What is answered to transactions of earlier lives that happened, sent once more, as they were and not."""
        happened = [submission for submission in self._kept if submission.txn_id in self.oracle.placed]
        answers: dict[str, Answer] = {}
        for submission in self._rng.sample(happened, min(REMEMBERED, len(happened))):
            answers[submission.txn_id] = await send_again(subject, submission)
            other = (*submission.operations, Staged(submission.operations[0].agent, "other", None))
            try:
                await subject.transact(evolve(submission, operations=other))
            except InvalidRequestError as error:
                refused = error.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
            else:
                refused = False
            if not refused:
                self._tell([f"{submission.txn_id}: its key was taken for another request"])
        self.tally.calls["transact after a restart"] += 2 * len(answers)
        return answers

    def _anew(self, submission: Submission) -> Submission:
        """A transaction of an earlier life, as it is known now."""
        commit_ts = self.oracle.placed.get(submission.txn_id)
        outcome = Outcome.UNKNOWN if commit_ts is None else Outcome.ACKNOWLEDGED
        return Submission(
            submission.txn_id,
            submission.operations,
            outcome,
            commit_ts,
            checks=submission.checks,
            at_once=True,
            revive=submission.revive,
        )

    async def _last_look(self) -> None:
        """The whole history once more, from a view that is rebuilt from the log alone, and all snapshots."""
        self._daemon.kill()
        self._tell(await trio.to_thread.run_sync(self.snapshots.count_new))
        plan = FaultPlan(End.KILL, Before.LOG_LEFT, 0.0, 0.0)
        self.tally.sources[(await bring_back(self._daemon, plan)).view_from] += 1
        money = MoneyJudge()
        violations: list[str] = []
        events = []
        async with connected(self._daemon.address) as subject:
            for agent in (everybody := (*EVERYBODY, *self.oracle.lives.origins)):
                replayed = [event async for event in subject.replay(agent, 0, self.oracle.newest_ts)]
                violations += self.oracle.judge_again(agent, replayed)
                events += replayed if agent in ACCOUNTS else []
        violations += money.judge(events)
        if money.balances != self._money.balances:
            violations.append("the accounts are others after a rebuild")
        exit_code = await trio.to_thread.run_sync(self._daemon.stop)
        if exit_code:
            violations.append(f"SIGTERM: exit code {exit_code}")
        violations += await trio.to_thread.run_sync(self.snapshots.count_new)
        self._tell(violations)
        self.tally.calls["replay of everything"] += len(everybody)

    @property
    def sums(self) -> int:
        """At how many commits the accounts were added up."""
        return self._money.sums

    def _tell(self, violations: Sequence[str]) -> None:
        for violation in violations:
            self._report.violation(violation, repeat=self._repeat)


def kept_for_later(rng: random.Random, kept: Sequence[Submission], sent: Sequence[Submission]) -> list[Submission]:
    """Some of them, each once: one that was kept and sent again is in both.

    It would be sent again twice in one life, and the floor of the second time held against the commit of the first.
    """
    each = list({submission.txn_id: submission for submission in (*kept, *sent)}.values())
    return rng.sample(each, min(KEPT, len(each)))
