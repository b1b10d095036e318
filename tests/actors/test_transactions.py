"""The Transactions actor: its sweep on virtual time, what it hands on, and that nobody waits for ever."""

from itertools import count

import pytest
import trio
import trio.testing

from statehouse.actors import transactions as module
from statehouse.actors.messages import Committed, Leg, StagedOperation, Transaction
from statehouse.actors.reply import Reply
from statehouse.actors.supervisor import Supervisor
from statehouse.actors.transactions import Transactions
from statehouse.actors.transactions_machine import TransactionsMachine
from statehouse.errors import OverloadedError, TransactionError, UnavailableError
from statehouse.limits import Limits
from statehouse.types import AgentId

A = AgentId("default", "a")


def make_actor(submit, machine=None):
    return Transactions(machine or make_machine(), submit, Supervisor())


def make_machine():
    ids = map("t{}".format, count(1))
    return TransactionsMachine(Limits(), default_timeout_ms=30_000, new_id=ids.__next__, committed_ts=lambda _: None)


async def test_the_sweep_frees_what_nobody_asks_for_any_more(autojump_clock):
    machine = make_machine()
    actor = make_actor(lambda _: Reply(), machine)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        txn_id = actor.begin(3_000).result()
        actor.stage(txn_id, A, b"k", b"v").result()
        await trio.sleep(2.5)
        assert machine.open == 1
        await trio.sleep(2)
        assert machine.open == 0
        with pytest.raises(TransactionError, match="expired"):
            actor.commit(txn_id).result()
        nursery.cancel_scope.cancel()


async def test_the_actor_carries_out_what_was_taken_and_passes_the_outcome_on():
    submitted = []
    outcome = Reply()

    def submit(transaction):
        submitted.append(transaction)
        return outcome

    actor = make_actor(submit)
    txn_id = actor.begin(None).result()
    actor.stage(txn_id, A, b"k", b"v").result()
    reply = actor.commit(txn_id)
    assert submitted == [Transaction(txn_id, [Leg(A, [StagedOperation(b"k", b"v")])])]
    assert not reply.settled
    outcome.succeed(Committed(12, txn_id, []))
    assert reply.result() == 12


async def test_an_outcome_that_is_known_at_once_is_passed_on_by_the_actors_task():
    actor = make_actor(lambda _: Reply.of(Committed(5, "t1", [])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        assert await actor.commit(actor.begin(None).result()).wait() == 5
        nursery.cancel_scope.cancel()


async def test_an_outcome_finds_room_in_a_full_mailbox(monkeypatch):
    # Or its caller would wait for ever, and the place in flight would never be free again.
    monkeypatch.setattr(module, "TRANSACTIONS_MAILBOX_MESSAGES", 3)
    outcome = Reply()
    actor = make_actor(lambda _: outcome)
    reply = actor.commit(actor.begin(None).result())
    actor._actor.hold()
    waiting = [actor.begin(None) for _ in range(5)]
    assert isinstance(waiting[-1].error, OverloadedError)
    outcome.succeed(Committed(8, "t1", []))
    actor._actor.release()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reply.result() == 8


async def test_closing_the_actor_answers_what_it_owes():
    actor = make_actor(lambda _: Reply())
    reply = actor.commit(actor.begin(None).result())
    actor.close()
    with pytest.raises(UnavailableError, match="outcome is unknown"):
        reply.result()
    with pytest.raises(UnavailableError):
        actor.begin(None).result()
