"""How a transaction becomes one commit: prepared by all of its partitions or none, then sent to the sequencer.

First every partition examines its leg: it reads what it needs, compares what was asked to hold, and changes nothing.
Then all assign their versions, and the sequencer gets one record, in one go that nothing can interrupt. So what stands
against a commit (its conditions do not hold, it is a repeated one) is found before there is anything to take back.

One agent: all of it is one turn of its partition. Several: the partitions are taken in sorted order, so that two
transactions can never wait for each other, and each holds from its examination to the end, so that nothing else of that
agent gets in between. An agent on which a condition rests and that is not written has a leg without operations: it is
examined and held like the others, and has no section. A transaction without legs is one record all the same.

A fork and an agent's end are of one agent, whose partition holds until they are durable or have failed, and then knows
nothing of before. What an end deletes is found and encoded in a worker thread (`endings`).
"""

from collections.abc import Callable, Sequence
from functools import partial

from statehouse.actors.endings import Ending
from statehouse.actors.messages import Committed, Findings, FoundFork, Transaction
from statehouse.actors.partitions import Partitions
from statehouse.actors.reply import Reply
from statehouse.actors.resident import Partition, because_of
from statehouse.errors import ConflictError, FailedPrecondition, InvalidRequestError, StatehouseError, StorageError
from statehouse.storage.commit import AgentCounters, PreparedCommit, PreparedSection, empty_commit
from statehouse.storage.record_notes import NO_NOTES, LeaseChange, Notes
from statehouse.storage.section import Section
from statehouse.types import AgentId

__all__ = ["carry_out"]

Submit = Callable[[PreparedCommit], Reply[int]]
"""Puts a prepared commit in the sequencer's line; the commit_ts once it is durable. Raises a StatehouseError."""
SectionOf = Callable[[AgentId, int], Section | None]
"""The section of an agent in the commit of a commit_ts, from the log. Raises a StatehouseError."""
BuildEnd = Callable[[Ending], Reply[PreparedSection]]
"""The section that deletes all that an agent has."""
CONDITIONS_NAMED = 5
"""A message tells so many of the conditions that did not hold; `failed` has all."""


def carry_out(
    transaction: Transaction,
    partitions: Partitions,
    sequence: Submit,
    section_of: SectionOf,
    build_end: BuildEnd,
) -> Reply[Committed]:
    """Commit a transaction once it is durable, or answer a repeated one with what the first request committed.

    Conditions that do not hold are a ConflictError, with all of them.
    """
    if len(transaction.legs) > partitions.most_resident:
        agents = len(transaction.legs)
        return Reply.failed(
            InvalidRequestError(
                f"the transaction touches {agents} agents, the limit is {partitions.most_resident}",
                details={"limit": str(partitions.most_resident), "size": str(agents)},
            )
        )
    commit = _Commit(transaction, partitions, sequence, section_of, build_end)
    commit.advance()
    return commit.outcome


