"""The load: many clients over a few shared connections, every kind of call, and connections that break at any moment.

A client that loses its connection goes on, as a real one would. What it must know it asks for: a commit whose answer
was lost is committed again or aborted, which tells what became of it; now and then a client walks away instead, and
the outcome stays unknown to everyone but the judge. A write whose answer was lost is not repeated: its transaction is
given up. A transaction that is one call has a name, and is sent again by it: at once, twice at a time, and in later
lives of the daemon.
"""

import base64
import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, TypeVar

import trio
from histories.at_once import TWICE_SHARE, AtOnce, Sent
from histories.forking import Forks
from histories.submissions import Outcome, Staged
from histories.workload import AGENTS, KEYS, PAIR, PREFIXES

from linearizability.journal import PAUSE_S, TIMEOUT_MS, Journal, Journalled
from statehouse import AsyncStatehouse, ConnectionError, ErrorCode, TransactionError
from statehouse.types import AgentId, JsonObject

__all__ = ["NAMES", "Clients"]

T = TypeVar("T")

TURNS: Final[Mapping[str, float]] = {
    "transaction": 15.0,
    "transact": 14.0,
    "transact once more": 1.0,
    "lease": 0.5,
    "fork": 0.02,
    "end": 0.03,
    "read": 44.0,
    "read at a version": 6.0,
    "read at a commit": 5.0,
    "batch": 3.0,
    "scan": 9.0,
    "list": 4.0,
    "replay of a range": 5.0,
    "replay of everything": 0.004,
}
TRANSACTIONS: Final[Mapping[str, float]] = {
    "one write": 45.0,
    "one agent": 20.0,
    "several agents": 15.0,
    "pair": 8.0,
    "empty": 4.0,
    "aborted": 5.0,
    "left open": 3.0,
}
ONE_CALL: Final = ("one write", "one write", "one agent", "several agents", "pair")
RESOLUTIONS: Final[Mapping[str, float]] = {"commit again": 60.0, "abort": 20.0, "walk away": 20.0}
DELETE_SHARE: Final = 0.15
TTL_SHARE: Final = 0.05
"""Of the writes, those of values that expire while the daemon lives, or soon after."""
TTLS_S: Final = (1, 1, 2, 5)
NEAR_SHARE: Final = 0.3
"""Of the reads, those that look at what was written last, by whomever."""
RECENT_SHARE: Final = 0.7
"""Of the reads at a version, those of the last few."""
TEXT_BYTES: Final[Mapping[int, float]] = {0: 60.0, 60: 30.0, 600: 9.0, 6_000: 1.0}
"""Most values are small; above 256 bytes they stand in the log only, and the last kind spans pages."""
RANGE_COMMITS: Final[Mapping[int, float]] = {60: 96.0, 3_000: 4.0}
"""How far back a replay of a range goes. Whole histories are replayed rarely, or there would soon be nothing else."""
LEFT_OPEN_MS: Final = 2_000
REVIVE_SHARE: Final = 0.2
NAMES: Final = tuple(AgentId("other" if number % 5 == 4 else "default", f"fork-{number:02}") for number in range(24))
"""Of forks. They are few, because each has the events of all its ancestors, which are replayed at the end."""
NAMES_A_LIFE: Final = 2
LEASE_CHANGES: Final = ("acquired", "released")
BATCH_KEYS: Final = 12
BACK_COMMITS: Final = 2_000
"""How far back a read or batch at a commit goes."""
AT_COMMIT_SHARE: Final = 0.5
"""Of the batches, those at a commit."""


