"""How a transaction becomes one commit: prepared by all of its partitions or none, then sent to the sequencer.

One agent: its partition prepares, and the section goes to the sequencer in the same turn. Several: the
partitions are taken in sorted order, so that two transactions can never wait for each other; each prepares its
leg and holds, so that nothing else of that agent gets in between; when all have, the sequencer gets one record
and they are released. A transaction without operations has no partition and is one record all the same.
"""

from collections.abc import Callable
from functools import partial

from statehouse.actors.messages import Transaction
from statehouse.actors.partitions import Partition, Partitions
from statehouse.actors.reply import Reply
from statehouse.errors import InvalidRequestError, StatehouseError, StorageError
from statehouse.storage.commit import PreparedCommit, PreparedSection, empty_commit

__all__ = ["carry_out"]


def carry_out(
    transaction: Transaction, partitions: Partitions, sequence: Callable[[PreparedCommit], Reply[int]]
) -> Reply[int]:
    """Commit a transaction; its commit_ts once it is durable.

    `sequence` puts a prepared commit in the sequencer's line, or raises a StatehouseError.
    """
    if not transaction.legs:
        try:
            return sequence(empty_commit(transaction.txn_id))
        except StatehouseError as error:
            return Reply.failed(error)  # raised, it would leave a transaction that was taken without an outcome
    if len(transaction.legs) > partitions.most_resident:
        agents = len(transaction.legs)
        return Reply.failed(
            InvalidRequestError(
                f"the transaction touches {agents} agents, the limit is {partitions.most_resident}",
                details={"limit": str(partitions.most_resident), "size": str(agents)},
            )
        )
    commit = _Commit(transaction, partitions, sequence)
    commit.advance()
    return commit.outcome


class _Commit:
    """One transaction between its first partition and its outcome."""

    def __init__(
        self, transaction: Transaction, partitions: Partitions, sequence: Callable[[PreparedCommit], Reply[int]]
    ) -> None:
        self.outcome: Reply[int] = Reply()
        self._transaction = transaction
        self._partitions = partitions
        self._sequence = sequence
        self._prepared: list[tuple[Partition, PreparedSection]] = []
        self._hold = len(transaction.legs) > 1
        self._failures = partitions.failures

    def advance(self) -> None:
        """Prepare the legs that are left; stops at a partition that is busy, which continues it."""
        legs = self._transaction.legs
        while len(self._prepared) < len(legs):
            leg = legs[len(self._prepared)]
            try:
                partition = self._partitions.of(leg.agent)
            except StatehouseError as error:
                self._give_up(error)
                return
            reply = partition.prepare(self._transaction.txn_id, leg, hold=self._hold)
            if not reply.settled:
                reply.then(partial(self._resume, partition))
                return
            if not self._take(partition, reply):
                return
        self._submit()

    def _resume(self, partition: Partition, reply: Reply[PreparedSection]) -> None:
        if self._take(partition, reply):
            self.advance()

    def _take(self, partition: Partition, reply: Reply[PreparedSection]) -> bool:
        error = reply.error
        if error is None:
            if not self._prepared:
                self._failures = self._partitions.failures
            self._prepared.append((partition, reply.result()))
            return True
        self._give_up(error)
        return False

    def _submit(self) -> None:
        if self._failures != self._partitions.failures:
            # Versions were counted on top of commits that have failed since.
            self._give_up(_because_of(self._partitions.last_failure))
            return
        prepared = PreparedCommit(self._transaction.txn_id, [section for _, section in self._prepared])
        try:
            sequenced = self._sequence(prepared)
        except StatehouseError as error:
            self._give_up(error)
            return
        self._release()
        sequenced.then(self._sequenced)

    def _sequenced(self, sequenced: Reply[int]) -> None:
        error = sequenced.error
        if error is not None:
            self.outcome.fail(error)  # the sequencer has had all partitions forget what is pending
            return
        commit_ts = sequenced.result()
        for partition, section in self._prepared:
            partition.durable(section, commit_ts)
        self.outcome.succeed(commit_ts)

    def _give_up(self, error: Exception) -> None:
        for partition, _ in self._prepared:
            self._partitions.restart(partition)
        self._release()
        self.outcome.fail(error)

    def _release(self) -> None:
        if self._hold:
            for partition, _ in self._prepared:
                partition.release()


def _because_of(failure: StatehouseError | None) -> StatehouseError:
    """The failure of a commit that others took along: of their kind, but an error of its own.

    That the outcome of theirs may be unknown does not pass on: this one was never sent.
    """
    kind, why = (StorageError, "") if failure is None else (type(failure), f": {failure.message}")
    return kind(f"a commit before this one failed, and nothing of this one was done{why}")
