"""A transaction that is staged in the client and sent as one Transact."""

import datetime as dt

import pytest
from client.fix_server import cancelled_once

from statehouse import (
    AsyncStatehouse,
    AsyncTransaction,
    ConflictError,
    ConnectionError,
    DiskFullError,
    ErrorCode,
    InvalidRequestError,
    OverloadedError,
    Precondition,
    Put,
    Remove,
    Statehouse,
    TransactionError,
)
from statehouse.client import staging
from statehouse.rpc.client.faults import LostCallError
from statehouse.v1 import statehouse_pb2 as pb


def test_nothing_is_sent_before_the_commit(run):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:  # nobody listens there
            txn = await client.begin_transaction()
            await txn.write("a", "k", {"n": 1})
            await txn.delete("a", "k")
            assert txn.txn_id is None
            await txn.abort()
            with pytest.raises(TransactionError, match="is aborted"):
                await txn.commit()
            with pytest.raises(KeyError):
                async with await client.begin_transaction():
                    raise KeyError

    run(main)


def test_a_commit_is_one_call(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            async with await client.begin_transaction() as txn:
                await txn.write("a", "k", {"n": 1})
                await txn.write("a", "empty", {})
                await txn.delete("b", "gone")
            assert (await client.get_state("a", "k")).value == {"n": 1}
            assert (await client.get_state("a", "empty")).value == {}
            assert (await client.get_state("b", "gone")).version == 1
            (request,) = memory_server.transacts
            assert len(request.operations) == 3
            assert request.idempotency_key
            assert txn.txn_id == "t1"
            empty = await client.begin_transaction()
            assert await empty.commit() == 2
            assert not memory_server.transacts[-1].idempotency_key

    run(main)


def test_the_sync_client_stages_without_its_thread(memory_server):
    with Statehouse(memory_server.url) as client:
        txn = client.begin_transaction()
        txn.write("a", "k", {"n": 1})
        assert client._loop._running is None
        with pytest.raises(ValueError, match=r"value\.n"):
            txn.write("a", "k", {"n": float("nan")})
        assert txn.commit(metadata={"run": "7"}) == 1
        assert next(iter(client.replay("a"))).metadata == {"run": "7"}


def test_its_time_is_kept_here(run, monkeypatch, memory_server):
    now = [0.0]
    monkeypatch.setattr(staging.InMemory.__init__, "__defaults__", (lambda: now[0],))

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn, late, endless = [await client.begin_transaction(ms) for ms in (1000, 1000, None)]
            now[0] += 0.999
            await txn.write("a", "k", {"n": 1})
            now[0] += 0.001
            for call in (lambda: txn.write("a", "k", {}), lambda: txn.delete("a", "k"), txn.commit, txn.commit):
                with pytest.raises(TransactionError) as caught:
                    await call()
                assert caught.value.code is ErrorCode.TXN_EXPIRED
            await late.abort()
            now[0] += 1e9
            assert await endless.commit() == 1
            with pytest.raises(ValueError, match="timeout_ms must be from 1"):
                await client.begin_transaction(0)
        assert len(memory_server.transacts) == 1

    run(main)


def test_a_lost_answer_is_asked_for_again_with_the_same_request(run, memory_server):
    memory_server.hold = {"Transact"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction()
            await txn.write("a", "k", {"n": 1})
            condition = Precondition.version_is("a", "k", 0)
            commit = txn.commit(preconditions=[condition], metadata={"run": "7"})
            await cancelled_once(lambda: memory_server.held, commit)
            assert "not known" in repr(txn)
            with pytest.raises(TransactionError, match="not known"):
                await txn.write("a", "k", {"n": 2})
            with pytest.raises(TransactionError, match="not known"):
                await txn.abort()
            with pytest.raises(ValueError, match="as it was"):
                await txn.commit(metadata={"run": "8"})
            memory_server.released.set()
            assert await txn.commit() == 1
            assert await client.get_state("a", "k")
            assert (await client.get_state("a", "k")).version == 1
        first, *others = memory_server.transacts
        assert all(other == first for other in others)
        assert first.preconditions[0].version == 0
        assert dict(first.metadata) == {"run": "7"}

    run(main)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OverloadedError("busy"), "open"),
        (DiskFullError("full"), "open"),
        (ConflictError("no", code=ErrorCode.PRECONDITION_FAILED), "not committed"),
        (InvalidRequestError("too large"), "not committed"),
        (ConnectionError("gone"), "not known"),
        (LostCallError("gone"), "not known"),
    ],
)
def test_what_a_failed_commit_leaves(run, error, state):
    class Client:
        class stub:  # noqa: N801
            async def Transact(request, *, timeout_s):  # noqa: N802, N805
                keys.append(request.idempotency_key)
                raise error

    keys = []

    async def main():
        txn = AsyncTransaction.local(Client(), "default", None)
        await txn.write("a", "k", {})
        with pytest.raises(type(error)):
            await txn.commit()
        assert state in repr(txn)
        if state != "not committed":
            with pytest.raises(type(error)):
                await txn.commit()
            # What did not happen is another commit the next time; what may have happened is the same one.
            assert len(set(keys)) == (2 if state == "open" else 1)

    run(main)