class Clients:
    """Clients that share some connections; `rng` decides what they send. What they know outlives a run."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._marks = 0
        self._turn = _drawer(rng, TURNS)
        self._kind = _drawer(rng, TRANSACTIONS)
        self._resolution = _drawer(rng, RESOLUTIONS)
        self._text_bytes = _drawer(rng, TEXT_BYTES)
        self._range = _drawer(rng, RANGE_COMMITS)
        self._text = base64.b64encode(rng.randbytes(2 * max(TEXT_BYTES))).decode()
        self._versions: dict[tuple[AgentId, str], int] = {}
        """The newest that anybody has read of a key: reads at a version are of those around it."""
        self._last: tuple[Staged, ...] = ()
        self._agents = list(AGENTS)
        """With those that were forked since."""
        self._at_once = AtOnce(rng, self._agents, KEYS, self._some_operations, LEASE_CHANGES, revive_share=REVIVE_SHARE)
        self._names: list[AgentId] = []
        """For forks: a few more in each life, so that there are forks in each."""
        self._forks = Forks(rng, self._agents, self._names, self._at_once.checks)
        self._turns: dict[str, Callable[[AsyncStatehouse, Journal], Awaitable[None]]] = {
            "transaction": self._transaction,
            "transact": self._transact,
            "transact once more": self._transact_once_more,
            "lease": self._lease,
            "fork": self._fork,
            "end": self._end,
            "read": self._read,
            "read at a version": self._read_version,
            "read at a commit": self._read_at,
            "batch": self._batch,
            "scan": self._scan,
            "list": self._list,
            "replay of a range": self._replay_range,
            "replay of everything": self._replay_everything,
        }

    async def run(self, connections: Sequence[AsyncStatehouse], clients: int, journal: Journal) -> None:
        """Load the daemon until the run is over and every client has lost it."""
        self._names += NAMES[len(self._names) :][:NAMES_A_LIFE]
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(self._client, connections[number % len(connections)], journal)

    async def _client(self, client: AsyncStatehouse, journal: Journal) -> None:
        while True:
            try:
                await self._turns[self._turn()](client, journal)
            except ConnectionError:
                if journal.over:
                    return
                await trio.sleep(PAUSE_S)

    # Transactions

    async def _transaction(self, client: AsyncStatehouse, journal: Journal) -> None:
        kind = self._kind()
        timeout_ms = LEFT_OPEN_MS if kind == "left open" else TIMEOUT_MS
        began_s = trio.current_time()
        try:
            await self._carry_out(client, journal, kind, timeout_ms)
        except TransactionError as error:
            # On a slow machine it may be over before all is staged; it must not be over before its time.
            early = trio.current_time() - began_s < timeout_ms / 1_000
            if error.code is not ErrorCode.TXN_EXPIRED or early:
                raise
            journal.expired += 1

    async def _carry_out(self, client: AsyncStatehouse, journal: Journal, kind: str, timeout_ms: int) -> None:
        operations = self._operations(kind)
        transaction, submission = await journal.begin(client, operations, timeout_ms)
        submission.revive = self._rng.random() < REVIVE_SHARE
        try:
            await journal.stage(client, submission)
        except ConnectionError:
            if journal.over or self._rng.random() < 0.5:
                raise
            await journal.abort(transaction)
            return
        if kind == "left open":
            return
        if kind == "aborted":
            await journal.abort(transaction)
        elif await journal.commit(transaction, submission):
            self._last = operations or self._last
        elif not journal.over and (resolution := self._resolution()) != "walk away":
            await journal.resolve(transaction, submission, aborting=resolution == "abort")

    async def _transact(self, client: AsyncStatehouse, journal: Journal) -> None:
        await self._at_once.send("transact", Journalled(client, journal), journal.load)

    async def _transact_once_more(self, client: AsyncStatehouse, journal: Journal) -> None:
        """One of an earlier life. If it happened then, the answer must say so; if not, it may happen now."""
        if not journal.earlier:
            return
        submission, load = journal.earlier.pop(), journal.load
        if submission.outcome is Outcome.UNKNOWN:
            submission.floor_ts, submission.after = load.newest_ts, len(load.reads)
            load.submissions.append(submission)
        journal.sent_again += 1
        sent = Sent(Journalled(client, journal), submission, load)
        await (sent.twice() if self._rng.random() < TWICE_SHARE else sent.once())

    async def _lease(self, client: AsyncStatehouse, journal: Journal) -> None:
        await self._at_once.send("lease", Journalled(client, journal), journal.load)

    async def _fork(self, client: AsyncStatehouse, journal: Journal) -> None:
        await self._forks.send("fork", Journalled(client, journal), journal.load, journal.load.began_ts)

    async def _end(self, client: AsyncStatehouse, journal: Journal) -> None:
        await self._forks.send("end", Journalled(client, journal), journal.load)

    def _some_operations(self) -> tuple[Staged, ...]:
        return self._operations(self._rng.choice(ONE_CALL))

    def _operations(self, kind: str) -> tuple[Staged, ...]:
        self._marks += 1
        rng = self._rng
        if kind == "empty":
            return ()
        if kind == "pair":
            agent = rng.choice(self._agents)
            return tuple(Staged(agent, key, self._value()) for key in PAIR)
        if kind == "several agents":
            agents = rng.sample(self._agents, rng.randint(2, 3))
            count = 2
        else:
            agents = [rng.choice(self._agents)]
            count = 1 if kind == "one write" else 3
        # Keys may repeat: two writes to one key in one transaction are two versions.
        return tuple(
            Staged(agent, rng.choice(KEYS), None)
            if rng.random() < DELETE_SHARE
            else Staged(agent, rng.choice(KEYS), self._value(), self._ttl_s())
            for agent in agents
            for _ in range(rng.randint(1, count))
        )

    def _ttl_s(self) -> int | None:
        return self._rng.choice(TTLS_S) if self._rng.random() < TTL_SHARE else None

    def _value(self) -> JsonObject:
        """It names the transaction that wrote it."""
        size = self._text_bytes()
        if not size:
            return {"mark": self._marks}
        start = self._marks % size
        return {"mark": self._marks, "text": self._text[start : start + size], "list": [None, {"n": 1.5}]}

    # Reads

    def _place(self) -> tuple[AgentId, str]:
        rng = self._rng
        if self._last and rng.random() < NEAR_SHARE:
            staged = rng.choice(self._last)
            return staged.agent, staged.key
        return rng.choice(self._agents), rng.choice(KEYS)

    async def _read(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, key = self._place()
        state = await journal.read(client, agent, key)
        self._versions[agent, key] = state.version

    async def _read_version(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, key = self._place()
        newest = self._versions.get((agent, key), 0)
        oldest = newest - 5 if self._rng.random() < RECENT_SHARE else 1
        await journal.read_version(client, agent, key, self._rng.randint(max(oldest, 1), newest + 1))

    async def _read_at(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, key = self._place()
        await journal.read_at(client, agent, key, self._commit_ts(journal))

    async def _batch(self, client: AsyncStatehouse, journal: Journal) -> None:
        places = list({self._place(): None for _ in range(BATCH_KEYS)})
        at_ts = self._commit_ts(journal) if self._rng.random() < AT_COMMIT_SHARE else None
        await journal.batch(client, places, at_ts)

    def _commit_ts(self, journal: Journal) -> int:
        """Of this life, so that the judge still knows it."""
        newest_ts = journal.load.newest_ts
        return self._rng.randint(max(newest_ts - BACK_COMMITS, journal.load.began_ts), newest_ts)

    async def _scan(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, _ = self._place()
        await journal.scan(client, agent, self._rng.choice(PREFIXES))

    async def _list(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, _ = self._place()
        await journal.list_keys(client, agent)

    async def _replay_range(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, _ = self._place()
        commits = self._range()
        first_ts = max(journal.load.newest_ts - self._rng.randint(0, commits), 1)
        last_ts = None if self._rng.random() < 0.5 else first_ts + self._rng.randint(0, commits)
        await journal.replay(client, agent, first_ts, last_ts)

    async def _replay_everything(self, client: AsyncStatehouse, journal: Journal) -> None:
        agent, _ = self._place()
        await journal.replay(client, agent, 0, None)


def _drawer(rng: random.Random, weights: Mapping[T, float]) -> Callable[[], T]:
    """Draws by weight; quicker than random.choices, which adds them up each time."""
    choices, sums = list(weights), list(accumulate(weights.values()))
    total = sums[-1]
    return lambda: choices[bisect_right(sums, rng.random() * total)]
