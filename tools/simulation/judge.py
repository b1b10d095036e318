"""What is found after a recovery, held against what the clients know. It carries the history from life to life.

The oracle of tools/histories does most of it. Besides: every row of the recovered view is one that the log alone gives;
nothing that was acknowledged, or shown, is behind the head; and a transaction that was found not to have happened
never happens later. Without fsync, power loss may take commits from the end: then what is left must be exact as a
prefix, and what was lost must never come back.
"""

from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Final

import trio
from attrs import define, evolve, field
from histories.audit import AWAY_S, AWAY_TRIES, commit_nothing, gather, whole_history, wrong_versions
from histories.expiry_judged import Expiry
from histories.lineages import Forking, Refused
from histories.oracle import Oracle
from histories.subject import Subject
from histories.submissions import AnyRead, Found, Leased, Load, Outcome, Read, Replayed, Submission, VersionRead

from statehouse.errors import StorageError
from statehouse.storage.folding import LogFolder
from statehouse.storage.keys import EVERYTHING
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.record_notes import read_notes
from statehouse.storage.section import sections_of
from statehouse.storage.store import Store
from statehouse.storage.view import Reader, ViewDamagedError
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Judge", "is_mid_sweep"]

REMEMBERED: Final = 5
VERSIONS: Final = 10


@define
class Judge:
    """The judge of one seed. `load` is what the clients have done since the last time that all was found exact."""

    agents: tuple[AgentId, ...]
    rng: Random
    load: Load = field(factory=Load)
    violations: list[str] = field(factory=list)
    transactions: int = 0
    _oracle: Oracle = field(factory=Oracle)
    _before: list[Submission] = field(factory=list)
    """All transactions that were judged."""
    _leased: list[Leased] = field(factory=list)
    """All leases."""
    _forks: list[Forking] = field(factory=list)
    """All forks."""

    @property
    def expiry(self) -> Expiry:
        """What was seen of values that expire."""
        return self._oracle.expiry

    @property
    def all_agents(self) -> tuple[AgentId, ...]:
        """With those that came to be since."""
        return tuple(sorted({*self.agents, *self._oracle.history}))

    def is_behind(self, store: Store) -> bool:
        """Whether a commit is missing at the log's end that somebody had been told of, or shown."""
        return store.head_ts < self.load.newest_ts

    def forget_conflicts(self) -> None:
        """What conflicts told may be of a commit that nobody knows the number of, and that was lost as it may be."""
        self.load.reads = [evolve(read, after=0) for read in self.load.reads if not isinstance(read, Found | Refused)]
        for submission in self.load.submissions:
            submission.after = 0  # the reads that it counts are not all there any more
        for fork in self.load.forks:
            fork.after = 0

    def forget_lost(self, head_ts: int) -> None:
        """Commits behind this head were lost, as was allowed: begin again with those that are left."""
        everything = [*self._before, *self.load.submissions]
        for submission in everything:
            if submission.commit_ts is not None and submission.commit_ts > head_ts:
                submission.outcome, submission.commit_ts = Outcome.NEVER, None
        for submission in everything:
            submission.after = 0  # the reads that it counts are not all there any more
            submission.floor_ts = min(submission.floor_ts, head_ts)  # or it was sent when they were told of
        forks = [*self._forks, *self.load.forks]
        left = {fork.agent for fork in forks if fork.answered and fork.commit_ts <= head_ts}
        lost = {fork.agent for fork in forks if not fork.refused} - left  # what it showed was there, and not its own
        for fork in forks:
            if fork.commit_ts > head_ts:
                fork.answered, fork.refused = False, True
            fork.after, fork.floor_ts = 0, min(fork.floor_ts, head_ts)
        # A key that was not found may have been deleted by a commit that was lost; what was found has its commit.
        reads = [
            evolve(read, after=0) for read in self.load.reads if read.agent not in lost and _shows_only(read, head_ts)
        ]
        leased = [
            one for one in (*self._leased, *self.load.leased) if one.commit_ts is None or one.commit_ts <= head_ts
        ]
        self._oracle = Oracle()
        self._before, self._leased, self._forks = [], [], []
        self.load = Load(submissions=everything, reads=reads, newest_ts=head_ts, leased=leased, forks=forks)

    async def judge(self, subject: Subject, store: Store) -> None:
        """After a recovery, before anything else happens. Raises what the store does when it cannot be read."""
        known = list(self._oracle.submissions)
        remembered = self.rng.sample(known, min(REMEMBERED, len(known)))
        evidence = await gather(subject, self.all_agents, self.load, self._oracle, remembered)
        head_ts = evidence.head_ts
        for _ in range(AWAY_TRIES):
            if store.view_failed:  # by what was sent again
                await trio.sleep(AWAY_S)
        noted = frozenset(ts for ts in notes_of_sweeps(store, self._oracle.newest_ts) if ts <= head_ts)
        self.violations += wrong_rows(store)  # before the oracle, which a load can be given once
        self.violations += self._oracle.judge(self.load, evolve(evidence, noted=noted))
        unknown = self._oracle.unseen(self.load)
        if 0 < head_ts - self._oracle.newest_ts <= unknown:
            self._oracle.newest_ts = head_ts
        if self._oracle.newest_ts != head_ts:
            self.violations.append(f"the head is {head_ts}, the newest commit {self._oracle.newest_ts}")
        for submission in self.load.submissions:
            if submission.outcome is Outcome.UNKNOWN and not self._is_unseen(submission):
                submission.commit_ts = self._oracle.placed.get(submission.txn_id)
                submission.outcome = Outcome.NEVER if submission.commit_ts is None else Outcome.ACKNOWLEDGED
        self._before += self.load.submissions
        self._leased += self.load.leased
        self._forks += self.load.forks
        self.load = Load(self.load.undecided, newest_ts=self._oracle.newest_ts)

    def _is_unseen(self, submission: Submission) -> bool:
        """Whether it may have happened for ever after, because it leaves nothing to see."""
        return submission.ends is not None and submission.txn_id not in self._oracle.placed

    async def last_look(self, subject: Subject) -> None:
        """At the end, when all that expires has expired: the whole history once more, and one more commit."""
        self.violations += await whole_history(subject, self.all_agents, self._oracle)
        self.violations += await wrong_versions(subject, self._oracle, VERSIONS, self.rng)
        self.violations += self._oracle.left_over(subject.now_ns())
        last = await commit_nothing(subject)
        if last.commit_ts != self._oracle.newest_ts + 1:
            self.violations.append(f"after commit_ts {self._oracle.newest_ts} came {last.commit_ts}")


