"""The clients against the daemon itself: what they promise together."""

import datetime as dt
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from statehouse import (
    AsyncStatehouse,
    AsyncTransaction,
    ConnectionError,
    ErrorCode,
    InvalidRequestError,
    Statehouse,
    StatehouseError,
    TransactionError,
)

VALUE = {"list": [{"a": [{}, [], None]}, 2**53, -1.5], "text": "é\n🙂", "yes": True, "whole": 1.0}


def test_a_value_comes_back_and_its_event_has_a_time(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client:
            before = dt.datetime.now(dt.UTC)
            async with await client.begin_transaction() as txn:
                await txn.write("a", "k", VALUE)
                await txn.write("a", "empty", {})
            assert (await client.get_state("a", "k")).value == VALUE
            assert [entry.value for entry in await client.scan_prefix("a", "")] == [{}, VALUE]
            (event,) = [event async for event in client.replay("a")]
            assert (event.namespace, event.agent_id, event.txn_id) == ("default", "a", txn.txn_id)
            assert [operation.value for operation in event.operations] == [VALUE, {}]
            assert before - dt.timedelta(seconds=1) < event.committed_at < before + dt.timedelta(seconds=60)
            lines = [line async for line in client.replay_pretty("a")]
            assert lines[1] == f"{event.committed_at:%H:%M:%S}Z  agent=a  WRITE  key=empty  v=1  {{}}"

    run(main)


REFUSED = [
    (lambda client: client.get_state("", "k"), InvalidRequestError, ErrorCode.INVALID_REQUEST),
    (lambda client: client.list_keys("a" * 257), InvalidRequestError, ErrorCode.INVALID_REQUEST),
    (
        lambda client: client.begin_transaction(timeout_ms=2**40, local=False),
        InvalidRequestError,
        ErrorCode.INVALID_REQUEST,
    ),
    (lambda client: anext(client.replay("")), InvalidRequestError, ErrorCode.INVALID_REQUEST),
    (lambda client: AsyncTransaction(client, "x", "n").commit(), TransactionError, ErrorCode.TXN_NOT_FOUND),
]


def test_errors_of_the_daemon(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client:
            for call, error, code in REFUSED:
                with pytest.raises(error) as caught:
                    await call(client)
                assert type(caught.value) is error
                assert caught.value.code is code

    run(main)


def test_an_expired_transaction(daemon):
    with Statehouse(daemon.address) as client:
        txn = client.begin_transaction(timeout_ms=1, local=False)
        deadline = time.monotonic() + 10
        with pytest.raises(TransactionError) as caught:  # noqa: PT012
            while time.monotonic() < deadline:
                txn.write("a", "k", {})
        assert caught.value.code is ErrorCode.TXN_EXPIRED
        with pytest.raises(TransactionError) as expired:
            txn.commit()
        daemon.kill()  # so that a call would fail otherwise
        with pytest.raises(TransactionError, match="its commit failed") as again:
            txn.commit()
        assert (expired.value.code, again.value.code) == (ErrorCode.TXN_EXPIRED, ErrorCode.TXN_EXPIRED)


def test_kill_under_load_and_reconnect(daemon):
    def work(client, number):
        done = 0
        while True:
            try:
                with client.begin_transaction() as txn:
                    txn.write(f"agent-{number}", "k", {"n": done + 1})
            except ConnectionError:
                return done, time.monotonic()
            done += 1

    with Statehouse(daemon.address) as client, ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, client, number) for number in range(8)]
        while client.get_state("agent-0", "k").version < 5:
            pass
        killed_at = time.monotonic()
        daemon.kill()
        ends = [worker.result(timeout=10) for worker in workers]
        assert max(ended_at for _, ended_at in ends) - killed_at < 5.0  # long before any deadline
        daemon.start()
        for number, (done, _) in enumerate(ends):
            # The one that was in flight may have been committed, too.
            assert client.get_state(f"agent-{number}", "k").version in {done, done + 1}


def test_an_undecided_commit_is_decided_after_a_restart(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address) as client:
            txn, never = [await client.begin_transaction(local=False) for _ in range(2)]
            for each in (txn, never):
                await each.write("a", "k", {"n": 1})
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await each.commit()
            # The first did reach the daemon, after all.
            commit_ts = await AsyncTransaction(client, txn.txn_id, "default").commit()
            daemon.kill()
            daemon.start()
            assert await txn.commit() == commit_ts
            with pytest.raises(TransactionError) as caught:
                await never.commit()
            assert caught.value.code is ErrorCode.TXN_NOT_FOUND
            assert (await client.get_state("a", "k")).version == 1

    run(main)


def test_a_daemon_that_stands_still(daemon):
    with Statehouse(daemon.address, timeout_s=0.3) as client:
        assert client.health() == "ok"
        daemon.send(signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(ConnectionError, match=r"within 0\.3 s"):
                client.health()
            assert time.monotonic() - started < 10
        finally:
            daemon.send(signal.SIGCONT)
        deadline = time.monotonic() + 10
        while True:
            try:
                assert client.health() == "ok"
            except ConnectionError:
                assert time.monotonic() < deadline
            else:
                break


def test_a_stop_lets_a_replay_end(daemon):
    with Statehouse(daemon.address) as client:
        for _ in range(20):
            with client.begin_transaction() as txn:
                txn.write("a", "k", {"pad": "x" * 200_000})
        replay = client.replay("a")
        next(replay)
        daemon.send(signal.SIGTERM)
        assert len(list(replay)) == 19
        assert daemon.wait() == 0
        with pytest.raises(StatehouseError):
            client.health()
