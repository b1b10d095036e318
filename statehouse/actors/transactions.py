"""The Transactions actor: the handle that the edge calls, and the task that frees what has expired.

What it knows and by which rules is `transactions_machine`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar, cast

import trio

from statehouse.actors.actor import Actor
from statehouse.actors.messages import (
    NO_METADATA,
    Abort,
    Begin,
    ChangeLease,
    Check,
    Commit,
    Committed,
    EndAgent,
    Ended,
    EndedAgent,
    ForkAgent,
    Forked,
    ForkOf,
    LeaseRequest,
    LeaseRow,
    ReleaseLease,
    Stage,
    StagedOperation,
    Transact,
    TransactArguments,
    Transacted,
    Transaction,
)
from statehouse.actors.reply import Reply
from statehouse.actors.supervisor import Supervisor
from statehouse.actors.transactions_machine import TransactionsMachine, TransactionsMessage
from statehouse.errors import InternalError, UnavailableError
from statehouse.limits import EXPIRY_SWEEP_S, TRANSACTIONS_MAILBOX_MESSAGES
from statehouse.types import AgentId

__all__ = ["Transactions"]

T = TypeVar("T")


class _Asked(Protocol[T]):
    @property
    def reply(self) -> Reply[T]: ...


class Transactions:
    """The actor, and its handle for the edge: each call is one message.

    `submit(transaction)` carries a transaction out and gives the reply for its outcome.
    """

    def __init__(
        self,
        machine: TransactionsMachine,
        submit: Callable[[Transaction], Reply[Committed]],
        supervisor: Supervisor,
    ) -> None:
        self._machine = machine
        self._submit = submit
        self._supervisor = supervisor
        self._actor = Actor(
            "transactions", self._turn, mailbox_messages=TRANSACTIONS_MAILBOX_MESSAGES, crashed=self._crashed
        )

    def begin(self, timeout_ms: int | None) -> Reply[str]:
        """Open a transaction; its id."""
        return self._ask(Begin(timeout_ms))

    def stage(self, txn_id: str, agent: AgentId, key: bytes, value: bytes | None, ttl_s: int = 0) -> Reply[None]:
        """Add a write, or a delete when `value` is None."""
        return self._ask(Stage(txn_id, agent, StagedOperation(key, value, ttl_s)))

    def commit(
        self,
        txn_id: str,
        checks: Sequence[Check] = (),
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        revive: bool = False,
    ) -> Reply[int]:
        """Commit; the commit_ts, once it is durable."""
        return self._ask(Commit(txn_id, checks, metadata, revive))

    def transact(self, arguments: TransactArguments) -> Reply[Transacted]:
        """Begin, stage and commit in one."""
        return self._ask(Transact(arguments))

    def change_lease(self, agent: AgentId, request: LeaseRequest) -> Reply[LeaseRow]:
        """Acquire, renew or release a lease; as it is after that, once it is durable."""
        return self._ask(ChangeLease(agent, request))

    def release_lease(self, agent: AgentId, epoch: int) -> Reply[int]:
        """Release a lease; the commit_ts of that, once it is durable."""
        released: Reply[int] = Reply()

        def pass_on(changed: Reply[LeaseRow]) -> None:
            error = changed.error
            if error is None:
                released.succeed(changed.result().commit_ts)
            else:
                released.fail(error)

        self.change_lease(agent, ReleaseLease(epoch)).then(pass_on)
        return released

    def fork_agent(self, agent: AgentId, fork_of: ForkOf) -> Reply[Forked]:
        """Have a new agent begin as a fork, once that is durable."""
        return self._ask(ForkAgent(agent, fork_of))

    def end_agent(self, agent: AgentId, checks: Sequence[Check], metadata: Mapping[str, str]) -> Reply[EndedAgent]:
        """Delete all that an agent has, once that is durable."""
        return self._ask(EndAgent(agent, checks, metadata))

    def abort(self, txn_id: str) -> Reply[None]:
        """Forget what is staged. Unknown and aborted ids succeed."""
        return self._ask(Abort(txn_id))

    async def run(self) -> None:
        """The actor's task, and the sweep that frees what has expired."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._actor.run)
            while True:
                await trio.sleep(EXPIRY_SWEEP_S)
                self._machine.expire(trio.current_time())

    def close(self) -> None:
        """Fail what is still owed: nothing that was taken and has no outcome is left without an answer."""
        self._actor.close("the daemon is stopping")
        self._machine.close(UnavailableError("the daemon is stopping; the outcome is unknown until it restarts"))

    def _ask(self, message: _Asked[T]) -> Reply[T]:
        self._actor.send(cast("TransactionsMessage", message))
        return message.reply

    def _turn(self, message: TransactionsMessage) -> None:
        transaction = self._machine.handle(message, trio.lowlevel.current_clock().current_time)
        if transaction is not None:
            # failpoint: transaction.taken
            self._submit(transaction).then(partial(self._ended, transaction.txn_id))

    def _ended(self, txn_id: str, outcome: Reply[Committed]) -> None:
        # Never refused, or its caller would wait for ever: there are at most COMMITS_IN_FLIGHT of them.
        self._actor.send(Ended(txn_id, outcome), refusable=False)

    def _crashed(self, message: TransactionsMessage, error: Exception) -> InternalError:
        # Every open transaction is in this machine, so there is nothing to begin again from.
        self._supervisor.escalate(error)
        return self._supervisor.bug(
            error,
            actor="transactions",
            last_message=type(message).__name__,
            open=self._machine.open,
            committing=self._machine.committing,
        )
