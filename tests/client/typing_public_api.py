"""Checked by mypy --strict in `test_public_api.py`, never run: the types that users of the clients see."""

import datetime as dt
import math
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import statehouse
from statehouse import (
    AgentInfo,
    AsyncLease,
    AsyncStatehouse,
    AsyncTransaction,
    Bookmark,
    DeletedAgent,
    DiffEntry,
    Forked,
    ForkOrigin,
    Head,
    HistoryEntry,
    Lease,
    LeaseState,
    Lineage,
    NamespaceInfo,
    Operation,
    Precondition,
    Put,
    Remove,
    ReplayEvent,
    Statehouse,
    StatehouseError,
    StateResult,
    Transacted,
    Transaction,
    UpdateResult,
    VerifyFinding,
    VerifyProgress,
    VerifyVerdict,
)
from statehouse.types import JsonObject


def sync_client() -> None:
    with Statehouse(url="localhost:50051", namespace="default") as client:
        assert_type(client, Statehouse)
        assert_type(client.health(), str)
        assert_type(client.version(), tuple[str, str])
        with client.begin_transaction(timeout_ms=1000, namespace=None) as txn:
            assert_type(txn, Transaction)
            txn.write(agent_id="a", key="k", value={"n": 1, "list": [{"x": None}, 1.5, True]})
            txn.write("a", "k", {}, ttl_s=60)
            txn.delete(agent_id="a", key="k")
            assert_type(txn.commit(preconditions=[Precondition.exists("a", "k")], metadata={"run": "7"}), int)
            assert_type(txn.txn_id, str | None)
            txn.abort()
        done = client.transact([Put("a", "k", {}), Remove("b", "k")], idempotency_key="x")
        assert_type(done, Transacted)
        assert_type(done.versions, tuple[int, ...])
        assert_type(client.update("a", "k", lambda value: value), UpdateResult)
        with client.lease("a", "me", 60) as lease:
            assert_type(lease, Lease)
            assert_type(lease.precondition, Precondition)
        assert_type(client.get_lease("a"), LeaseState | None)
        assert_type(client.batch_get([("a", "k"), ("b", "k", "n")], at_ts=1), list[StateResult])
        assert_type(client.iter_keys("a", at_time=dt.datetime.now(dt.UTC)), Iterator[str])
        assert_type(client.iter_prefix("a", ""), Iterator[StateResult])
        assert_type(client.history("a", "k", 10), Iterator[HistoryEntry])
        assert_type(client.diff("a", 1, 2), Iterator[DiffEntry])
        assert_type(client.list_agents(), Iterator[AgentInfo])
        for agent in client.list_agents("p"):
            assert_type((agent.deleted, agent.forked_from), tuple[bool, ForkOrigin | None])
        assert_type(client.list_namespaces("n"), Iterator[NamespaceInfo])
        assert_type(client.fork("a", "b", at_ts=1), Forked)
        assert_type(client.fork("a", "b", at_time=dt.datetime.now(dt.UTC), namespace="n"), Forked)
        assert_type(client.lineage("a", limit=1), Lineage)
        assert_type(client.lineage("a").forks, tuple[ForkOrigin, ...])
        ended = client.delete_agent("a", preconditions=[Precondition.agent_at("a", 7)], metadata={"user": "ada"})
        assert_type(ended, DeletedAgent)
        assert_type(client.transact([Put("a", "k", {})], revive=True).commit_ts, int)
        assert_type(client.watch("a"), Iterator[ReplayEvent])
        assert_type(client.watch("a", bookmarks=True), Iterator[ReplayEvent | Bookmark])
        assert_type(client.watch_log(), Iterator[ReplayEvent])
        state = client.get_state("a", "k", namespace="n")
        assert_type(state, StateResult)
        assert_type(state.version, int)
        assert_type(state.key, str | None)
        assert_type(state.expires_at, dt.datetime | None)
        for past in client.history("a", "k"):
            assert_type(past.expires_at, dt.datetime | None)
        assert_type(client.transact([Put("a", "k", {}, ttl_s=60)]).commit_ts, int)
        assert_type(client.update("a", "k", lambda value: value, ttl_s=60), UpdateResult)
        if state.value is not None:
            member = state.value["n"]
            if isinstance(member, dict):
                member["x"] = 1
        assert_type(client.get_state_at_version("a", "k", 1), StateResult)
        assert_type(client.list_keys("a"), list[str])
        assert_type(client.scan_prefix("a", ""), list[StateResult])
        assert_type(client.replay("a", start_ts=1, end_ts=None), Iterator[ReplayEvent])
        for event in client.replay_events("a"):
            assert_type(event.operations, tuple[Operation, ...])
            assert_type((event.operations[0].ttl_s, event.operations[0].expired), tuple[int | None, bool])
        for line in client.replay_pretty("a", verbose=True):
            assert_type(line, str)
        assert_type(client.get_state("a", "k", timeout_s=0.5), StateResult)
        head = client.head()
        assert_type(head, Head)
        assert_type((head.commit_ts, head.chain, head.store_id), tuple[int, bytes, bytes])
        for found in client.verify([head, Head.parse(str(head))]):
            assert_type(found, VerifyProgress | VerifyFinding | VerifyVerdict)
        assert_type(client.replay("a", timeout_s=math.inf), Iterator[ReplayEvent])


