"""One resident partition: the handle that commits call, and the loop around its machine.

The rules are `partition`; here is what takes time. A leg whose judgement rests on what is pending holds the partition
until that is durable, which takes one group commit, and is then examined again: nothing can be pending the second time,
so it is answered from what is durable. If what was pending fails, the leg fails with its cause. A leg that needs
more of what its agent inherits than a turn may read holds the partition, too, until that was read in worker threads.
"""

from collections.abc import Callable
from functools import partial

from attrs import evolve

from statehouse.actors.actor import Actor
from statehouse.actors.messages import Findings, Idempotency, Inherited, Leg, Prepare, Transaction, Unread
from statehouse.actors.partition import UNSETTLED, PartitionMachine
from statehouse.actors.reply import Reply
from statehouse.errors import InternalError, LogPoisonedError, StatehouseError, StorageError
from statehouse.limits import PARTITION_MAILBOX_MESSAGES
from statehouse.storage.commit import PreparedSection
from statehouse.storage.record_notes import LeaseChange
from statehouse.types import AgentId

__all__ = ["Crashed", "Partition", "ReadInherited", "because_of"]


class Partition:
    """The handle of one resident partition."""

    def __init__(
        self,
        agent: AgentId,
        machine: Callable[[], PartitionMachine],
        barrier: Callable[[], Reply[None]],
        read_inherited: "ReadInherited",
        crashed: "Crashed",
    ) -> None:
        self.agent = agent
        self.used = True
        """Whether somebody has used it since the last sweep."""
        self.crashed_s: float | None = None
        self._new_machine = machine
        self._machine = machine()
        self._barrier = barrier
        self._read_inherited = read_inherited
        self._crashed = crashed
        self._failure: StatehouseError | None = None
        """Why what was pending has failed, since somebody began to wait for it."""
        self._actor: Actor[Prepare] = Actor(
            f"partition {agent.namespace}/{agent.agent_id}",
            self._turn,
            mailbox_messages=PARTITION_MAILBOX_MESSAGES,
            crashed=lambda message, error: self.bug(message.txn_id, error),
        )

    @property
    def name(self) -> str:
        """For logs and errors."""
        return self._actor.name

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the partition ended now."""
        return self._actor.idle and not self._machine.pending_commits

    @property
    def state(self) -> dict[str, object]:
        """A summary for the log."""
        return {"partition": self.name, "pending_commits": self._machine.pending_commits}

    def prepare(self, transaction: Transaction, leg: Leg, *, hold: bool = False) -> Reply[Findings | None]:
        """Examine one leg of a transaction; None: nothing is in the way, and `assign` may follow.

        With `hold`, take no other until `release`. Without, `assign` must follow in the turn that settles the reply.
        """
        message = Prepare(transaction.txn_id, leg, hold, transaction.idempotency, transaction.revive)
        self._actor.send(message)
        return message.reply

    def assign(self, transaction: Transaction, leg: Leg) -> PreparedSection:
        """Assign the versions of the leg that was examined. InternalError: a bug, and the partition begins again."""
        try:
            return self._machine.assign(transaction, leg)
        except Exception as error:  # the boundary of a turn, as in `Actor`
            raise self.bug(transaction.txn_id, error) from error

    def bug(self, txn_id: str, error: Exception) -> InternalError:
        """What a commit is told that met with a bug; the partition begins again, or the daemon stops."""
        return self._crashed(self, txn_id, error)

    def assign_lease(self, change: LeaseChange) -> None:
        """Count on the change of the lease that was found."""
        self._machine.assign_lease(change)

    def release(self) -> None:
        """End the hold of a `prepare`."""
        self._actor.release()

    def durable(self, section: PreparedSection, commit_ts: int, idempotency: Idempotency | None) -> None:
        """A section that was assigned is in the log and in the view."""
        self._machine.durable(section, commit_ts, idempotency)

    def lease_durable(self) -> None:
        """The oldest change of the lease that was assigned is in the log and in the view."""
        self._machine.lease_durable()

    def begin_again(self) -> None:
        """Forget what was read of the agent, which is another now: it became a fork, or was deleted."""
        self._machine.begin_again()

    def forget_pending(self, error: StatehouseError) -> None:
        """Everything pending has failed with `error`."""
        self._machine.forget_pending()
        self._failure = error

    def pause(self) -> None:
        """Take nothing until `restart`."""
        self._actor.hold()

    def restart(self) -> None:
        """Begin again from the view; what waits in the mailbox is handled then."""
        self._machine = self._new_machine()
        self._actor.release()

    async def run(self) -> None:
        """The partition's task."""
        await self._actor.run()

    def close(self, reason: str) -> None:
        """End the task; what waits fails."""
        self._actor.close(reason)

    def _turn(self, message: Prepare) -> None:
        findings = self._machine.examine(message)
        if isinstance(findings, Unread):
            self._read_first(message, findings)
            return
        if findings is UNSETTLED:
            self._settle_pending(message)
            return
        if message.hold:
            self._actor.hold()
            # failpoint: prepare.held
        message.reply.succeed(findings)

    def _read_first(self, message: Prepare, unread: Unread) -> None:
        """Examine the leg again when this was read; until then nothing new becomes pending."""
        self._actor.hold()
        self._read_inherited(message.txn_id, unread).then(partial(self._have_read, message))

    def _have_read(self, message: Prepare, inherited: Reply[Inherited]) -> None:
        error = inherited.error
        if error is None:
            self._actor.release(first=evolve(message, inherited={**message.inherited, **inherited.result()}))
        else:
            self._actor.release()
            message.reply.fail(error)

    def _settle_pending(self, message: Prepare) -> None:
        """Examine the leg again when everything that is pending is durable; until then nothing new becomes pending."""
        same_request = self._machine.under_way(message.idempotency)
        self._failure = None
        self._actor.hold()
        self._barrier().then(partial(self._settled_pending, message, same_request=same_request))

    def _settled_pending(self, message: Prepare, barrier: Reply[None], *, same_request: bool) -> None:
        error = barrier.error
        if error is None and self._failure is not None:
            error = because_of(self._failure)
            if same_request and isinstance(self._failure, LogPoisonedError):
                # What was asked for now may have been done after all: for the first who asked.
                error = LogPoisonedError(self._failure.message, outcome_unknown=self._failure.outcome_unknown)
        if error is None:
            self._actor.release(first=message)
        else:
            self._actor.release()
            message.reply.fail(error)


ReadInherited = Callable[[str, Unread], Reply[Inherited]]
"""Reads, for a transaction, what is inherited of keys. The reply has whatever StatehouseError that comes to."""
Crashed = Callable[[Partition, str, Exception], InternalError]
"""Told of a bug: the partition, the txn_id that it was busy with, and what was raised."""


def because_of(failure: StatehouseError | None) -> StatehouseError:
    """The failure of a commit that others took along: of their kind, but an error of its own.

    That the outcome of theirs may be unknown does not pass on: this one was never sent.
    """
    kind, why = (StorageError, "") if failure is None else (type(failure), f": {failure.message}")
    return kind(f"a commit before this one failed, and nothing of this one was done{why}")
