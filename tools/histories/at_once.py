"""The load of what one call does: transactions with conditions, sent once, again, or twice at a time; and leases.

A transaction has a name of the client's own, which is its idempotency key and stands in its metadata: that is how its
events are known, also when no answer came.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

import trio
from attrs import define, field

from histories.lineages import DELETED, REVIVED, Refused
from histories.subject import Transacting, outcome_of
from histories.submissions import Checked, Found, Leased, Load, Outcome, Repeated, Staged, Submission
from statehouse import AgentDeletedError, ConflictError, LeaseError, StatehouseError
from statehouse.types import AgentId

__all__ = ["AT_ONCE", "TWICE_SHARE", "AtOnce", "Sent", "deleted", "is_name", "new_name", "refusals"]

AT_ONCE: Final[Mapping[str, int]] = {"transact": 25, "lease": 6}
"""The kinds, with the weight of each beside those of the workload."""
WRONG_SHARE: Final = 0.15
"""Of the conditions, those that were never so."""
AGAIN_SHARE: Final = 0.2
"""Of the transactions, those that are sent once more when they were answered, or were not."""
TWICE_SHARE: Final = 0.1
"""Of the transactions, those that are sent twice at a time."""
NAMES: Final = "sent-"
NEVER_GIVEN: Final = 1 << 32
"""An epoch for an agent of which no lease was told. One that could be given might be, by an answer that was lost."""


@define
class AtOnce:
    """One load's transactions and leases; `operations(agents)` draws what a transaction does."""

    rng: Random
    agents: Sequence[AgentId]
    keys: Sequence[str]
    operations: Callable[[], tuple[Staged, ...]]
    changes: Sequence[str] = ("acquired", "renewed", "released")
    """Of leases. A client that sends a renewal again by itself must not: nobody knows how many there were."""
    revive_share: float = 0.0
    """Of the transactions, those that may bring deleted agents back."""
    _newest: dict[AgentId, int] = field(factory=dict)
    """The commit_ts of the last event of an agent that was told."""
    _held: dict[AgentId, int] = field(factory=dict)
    """The epoch of the last lease that was told."""

    async def send(self, kind: str, subject: Transacting, load: Load) -> None:
        """One of the kinds. Raises what the store says, but conflicts and leases that others hold."""
        if kind == "lease":
            await self._lease(subject, load)
            return
        operations = self.operations()
        checks = await self.checks(subject, [staged.agent for staged in operations], self.agents)
        submission = Submission(new_name(self.rng), operations, Outcome.UNKNOWN, checks=checks, at_once=True)
        submission.revive = self.rng.random() < self.revive_share
        submission.floor_ts, submission.after = load.newest_ts, len(load.reads)
        submission.sent_ns = subject.now_ns()
        load.submissions.append(submission)
        sent = Sent(subject, submission, load)
        if self.rng.random() < TWICE_SHARE:
            await sent.twice()
        else:
            try:
                await sent.once()
            except StatehouseError:
                if self.rng.random() >= AGAIN_SHARE:
                    raise
        if submission.outcome is not Outcome.NEVER and self.rng.random() < AGAIN_SHARE:
            await sent.once()
        for staged in operations if submission.commit_ts is not None else ():
            self._newest[staged.agent] = max(self._newest.get(staged.agent, 0), submission.commit_ts or 0)

    async def checks(
        self, subject: Transacting, agents: Sequence[AgentId], others: Sequence[AgentId]
    ) -> tuple[Checked, ...]:
        """Conditions on these agents and others that hold now, as far as is known, but for some."""
        rng, checks = self.rng, list[Checked]()
        for _ in range(rng.choice((0, 1, 1, 2))):
            agent = rng.choice((rng.choice(agents), rng.choice(others)))
            key, of = rng.choice(self.keys), rng.choice(("version", "version", "exists", "event", "lease"))
            wrong = rng.random() < WRONG_SHARE
            if of == "event":
                checks.append(Checked(agent, of, self._newest.get(agent, 0) + wrong))
            elif of == "lease":
                checks.append(Checked(agent, of, max(self._held.get(agent, NEVER_GIVEN) - wrong, 1)))
            else:
                state = await subject.get(agent, key)
                wanted = state.version + wrong if of == "version" else int(state.exists) ^ wrong
                checks.append(Checked(agent, of, wanted, key))
        return tuple(checks)

    async def _lease(self, subject: Transacting, load: Load) -> None:
        agent = self.rng.choice(self.agents)
        epoch, floor_ts = self._held.get(agent, 0), load.newest_ts
        what = self.rng.choice(self.changes) if epoch else "acquired"
        number = len(load.leased)
        load.leased.append(Leased(agent, floor_ts, what))  # until it is answered, which may be never
        try:
            epoch, commit_ts = await subject.lease(what, agent, epoch)
        except LeaseError:
            load.leased[number] = Leased(agent, floor_ts, "refused", commit_ts=0)
            return
        except StatehouseError as error:
            if outcome_of(error) is Outcome.NEVER:
                load.leased[number] = Leased(agent, floor_ts, "refused", commit_ts=0)
            raise
        load.leased[number] = Leased(agent, floor_ts, what, epoch, commit_ts)
        load.saw(commit_ts)
        self._held[agent] = epoch


