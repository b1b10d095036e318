"""Money in motion: tellers move it between accounts in transactions of two agents, and watchers count it meanwhile.

Nothing keeps two tellers from the same account but the preconditions of their commits: that both accounts are as they
were read. One that conflicts reads again. A transfer is one call, or begun, written and committed; one whose answer was
lost is asked for again until it is known what became of it, however often the connection breaks.
A watcher counts in a batch, which is one moment, now or at a commit; and by a double collect: all balances are read,
and read again, until two rounds show the same versions; the balances then stood all at once between the two. It also
reads single accounts: ledger and balance in one scan, and what happened lately in a replay.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import trio
from attrs import define, field
from histories.at_once import Sent, new_name
from histories.submissions import Checked, Outcome, Staged, Submission

from linearizability.journal import PAUSE_S, Journal, Journalled
from linearizability.money import (
    ACCOUNTS,
    BALANCE,
    OPENING,
    amount_of,
    ledger_key,
    wrong_replay,
    wrong_statement,
    wrong_sum,
)
from statehouse import AsyncStatehouse, ConflictError, ConnectionError, StateResult
from statehouse.types import AgentId, JsonObject

__all__ = ["Bank"]

BETWEEN_TRANSFERS_S: Final = (0.0, 0.25)
BETWEEN_COUNTS_S: Final = (0.0, 0.2)
ROUNDS: Final = 8
"""After so many a watcher gives up, because somebody moved money each time, and comes back later."""
STATEMENTS_PER_COUNT: Final = 10
RECENT_COMMITS: Final = 10_000
ONE_CALL_SHARE: Final = 0.6
"""Of the transfers, those that are one call."""
TRIES: Final = 4
"""Of a transfer that conflicts."""
ABORT_SHARE: Final = 0.3
"""Of the commits in doubt, those that a teller would rather take back than repeat."""


@define
class Bank:
    """What the tellers and the watchers saw. It outlives a run."""

    rng: random.Random
    counted: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    _opened_ts: int = 0

    async def open(self, client: AsyncStatehouse, journal: Journal) -> None:
        """Open all accounts, in one commit."""
        operations = tuple(Staged(account, BALANCE, {"amount": OPENING, "number": 0}) for account in ACCOUNTS)
        transaction, submission = await journal.begin(client, operations)
        await journal.stage(client, submission)
        await journal.commit(transaction, submission)
        self._opened_ts = submission.commit_ts or 0

    async def run(self, connections: Sequence[AsyncStatehouse], tellers: int, watchers: int, journal: Journal) -> None:
        """Move and count until the run is over and everybody has lost the daemon."""
        async with trio.open_nursery() as nursery:
            for number in range(tellers):
                nursery.start_soon(self._teller, connections[number % len(connections)], journal)
            for number in range(watchers):
                nursery.start_soon(self._watcher, connections[-1 - number % len(connections)], journal)

    async def _teller(self, client: AsyncStatehouse, journal: Journal) -> None:
        while True:
            try:
                await self._transfer(client, journal)
            except ConnectionError:
                if journal.over:
                    return
                await trio.sleep(PAUSE_S)
            await trio.sleep(self.rng.uniform(*BETWEEN_TRANSFERS_S))

    async def _transfer(self, client: AsyncStatehouse, journal: Journal) -> None:
        giver, taker = self.rng.sample(ACCOUNTS, 2)
        for _ in range(TRIES):
            had = [await journal.read(client, account, BALANCE) for account in (giver, taker)]
            amount = self.rng.randint(0, amount_of(had[0].value))
            operations: list[Staged] = []
            checks: list[Checked] = []
            for account, state, change, other in ((giver, had[0], -amount, taker), (taker, had[1], amount, giver)):
                after, number = amount_of(state.value) + change, amount_of(state.value, "number") + 1
                entry: JsonObject = {"amount": change, "after": after, "number": number, "with": other.agent_id}
                operations.append(Staged(account, BALANCE, {"amount": after, "number": number}))
                operations.append(Staged(account, ledger_key(number), entry))
                checks.append(self._unchanged(account, state))
            carry_out = self._in_one_call if self.rng.random() < ONE_CALL_SHARE else self._in_steps
            submission = await carry_out(client, tuple(operations), tuple(checks), journal)
            if submission.outcome is not Outcome.NEVER:
                return
            self.counted["transfers that conflicted, or were taken back"] += 1

    def _unchanged(self, account: AgentId, state: StateResult) -> Checked:
        """That nobody has moved the account's money since it was read: every transfer writes its balance."""
        if self.rng.random() < 0.5:
            return Checked(account, "version", state.version, BALANCE)
        return Checked(account, "event", state.commit_ts)

    async def _in_one_call(
        self, client: AsyncStatehouse, operations: tuple[Staged, ...], checks: tuple[Checked, ...], journal: Journal
    ) -> Submission:
        """All of it or nothing. A conflict behind an answer that was lost leaves the outcome unknown."""
        load = journal.load
        submission = Submission(new_name(self.rng), operations, Outcome.UNKNOWN, checks=checks, at_once=True)
        submission.floor_ts, submission.after = load.newest_ts, len(load.reads)
        load.submissions.append(submission)
        sent = Sent(Journalled(client, journal), submission, load)
        while True:
            try:
                await sent.once()
            except ConnectionError:
                if journal.over:
                    return submission
                await trio.sleep(PAUSE_S)
            else:
                break
        if submission.commit_ts is not None:
            self.counted["transfers"] += 1
            self.counted["transfers in one call"] += 1
            self.counted["transfers whose commit was in doubt"] += sent.in_doubt > 1
        return submission

    async def _in_steps(
        self, client: AsyncStatehouse, operations: tuple[Staged, ...], checks: tuple[Checked, ...], journal: Journal
    ) -> Submission:
        """All of it or nothing; which of them is known when this returns, unless the run is over."""
        transaction, submission = await journal.begin(client, operations)
        submission.checks = checks
        await journal.stage(client, submission)
        try:
            known = await journal.commit(transaction, submission)
        except ConflictError:
            return submission
        if not known:
            await journal.resolve(transaction, submission, aborting=self.rng.random() < ABORT_SHARE)
        if submission.commit_ts is not None:
            self.counted["transfers"] += 1
            self.counted["transfers whose commit was in doubt"] += not known
        return submission

    async def _watcher(self, client: AsyncStatehouse, journal: Journal) -> None:
        while True:
            try:
                await self._count(client, journal)
                await self._count_at_once(client, journal)
                for _ in range(STATEMENTS_PER_COUNT):
                    await self._statement(client, journal)
                await self._recent(client, journal)
            except ConnectionError:
                if journal.over:
                    return
                await trio.sleep(PAUSE_S)
            await trio.sleep(self.rng.uniform(*BETWEEN_COUNTS_S))

    async def _count(self, client: AsyncStatehouse, journal: Journal) -> None:
        before: dict[AgentId, StateResult] = {}
        for _ in range(ROUNDS):
            now = await self._collect(client, journal)
            if now == before:
                self.counted["snapshots by double collect"] += 1
                self._tell(wrong_sum(now, "a double collect"))
                return
            before = now
        self.counted["double collects given up"] += 1

    async def _count_at_once(self, client: AsyncStatehouse, journal: Journal) -> None:
        """Now, and as it was at some commit since the accounts were opened."""
        places = [(account, BALANCE) for account in ACCOUNTS]
        for at_ts in (None, self.rng.randint(max(self._opened_ts, journal.load.began_ts), journal.load.newest_ts)):
            found = await journal.batch(client, places, at_ts)
            self.counted["snapshots in one batch"] += 1
            balances = {account: state for (account, _), state in found.items()}
            self._tell(wrong_sum(balances, "a batch" if at_ts is None else f"a batch as of commit_ts {at_ts}"))

    async def _collect(self, client: AsyncStatehouse, journal: Journal) -> dict[AgentId, StateResult]:
        found: dict[AgentId, StateResult] = {}
        failures: list[ConnectionError] = []

        async def read(account: AgentId) -> None:
            try:
                found[account] = await journal.read(client, account, BALANCE)
            except ConnectionError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for account in ACCOUNTS:
                nursery.start_soon(read, account)
        if failures:
            raise failures[0]
        return found

    async def _statement(self, client: AsyncStatehouse, journal: Journal) -> None:
        account = self.rng.choice(ACCOUNTS)
        found = await journal.scan(client, account, "")
        self.counted["statements"] += 1
        self._tell(wrong_statement(account, found))

    async def _recent(self, client: AsyncStatehouse, journal: Journal) -> None:
        account = self.rng.choice(ACCOUNTS)
        first_ts = max(journal.load.newest_ts - self.rng.randint(0, RECENT_COMMITS), 1)
        events = await journal.replay(client, account, first_ts, None)
        self.counted["replays of an account"] += 1
        self._tell(wrong_replay(events))

    def _tell(self, wrong: str | None) -> None:
        if wrong is not None:
            self.violations.append(wrong)