def test_what_is_too_large_for_one_request_is_staged_in_the_daemon(run, daemon):
    big = {"text": "x" * 1_000_000}

    async def main():
        async with AsyncStatehouse(daemon.address) as client:
            txn = await client.begin_transaction()
            for number in range(6):
                await txn.write("a", f"k{number}", big)
            commit_ts = await txn.commit(preconditions=[Precondition.exists("a", "k0", exists=False)])
            assert [state.commit_ts for state in await client.scan_prefix("a", "k")] == [commit_ts] * 6
            (event,) = [event async for event in client.replay("a")]
            assert event.txn_id == txn.txn_id
            again = await client.begin_transaction()
            for number in range(6):
                await again.write("a", f"k{number}", big)
            with pytest.raises(ConflictError):
                await again.commit(preconditions=[Precondition.exists("a", "k0", exists=False)])

    run(main)


HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("timeout_ms", "passed_s", "most_ms", "asked"),
    [
        (None, 1e6, HOUR_MS, [HOUR_MS]),
        (None, 0, HOUR_MS - 1, [HOUR_MS, None]),  # an operator allows less than is asked for by default
        (120_000, 0, HOUR_MS, [120_000]),
        (120_000, 0.5, HOUR_MS, [119_500]),
        (1000, 0.9999, HOUR_MS, [1]),
        (2**64 - 1, 0, 2**64, [2**64 - 1]),
        (120_000, 0, 60_000, [120_000]),  # what was asked for by the caller is not changed in silence
    ],
)
def test_what_is_staged_in_the_daemon_lasts_there_as_long_as_here(
    run, monkeypatch, timeout_ms, passed_s, most_ms, asked
):
    now, begins = [0.0], []
    monkeypatch.setattr(staging.InMemory.__init__, "__defaults__", (lambda: now[0],))
    monkeypatch.setattr(staging, "REQUEST_BYTES", 100)

    class Client:
        class stub:  # noqa: N801
            async def BeginTransaction(request, *, timeout_s):  # noqa: N802, N805
                begins.append(request.timeout_ms if request.HasField("timeout_ms") else None)
                if request.timeout_ms > most_ms:
                    raise InvalidRequestError("too long")
                return pb.BeginTransactionResponse(txn_id="t")

            async def Write(request, *, timeout_s):  # noqa: N802, N805
                return pb.WriteResponse()

            async def Commit(request, *, timeout_s):  # noqa: N802, N805
                return pb.CommitResponse(commit_ts=7)

    async def main():
        txn = AsyncTransaction.local(Client(), "default", timeout_ms)
        await txn.write("a", "k", {"text": "x" * 100})
        now[0] += passed_s
        if timeout_ms is not None and timeout_ms > most_ms:
            with pytest.raises(InvalidRequestError):
                await txn.commit()
        else:
            assert await txn.commit() == 7
        assert begins == asked

    run(main)


MISTAKES = [
    (lambda c: c.transact(["a"]), TypeError, "an operation must be a Put or a Remove, not a str"),
    (lambda c: c.transact([Put("a", "k", [])]), ValueError, "is not a JSON object"),
    (lambda c: c.transact([Put("a", 1, {})]), TypeError, "key must be a str"),
    (lambda c: c.transact([Remove("a", "\ud800")]), ValueError, "key is not Unicode"),
    (lambda c: c.transact([], idempotency_key=""), ValueError, "idempotency_key is empty"),
    (lambda c: c.transact([], metadata={"n": 1}), TypeError, r"metadata\['n'\] must be a str"),
    (lambda c: c.transact([], metadata=[("a", "b")]), TypeError, "metadata must be a mapping"),
    (lambda c: c.transact([], preconditions=["x"]), TypeError, "a precondition must be a Precondition"),
    (lambda c: c.transact([], preconditions=Precondition.agent_at("a", 1)), TypeError, "a sequence"),
    (lambda c: c.transact([], preconditions=[Precondition.agent_at("a", -1)]), ValueError, "agent_commit_ts must be"),
    (lambda c: c.transact([], preconditions=[Precondition.exists("a", "k", 2)]), TypeError, "exists must be a bool"),
    (lambda c: c.transact([], preconditions=[Precondition("v", "a", 1)]), ValueError, "'v' is no condition"),
    (lambda c: c.transact([Put("a", "k", {}, ttl_s=1.5)]), TypeError, "ttl_s must be an int, of whole seconds"),
    (lambda c: c.transact([Put("a", "k", {}, ttl_s="60")]), TypeError, "ttl_s must be an int"),
    (lambda c: c.transact([Put("a", "k", {}, ttl_s=True)]), TypeError, "ttl_s must be an int"),
    (lambda c: c.transact([Put("a", "k", {}, ttl_s=2**63)]), ValueError, "ttl_s must be less than"),
    (lambda c: c.update("a", "k", dict, ttl_s=dt.timedelta(1)), TypeError, "ttl_s must be an int"),
    (lambda c: c.update("a", "k", dict, tries=0), ValueError, "tries must be from 1"),
    (lambda c: c.lease("a", "me", float("nan")), ValueError, "ttl_s must be a finite"),
    (lambda c: c.lease("a", 1, 1), TypeError, "holder must be a str"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_are_told_before_anything_is_sent(run, call, error, message):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:  # nobody listens there
            with pytest.raises(error, match=message):
                await call(client)

    run(main)