async def increased(value: JsonObject | None) -> JsonObject | None:
    return value


async def async_client() -> None:
    secure = AsyncStatehouse(
        "https://db:50051", token="t", ca_file=Path("ca.pem"), cert_file="c", key_file="k", server_name="n"
    )
    assert_type(secure, AsyncStatehouse)
    async with AsyncStatehouse("localhost:50051", timeout_s=5) as client:
        assert_type(client, AsyncStatehouse)
        async with await client.begin_transaction() as txn:
            assert_type(txn, AsyncTransaction)
            await txn.write("a", "k", {}, ttl_s=60)
            assert_type(await txn.commit(), int)
        assert_type(await client.get_state("a", "k"), StateResult)
        assert_type(await client.scan_prefix("a", "k"), list[StateResult])
        async for seen in client.watch_log(bookmarks=True):
            assert_type(seen, ReplayEvent | Bookmark)
        async for watched in client.watch("a"):
            assert_type(watched, ReplayEvent)
        async with await client.lease("a", "me", 1.5) as lease:
            assert_type(lease, AsyncLease)
        assert_type(await client.update("a", "k", increased), UpdateResult)
        assert_type(await client.fork("a", "b"), Forked)
        assert_type((await client.lineage("b")).ancestors, tuple[ForkOrigin, ...])
        assert_type(await client.delete_agent("a"), DeletedAgent)
        assert_type(await txn.commit(revive=True), int)
        async for event in client.replay("a"):
            assert_type(event, ReplayEvent)
        assert_type(await client.head(), Head)
        async for found in client.verify():
            if isinstance(found, VerifyFinding):
                assert_type(found.offset, int | None)
            elif isinstance(found, VerifyVerdict):
                assert_type(found.head, Head)
        async for line in client.replay_pretty("a"):
            assert_type(line, str)
        await client.close()


def errors(error: StatehouseError) -> None:
    assert_type(error.details, dict[str, str])
    assert_type(error.code, statehouse.ErrorCode)
    if isinstance(error, statehouse.ConnectionError):
        assert_type(error.retryable, bool)
    assert_type(statehouse.__version__, str)


def what_is_refused(txn: Transaction) -> None:
    txn.write("a", "k", [1])  # type: ignore[arg-type]
    txn.write("a", "k", {}, ttl_s=1.5)  # type: ignore[arg-type]
    txn.write("a", "k", {"bad": {1, 2}})  # type: ignore[dict-item]
    txn.write("a", "k", {"bad": b"bytes"})  # type: ignore[dict-item]
