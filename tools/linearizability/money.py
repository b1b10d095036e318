"""Judges the money: that the sum over all accounts is the same at every commit, in every read, replay and snapshot.

Pure, as histories/oracle.py is. An account is an agent with its `balance` and the last few entries of its `ledger`,
each of which says what it moved and what the balance was after it. All accounts are opened in one commit.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from attrs import define, field

from statehouse import ReplayEvent, StateResult
from statehouse.types import AgentId, JsonObject

__all__ = [
    "ACCOUNTS",
    "BALANCE",
    "LEDGER_ENTRIES",
    "OPENING",
    "TOTAL",
    "MoneyJudge",
    "amount_of",
    "ledger_key",
    "wrong_replay",
    "wrong_statement",
    "wrong_sum",
]

ACCOUNTS: Final = tuple(
    AgentId(namespace, f"account-{number:02}") for namespace in ("bank", "default") for number in range(20)
)
BALANCE: Final = "balance"
LEDGER: Final = "ledger/"
LEDGER_ENTRIES: Final = 8
"""The entries are a ring, so that a scan of an account stays small."""
OPENING: Final = 1_000
TOTAL: Final = OPENING * len(ACCOUNTS)

_ACCOUNTS: Final = frozenset(ACCOUNTS)


def ledger_key(number: int) -> str:
    """Where the account's entry of this number stands, until another takes its place."""
    return f"{LEDGER}{number % LEDGER_ENTRIES}"


def amount_of(value: "JsonObject | None", name: str = "amount") -> int:
    """A number of a balance or an entry; ValueError for what is none."""
    number = None if value is None else value.get(name)
    if not isinstance(number, int):
        raise ValueError(f"{value} has no {name}")  # noqa: TRY004 - it is about data, not about an argument
    return number


def wrong_sum(balances: Mapping[AgentId, StateResult], where: str) -> str | None:
    """What is wrong with the balances of all accounts at one moment."""
    missing = sorted(account for account in ACCOUNTS if account not in balances or not balances[account].exists)
    if missing:
        return f"{where}: {len(missing)} accounts are missing, the first is {missing[0]}"
    total = sum(amount_of(balances[account].value) for account in ACCOUNTS)
    return None if total == TOTAL else f"{where}: the accounts hold {total}, not {TOTAL}"


def wrong_statement(account: AgentId, found: Mapping[str, StateResult]) -> str | None:
    """What is wrong with an account that was read whole, at one moment: its ledger against its balance."""
    where = f"{account.namespace}/{account.agent_id}"
    if BALANCE not in found:
        return f"{where}: no balance"
    balance = found[BALANCE].value
    number = amount_of(balance, "number")
    entries = {key: state.value for key, state in found.items() if key.startswith(LEDGER)}
    expected = {ledger_key(each) for each in range(max(number - LEDGER_ENTRIES, 0) + 1, number + 1)}
    if entries.keys() != expected:
        return f"{where}: after {number} transfers the ledger has {sorted(entries)}"
    after = amount_of(balance)
    for each in range(number, max(number - LEDGER_ENTRIES, 0), -1):
        entry = entries[ledger_key(each)]
        if (amount_of(entry, "number"), amount_of(entry, "after")) != (each, after):
            return f"{where}: entry {each} of the ledger is {entry}, and the balance was {after}"
        after -= amount_of(entry)
    if number <= LEDGER_ENTRIES and after != OPENING:
        return f"{where}: it was opened with {OPENING}, and its ledger begins with {after}"
    return None


def wrong_replay(events: Sequence[ReplayEvent]) -> str | None:
    """What is wrong with successive events of an account: each moves what its ledger entry says, none is missing."""
    for before, event in pairwise(events):
        had, now = ({operation.key: operation.value for operation in each.operations} for each in (before, event))
        number = amount_of(had.get(BALANCE), "number") + 1
        entry = now.get(ledger_key(number))
        change = amount_of(now.get(BALANCE)) - amount_of(had.get(BALANCE))
        if amount_of(now.get(BALANCE), "number") != number or entry is None or amount_of(entry) != change:
            return (
                f"{event.namespace}/{event.agent_id}: a replay shows {now} at commit_ts {event.commit_ts} behind {had} "
                f"at {before.commit_ts}"
            )
    return None


@define
class MoneyJudge:
    """Folds the accounts' events; the balances after the last."""

    balances: dict[AgentId, tuple[int, int]] = field(factory=dict)
    """Of each account what it holds, and how many transfers it took part in."""
    total: int = 0
    sums: int = 0
    """How many commits were looked at."""

    def judge(self, events: Iterable[ReplayEvent]) -> Iterator[str]:
        """What is wrong with further commits; those of other agents are left out."""
        commits: dict[int, list[ReplayEvent]] = defaultdict(list)
        for event in events:
            if AgentId(event.namespace, event.agent_id) in _ACCOUNTS:
                commits[event.commit_ts].append(event)
        for commit_ts in sorted(commits):
            self.sums += 1
            opening = not self.balances
            try:
                for event in commits[commit_ts]:
                    yield from self._account(event, opening=opening)
            except ValueError as error:
                yield f"commit_ts {commit_ts}: {error}"
            if self.total != TOTAL:
                yield f"commit_ts {commit_ts}: the accounts hold {self.total}, not {TOTAL}"
                self.total = TOTAL  # each commit is told once

    def _account(self, event: ReplayEvent, *, opening: bool) -> Iterator[str]:
        account = AgentId(event.namespace, event.agent_id)
        written = {operation.key: operation.value for operation in event.operations}
        before, number = self.balances.get(account, (0, -1))
        after = amount_of(written.get(BALANCE))
        self.balances[account] = (after, number + 1)
        self.total += after - before
        where = f"commit_ts {event.commit_ts}: {event.namespace}/{event.agent_id}"
        if amount_of(written.get(BALANCE), "number") != number + 1:
            yield f"{where}: a transfer is left out or made twice, it has {written.get(BALANCE)} after number {number}"
        if opening:
            return
        entry = written.get(ledger_key(number + 1))
        if (amount_of(entry), amount_of(entry, "after")) != (after - before, after):
            yield f"{where}: {before} became {after}, and the ledger says {entry}"
