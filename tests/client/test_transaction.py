"""What a transaction object knows of its outcome."""

import anyio
import pytest
from client.fix_server import cancelled_once

from statehouse import (
    AsyncStatehouse,
    ConnectionError,
    DiskFullError,
    ErrorCode,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    StorageError,
    TransactionError,
    UnauthenticatedError,
)
from statehouse.client import async_transaction
from statehouse.rpc.client.faults import DeadlineError, LostCallError, NotConnectedError, NotProcessedError


def test_a_second_commit_is_an_error_without_a_call(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            assert await txn.commit() == 1
            memory_server.cancelled.clear()
            for again in (txn.commit, txn.abort):
                with pytest.raises(TransactionError, match="is committed") as caught:
                    await again()
                assert caught.value.code is ErrorCode.TXN_ALREADY_COMMITTED
            with pytest.raises(TransactionError, match="write to it"):
                await txn.write("a", "k", {})
            with pytest.raises(TransactionError, match="delete in it"):
                await txn.delete("a", "k")
            assert "Commit" not in memory_server.cancelled
            assert "Abort" not in memory_server.cancelled

    run(main)


def test_two_tasks_that_commit_one_transaction_commit_it_once(run, memory_server):
    async def main():
        outcomes = []
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)

            async def commit():
                try:
                    outcomes.append(await txn.commit())
                except TransactionError as error:
                    outcomes.append(str(error))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit)
                tasks.start_soon(commit)
        assert sorted(outcomes, key=str) == [1, "cannot commit it: the transaction is being committed"]

    run(main)


def test_abort_is_idempotent_and_ends_it(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            await txn.write("a", "k", {})
            await txn.abort()
            await txn.abort()
            with pytest.raises(TransactionError, match="is aborted") as caught:
                await txn.commit()
            assert caught.value.code is ErrorCode.TXN_NOT_FOUND
            assert await client.list_keys("a") == []

    run(main)


def test_leaving_by_an_exception_aborts(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            with pytest.raises(KeyError):  # noqa: PT012
                async with await client.begin_transaction(local=False) as txn:
                    await txn.write("a", "k", {})
                    raise KeyError
            assert memory_server.open == {}
            assert await client.list_keys("a") == []

    run(main)


def test_leaving_by_cancellation_aborts_too(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            with anyio.CancelScope() as scope:
                async with await client.begin_transaction(local=False):
                    scope.cancel()
                    await anyio.sleep_forever()
            assert memory_server.open == {}

    run(main)


def test_an_abort_that_fails_or_hangs_does_not_hide_the_exception(run, memory_server, monkeypatch):
    monkeypatch.setattr(async_transaction, "ABORT_TIMEOUT_S", 0.05)
    memory_server.hold = {"Abort"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            with pytest.raises(KeyError):
                async with await client.begin_transaction(local=False):
                    raise KeyError
            txn = await client.begin_transaction(local=False)
        with pytest.raises(KeyError):  # now the client is closed
            async with txn:
                raise KeyError

    run(main)


def test_what_ended_inside_its_block_is_left_alone(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            async with await client.begin_transaction(local=False) as committed:
                assert await committed.commit() == 1
            async with await client.begin_transaction(local=False) as aborted:
                await aborted.abort()
            assert len(memory_server.committed) == 1

    run(main)


def test_a_lost_answer_leaves_the_outcome_to_the_next_commit(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            await txn.write("a", "k", {"n": 1})
            memory_server.lose_answer_of_commit = True
            with pytest.raises(ConnectionError, match="the answer was lost"):
                await txn.commit()
            assert "not known" in repr(txn)
            with pytest.raises(TransactionError, match="not known"):
                await txn.write("a", "k", {"n": 2})
            memory_server.lose_answer_of_commit = False
            assert await txn.commit() == 1
            assert len(memory_server.committed) == 1
            with pytest.raises(TransactionError):
                await txn.commit()

    run(main)


def test_a_cancelled_commit_may_be_asked_for_again(run, memory_server):
    memory_server.hold = {"Commit"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            await cancelled_once(lambda: memory_server.held, txn.commit())
            assert "not known" in repr(txn)
            memory_server.released.set()
            assert await txn.commit() == 1

    run(main)


def test_a_commit_that_never_happened_says_so_when_asked_again(run, memory_server):
    memory_server.hold = {"Commit"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            await cancelled_once(lambda: memory_server.held, txn.commit())
            memory_server.open.clear()  # the daemon was restarted, and open transactions with it
            memory_server.hold = set()
            with pytest.raises(TransactionError, match="no transaction"):
                await txn.commit()
            with pytest.raises(TransactionError, match="not committed"):
                await txn.commit()

    run(main)


def test_the_block_of_an_undecided_commit_asks_again_or_leaves_it_open(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            memory_server.lose_answer_of_commit = True
            async with await client.begin_transaction(local=False) as settled:
                with pytest.raises(ConnectionError):
                    await settled.commit()
                memory_server.lose_answer_of_commit = False
            assert repr(settled).endswith("committed)")

            memory_server.lose_answer_of_commit = True
            with pytest.raises(ConnectionError):
                async with await client.begin_transaction(local=False) as later:
                    await later.commit()
            memory_server.lose_answer_of_commit = False
            assert await later.commit() == 2

    run(main)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OverloadedError("busy"), "open"),
        (UnauthenticatedError("a token"), "open"),
        (PermissionDeniedError("a role"), "open"),
        (DiskFullError("full"), "not committed"),
        (StorageError("broken"), "not committed"),
        (InvalidRequestError("too large"), "not committed"),
        (TransactionError("expired"), "not committed"),
        (InternalError("a bug"), "not known"),
        (ConnectionError("gone"), "not known"),
        (LostCallError("gone"), "not known"),
        (DeadlineError("late"), "not known"),
        (NotConnectedError("nobody there"), "open"),
        (NotProcessedError("refused"), "open"),
        (ValueError("timeout_s"), "open"),
    ],
)
def test_what_a_failed_commit_leaves(run, error, state):
    class Client:
        class stub:  # noqa: N801
            async def Commit(request, *, timeout_s):  # noqa: N802, N805
                raise error

    async def main():
        txn = async_transaction.AsyncTransaction(Client(), "t", "default")
        with pytest.raises(type(error)):
            await txn.commit()
        assert state in repr(txn)

    run(main)


def test_an_already_committed_id_without_a_lost_answer_is_an_error(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            twin = async_transaction.AsyncTransaction(client, txn.txn_id, "default")
            assert await twin.commit() == 1
            with pytest.raises(TransactionError) as caught:
                await txn.commit()
            assert caught.value.details == {"commit_ts": "1"}

    run(main)


def test_a_bad_value_is_refused_before_anything_is_sent(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            with pytest.raises(ValueError, match=r"value\.n"):
                await txn.write("a", "k", {"n": 2**60})
            assert "Write" not in memory_server.cancelled
            assert await txn.commit() == 1

    run(main)
