"""What shall happen, drawn from a seed before anything does: plain data, so that it can be made smaller and run again.

A plan is a few lives of one process on one data directory, each opened on what the one before has left, and one more
in which nothing goes wrong. A fault belongs to a life. It strikes at the first operation that it can strike, from the
`at`-th operation of the life's threads on; `at` counts from the opening of the store, so that small ones strike
recovery. A crash can strike any operation, or waits for one that is rare, or follows close on another fault of its
life: what that one has half done is then found by the next life. Which kinds there are is told here; what they do is in
faults.py.
"""

from collections.abc import Collection
from random import Random
from typing import Final

from attrs import evolve, frozen

__all__ = ["CRASHES", "ENDS", "KINDS", "Fault", "Life", "Plan", "draw_plan"]

CRASHES: Final = ("power loss", "kill -9")
"""They end a life; with the other ENDS a life ends when its clients have."""
WHILE_RUNNING: Final = {
    "sync fails": 5,
    "write fails": 4,
    "write has no room": 6,
    "disk full, and freed": 5,
    "read fails": 3,
    "another operation fails": 4,
    "view batch has no room": 5,
    "view batch fails, written": 4,
    "view batch finds damage": 2,
    "view read finds damage": 3,
    "view cannot be opened": 4,
}
WHILE_DOWN: Final = {
    "view missing": 3,
    "older view comes back": 3,
    "view damaged": 3,
    "bit flips in the log": 4,
    "bit flips in a snapshot": 3,
    "older segment comes back": 4,
    "older snapshot comes back": 4,
}
"""They strike between the life before and their own."""
KINDS: Final = (*CRASHES, *WHILE_RUNNING, *WHILE_DOWN)
ONLY_WITH_FSYNC: Final = frozenset({"bit flips in the log", "older segment comes back"})
"""Without, nothing on the disk says what had been synced, and nothing is promised about damage."""
ENDS: Final = ("stopped", "cancelled")

FARTHEST_OPERATION: Final = 250
RECOVERY_OPERATIONS: Final = 40
WHERE: Final = ("write", "write", "sync", "sync", "view apply", "rename", "remove", "truncate", "sync_dir", "open")
FAULTS_AT_MOST: Final = 3
"""In one life, besides its crash."""
FOLLOWED: Final = {"write has no room": 5, "sync fails": 2, "write fails": 1}
"""Faults that a crash follows: what they leave in the log is found only if no later commit is written over it."""
FOLLOWING_SHARE: Final = 0.25
"""Of the crashes."""
FOLLOWS_WITHIN: Final = 12
"""Operations."""
WHERE_FOLLOWING: Final = ("", "write", "write", "write", "sync")


@frozen
class Fault:
    """Something that goes wrong in one life."""

    number: int
    kind: str
    life: int
    at: int
    where: str = ""
    """Of a crash: the operation that it waits for; empty: any."""
    after: int = 0
    """Of a crash: the number of the fault that it follows, whose strike `at` then counts from; 0: none."""


@frozen
class Life:
    """One run of the process: how many clients load it, with how many transactions each, and how it ends by itself."""

    clients: int
    transactions: int
    end: str


@frozen(kw_only=True)
class Plan:
    """All that a seed decides beforehand."""

    seed: int
    fsync: bool
    segment_bytes: int
    max_bytes: int
    snapshot_interval: int
    snapshots_keep: int
    verify_all: bool
    tx_timeout_ms: int
    max_resident: int
    agents: int
    keys: int
    switch_share: float
    """Of a thread's operations, those after which others may have their turns."""
    sleep_share: float
    """Of these, those that take time."""
    lives: tuple[Life, ...]
    faults: tuple[Fault, ...]

    def reduced(
        self,
        *,
        faults: Collection[int] | None = None,
        clients: int | None = None,
        transactions: int | None = None,
        lives: int | None = None,
    ) -> "Plan":
        """With these faults only, and with at most so many clients, transactions of a client, and lives."""
        kept = self.lives[:lives]
        return evolve(
            self,
            faults=tuple(
                fault for fault in self.faults if (faults is None or fault.number in faults) and fault.life < len(kept)
            ),
            lives=tuple(
                evolve(
                    life,
                    clients=min(life.clients, life.clients if clients is None else clients),
                    transactions=min(life.transactions, life.transactions if transactions is None else transactions),
                )
                for life in kept
            ),
        )

    def faults_of(self, life: int) -> list[Fault]:
        """The faults of one life, in the order in which they are due."""
        return sorted((fault for fault in self.faults if fault.life == life), key=lambda fault: fault.at)


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(f"plan {seed}")
    fsync = rng.random() < 0.85
    lives: list[Life] = []
    faults: list[Fault] = []
    kinds = WHILE_RUNNING | WHILE_DOWN

    def add(kind: str, at: int, where: str = "", after: int = 0) -> None:
        faults.append(Fault(len(faults) + 1, kind, len(lives), at, where, after))

    for number in range(rng.choice((1, 2, 2, 3, 3, 4))):
        for kind in rng.choices(list(kinds), list(kinds.values()), k=rng.choice((0, 1, 1, 2, 2, FAULTS_AT_MOST))):
            if kind not in WHILE_DOWN:
                add(kind, 1 if kind == "view cannot be opened" and rng.random() < 0.5 else _operation(rng))
            elif number and (fsync or kind not in ONLY_WITH_FSYNC):
                add(kind, 0)
        end = rng.choices((*CRASHES, *ENDS), (45, 30, 13, 12))[0]
        if end in CRASHES and rng.random() < FOLLOWING_SHARE:
            add(rng.choices(list(FOLLOWED), list(FOLLOWED.values()))[0], _later_operation(rng))
            add(end, rng.randint(1, FOLLOWS_WITHIN), rng.choice(WHERE_FOLLOWING), after=len(faults))
        elif end in CRASHES:
            add(end, _operation(rng), rng.choice(WHERE) if rng.random() < 0.6 else "")
        lives.append(Life(rng.randint(2, 6), rng.randint(1, 12), end if end in ENDS else "stopped"))
    return Plan(
        seed=seed,
        fsync=fsync,
        segment_bytes=rng.choice((600, 1_024, 2_048, 4_096, 8_192, 16_384)),
        max_bytes=rng.choice((0, 0, 0, 0, 0, 0, 0, 20_000)),
        snapshot_interval=rng.choice((0, 2, 4, 8, 16)),
        snapshots_keep=rng.randint(1, 3),
        verify_all=rng.random() < 0.2,
        tx_timeout_ms=rng.choice((30_000, 30_000, 30_000, 40)),
        max_resident=rng.choice((1, 2, 1_000)),
        agents=rng.randint(1, 5),
        keys=rng.randint(1, 5),
        switch_share=rng.choice((0.1, 0.3, 0.6)),
        sleep_share=rng.choice((0.1, 0.5)),
        lives=tuple(lives),
        faults=tuple(faults),
    )


def _operation(rng: Random) -> int:
    """Often in recovery, and as often somewhere later."""
    if rng.random() < 0.4:
        return rng.randint(1, RECOVERY_OPERATIONS)
    return _later_operation(rng)


def _later_operation(rng: Random) -> int:
    return int(RECOVERY_OPERATIONS + (FARTHEST_OPERATION - RECOVERY_OPERATIONS) * rng.random() ** 2)