class _Commit:
    """One transaction between its first partition and its outcome."""

    def __init__(
        self,
        transaction: Transaction,
        partitions: Partitions,
        sequence: Submit,
        section_of: SectionOf,
        build_end: BuildEnd,
    ) -> None:
        self.outcome: Reply[Committed] = Reply()
        self._transaction = transaction
        self._partitions = partitions
        self._sequence = sequence
        self._section_of = section_of
        self._build_end = build_end
        self._examined: list[Partition] = []
        """Those of the first legs, in their order; held, when there are several legs, or one that is exclusive."""
        self._findings: list[Findings] = []
        self._prepared: list[tuple[Partition, PreparedSection]] = []
        self._lease: LeaseChange | None = None
        """What the commit does to the lease of its one agent."""
        self._leased: Partition | None = None
        """The agent's partition, once that counts on it."""
        self._fork: FoundFork | None = None
        self._end: PreparedSection | None = None
        """What the commit deletes of its one agent, which ends with it."""
        self._exclusive = any(leg.exclusive is not None for leg in transaction.legs)
        self._hold = self._exclusive or len(transaction.legs) > 1
        self._failures = partitions.failures

    def advance(self) -> None:
        """Have the legs that are left examined; stops at a partition that is busy, which continues it."""
        legs = self._transaction.legs
        while len(self._examined) < len(legs):
            leg = legs[len(self._examined)]
            try:
                partition = self._partitions.of(leg.agent)
            except StatehouseError as error:
                self._give_up(error)
                return
            reply = partition.prepare(self._transaction, leg, hold=self._hold)
            if not reply.settled:
                reply.then(partial(self._resume, partition))
                return
            if not self._take(partition, reply):
                return
        self._decide()

    def _resume(self, partition: Partition, reply: Reply[Findings | None]) -> None:
        if self._take(partition, reply):
            self.advance()

    def _take(self, partition: Partition, reply: Reply[Findings | None]) -> bool:
        error = reply.error
        if error is not None:
            self._give_up(error)
            return False
        if not self._examined:
            self._failures = self._partitions.failures
        self._examined.append(partition)
        findings = reply.result()
        if findings is not None:
            self._findings.append(findings)
        return True

    def _decide(self) -> None:
        """All legs were examined, and nothing has changed since."""
        if self._failures != self._partitions.failures:
            # What was examined rests on commits that have failed since.
            self._give_up(because_of(self._partitions.last_failure))
            return
        if self._findings:
            earlier = next((found.earlier for found in self._findings if found.earlier is not None), None)
            if earlier is not None:
                self._answer_again(earlier.commit_ts)
                return
            failed = [condition for found in self._findings for condition in found.failed]
            if failed:
                failed.sort(key=lambda condition: condition.index)
                self._give_up(_conflict(failed))
                return
            found = self._findings[0]
            if found.ended_ts or found.is_nothing_due:
                self._release()
                self.outcome.succeed(Committed(found.ended_ts, self._transaction.txn_id, ()))
                return
            if found.ending is not None:
                self._find_end(found.ending)
                return
            self._lease, self._fork = found.lease, found.fork
        self._submit()

    def _find_end(self, counters: AgentCounters) -> None:
        transaction = self._transaction
        ending = Ending(transaction.txn_id, transaction.legs[0].agent, transaction.metadata, counters)
        self._build_end(ending).then(self._end_found)

    def _end_found(self, built: Reply[PreparedSection]) -> None:
        if built.error is not None:
            self._give_up(built.error)
            return
        # What may have failed meanwhile is no concern of it: nothing of the agent was pending, or became so.
        self._end = built.result()
        try:
            self._submit()
        except Exception as error:  # noqa: BLE001 - the boundary of a turn, as in `Actor`: this is none of an actor's
            self._give_up(self._examined[0].bug(self._transaction.txn_id, error))

    def _answer_again(self, commit_ts: int) -> None:
        """The answer of the earlier request: what it wrote stands in the log."""
        self._release()
        sections: list[Section] = []
        try:
            for leg in self._transaction.legs:
                if leg.operations:
                    section = self._section_of(leg.agent, commit_ts)
                    if section is None or len(section.operations) != len(leg.operations):
                        raise StorageError(f"the earlier request, commit_ts {commit_ts}, cannot be read")
                    sections.append(section)
        except StatehouseError as error:
            self.outcome.fail(error)
        else:
            self.outcome.succeed(Committed(commit_ts, sections[0].txn_id, sections, deduplicated=True))

    def _submit(self) -> None:
        try:
            commit = self._assign()
            # failpoint: prepare.submitting
            sequenced = self._sequence(commit)
        except StatehouseError as error:
            self._give_up(error)
            return
        if not self._exclusive:
            self._release()
        sequenced.then(partial(self._sequenced, commit.sections))

    def _assign(self) -> PreparedCommit:
        transaction = self._transaction
        for partition, leg in zip(self._examined, transaction.legs, strict=True):
            if leg.operations or leg.expire:
                self._prepared.append((partition, partition.assign(transaction, leg)))
        notes = NO_NOTES
        if self._lease is not None:
            self._leased = self._examined[0]
            self._leased.assign_lease(self._lease)
            notes = Notes(lease=self._lease)
        elif self._fork is not None:
            notes = Notes(fork=self._fork.note)
        elif self._end is not None:
            notes = Notes(end=transaction.legs[0].agent)
            if self._end.operations:
                return PreparedCommit(transaction.txn_id, [self._end], notes)
        elif transaction.idempotency is not None:
            notes = Notes(idempotency=transaction.idempotency)
        if not self._prepared:
            return empty_commit(transaction.txn_id, notes)
        return PreparedCommit(transaction.txn_id, [section for _, section in self._prepared], notes)

    def _sequenced(self, sections: Sequence[PreparedSection], sequenced: Reply[int]) -> None:
        if self._exclusive:
            for partition in self._examined:
                partition.begin_again()
            self._release()
        error = sequenced.error
        if error is not None:
            self.outcome.fail(error)  # the sequencer has had all partitions forget what is pending
            return
        commit_ts = sequenced.result()
        transaction = self._transaction
        for partition, section in self._prepared:
            partition.durable(section, commit_ts, transaction.idempotency)
        if self._leased is not None:
            self._leased.lease_durable()
        self.outcome.succeed(Committed(commit_ts, transaction.txn_id, sections, self._lease, fork=self._fork))

    def _give_up(self, error: Exception) -> None:
        """What was only examined needs nothing; what was assigned is forgotten with its partition's machine."""
        for partition, _ in self._prepared:
            self._partitions.restart(partition)
        if self._leased is not None:
            self._partitions.restart(self._leased)
        self._release()
        self.outcome.fail(error)

    def _release(self) -> None:
        if self._hold:
            for partition in self._examined:
                partition.release()


def _conflict(failed: list[FailedPrecondition]) -> ConflictError:
    places = ", ".join(str(condition.index) for condition in failed[:CONDITIONS_NAMED])
    more = f" and {len(failed) - CONDITIONS_NAMED} more" if len(failed) > CONDITIONS_NAMED else ""
    which = "precondition" if len(failed) == 1 else "preconditions"
    return ConflictError(f"{which} {places}{more} of the commit did not hold; nothing was done", failed=failed)
