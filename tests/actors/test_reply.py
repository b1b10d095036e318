"""The one-shot reply."""

import pytest
import trio
import trio.testing

from statehouse.actors.reply import Reply
from statehouse.errors import StorageError, TransactionError


def test_the_first_outcome_counts():
    reply = Reply()
    assert not reply.settled
    reply.succeed(1)
    reply.succeed(2)
    reply.fail(StorageError("late"))
    assert reply.settled
    assert reply.error is None
    assert reply.result() == 1


def test_the_first_error_counts():
    reply = Reply()
    reply.fail(StorageError("first"))
    reply.succeed(1)
    reply.fail(TransactionError("late"))
    with pytest.raises(StorageError, match="first"):
        reply.result()
    assert isinstance(reply.error, StorageError)


def test_none_is_a_value():
    assert Reply.of(None).result() is None
    with pytest.raises(StorageError):
        Reply.failed(StorageError("no")).result()


def test_a_reply_without_an_outcome_has_no_result():
    with pytest.raises(RuntimeError):
        Reply().result()


def test_a_callback_is_called_once_with_the_outcome():
    told = []
    reply = Reply()
    reply.then(lambda settled: told.append(settled.result()))
    assert told == []
    reply.succeed(7)
    reply.succeed(8)
    assert told == [7]
    reply.then(lambda settled: told.append(settled.result() + 1))
    assert told == [7, 8]


def test_a_reply_has_one_listener():
    reply = Reply()
    reply.then(lambda _: None)
    with pytest.raises(RuntimeError):
        reply.then(lambda _: None)


async def test_waiting_gives_the_outcome():
    reply = Reply()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reply.wait)
        await trio.testing.wait_all_tasks_blocked()
        reply.succeed(3)
    with trio.testing.assert_checkpoints():
        assert await reply.wait() == 3
    with pytest.raises(StorageError):
        await Reply.failed(StorageError("no")).wait()


async def test_a_cancelled_wait_ends_the_wait_and_nothing_else():
    reply = Reply()
    with trio.CancelScope() as scope:
        scope.cancel()
        await reply.wait()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:  # somebody else may wait now
        nursery.start_soon(reply.wait)
        await trio.testing.wait_all_tasks_blocked()
        reply.succeed(4)
    assert reply.result() == 4


async def test_an_outcome_in_the_turn_of_the_cancellation_is_not_lost():
    reply = Reply()
    got = []

    async def wait():
        got.append(await reply.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        reply.succeed(5)
        nursery.cancel_scope.cancel()
    assert got == [5]