def _shows_only(read: AnyRead, head_ts: int) -> bool:
    """Whether a read shows nothing but commits up to this one, so that it must fit a history that ends there."""
    if read.floor_ts > head_ts:
        return False
    match read:
        case Found():
            return False
        case Read(prefix=None):
            return all(0 < state.commit_ts <= head_ts for state in read.found.values())
        case VersionRead():
            return 0 < read.found.commit_ts <= head_ts
        case Replayed():
            return all(event.commit_ts <= head_ts for event in read.events)
    return False


def rows_of(view: Reader) -> dict[bytes, bytes]:
    """Every row of a view."""
    return dict(view.scan(*EVERYTHING))


def wrong_rows(store: Store) -> list[str]:
    """Which rows of the view are not those that the log alone gives."""
    rebuilt = MemoryView()
    folder = LogFolder(rebuilt)
    for record in store._log.records(after=0):  # noqa: SLF001 - what recovery would be given, without a recovery
        if record.commit_ts > store.head_ts:
            break  # its group has failed, and the log took no more
        folder.add(record)
    folder.flush()
    snapshot = store.view_snapshot()
    try:
        return differences(rows_of(snapshot), rows_of(rebuilt)) if store.head_ts else []
    except ViewDamagedError as error:
        raise StorageError(f"the view is damaged: {error}") from error
    finally:
        snapshot.close()


def notes_of_sweeps(store: Store, after_ts: int) -> list[int]:
    """The commits after that one that note how far what had expired was deleted."""
    return [
        record.commit_ts
        for record in store._log.records(after=after_ts)  # noqa: SLF001
        if read_notes(record.payload).swept_until_ns is not None
    ]


def is_mid_sweep(store: Store) -> bool:
    """Whether something that had expired was deleted, and it was not noted yet how far; as far as the log is whole."""
    found = False
    with suppress(StorageError):
        for record in store._log.records(after=0):  # noqa: SLF001
            if read_notes(record.payload).swept_until_ns is not None:
                found = False
            for first, last in sections_of(record.payload):
                event = pb.ReplayEvent.FromString(record.payload[first:last])
                found |= any(operation.expired for operation in event.operations)
    return found


def differences(found: Mapping[bytes, bytes], expected: Mapping[bytes, bytes]) -> list[str]:
    """A line for the first row that is missing, too many or another."""
    wrong = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if not wrong:
        return []
    key, what = wrong[0], f"{len(wrong)} rows of the view are not what the log gives"
    return [f"{what}; the first, {key!r}, is {found.get(key)!r}, and the log gives {expected.get(key)!r}"]