@define
class Sent:
    """One transaction, sent as often as somebody likes."""

    subject: Transacting
    submission: Submission
    load: Load
    in_doubt: int = 0
    """Sends that are under way, or that ended without an answer."""

    async def twice(self) -> None:
        """Two at a time; then the first error, if there was one."""
        errors: list[StatehouseError] = []

        async def one() -> None:
            try:
                await self.once()
            except StatehouseError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        if errors:
            raise errors[0]

    async def once(self) -> None:
        """Write down what is known of it then. Refusals are written down, other errors raised."""
        submission, load = self.submission, self.load
        floor_ts, after, began_ns = load.newest_ts, len(load.reads), self.subject.now_ns()
        was_known = submission.outcome is Outcome.ACKNOWLEDGED
        self.in_doubt += 1
        try:
            answer = await self.subject.transact(submission)
        except ConflictError as error:
            if was_known:  # and must be known again
                load.repeated.append(Repeated(submission.txn_id, -1, deduplicated=True))
            load.reads += refusals(submission, error, floor_ts, after, (began_ns, self.subject.now_ns()))
            self._not_this_time()
        except AgentDeletedError as error:
            if was_known:
                load.repeated.append(Repeated(submission.txn_id, -1, deduplicated=True))
            load.reads.append(deleted(submission, error, floor_ts, after))
            self._not_this_time()
        except StatehouseError as error:
            if outcome_of(error) is Outcome.NEVER:
                self._not_this_time()
            raise
        else:
            load.repeated.append(answer)
            submission.outcome, submission.commit_ts = Outcome.ACKNOWLEDGED, answer.commit_ts
            load.saw(answer.commit_ts)

    def _not_this_time(self) -> None:
        self.in_doubt -= 1
        if self.submission.outcome is Outcome.UNKNOWN and not self.in_doubt:
            self.submission.outcome = Outcome.NEVER


def new_name(rng: Random) -> str:
    """A name for a transaction; no store has such ids."""
    return f"{NAMES}{rng.getrandbits(64):016x}"


def is_name(txn_id: str) -> bool:
    """Whether this is the client's name for a transaction, and not the store's id."""
    return txn_id.startswith(NAMES)


def refusals(
    submission: Submission, error: ConflictError, floor_ts: int, after: int, clock_ns: tuple[int, int]
) -> list[Found]:
    """What a conflict tells, as reads; `clock_ns` is as the call began, and as it ended."""
    return [
        Found(checked.agent, floor_ts, checked, failed.version, failed.exists, failed.agent_commit_ts, after, *clock_ns)
        for checked, failed in ((submission.checks[failed.index], failed) for failed in error.failed)
    ]


def deleted(submission: Submission, error: AgentDeletedError, floor_ts: int, after: int) -> Refused:
    """What the refusal of a commit tells of one of the agents that it was to write to."""
    checked = {check.agent for check in submission.checks}
    agents = sorted({staged.agent for staged in submission.operations} - checked)
    if submission.revive or not agents:
        return Refused(submission.operations[0].agent, floor_ts, REVIVED, after=after)
    ended_ts = int(error.details["commit_ts"])
    return Refused(agents[0], floor_ts, DELETED, ended_ts, others=tuple(agents[1:]), after=after)
