"""Checked by mypy --strict in `test_public_api.py`, never run: the types that users of the clients see."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import statehouse
from statehouse import (
    AsyncStatehouse,
    AsyncTransaction,
    Operation,
    ReplayEvent,
    Statehouse,
    StatehouseError,
    StateResult,
    Transaction,
)


def sync_client() -> None:
    with Statehouse(url="localhost:50051", namespace="default") as client:
        assert_type(client, Statehouse)
        assert_type(client.health(), str)
        assert_type(client.version(), tuple[str, str])
        with client.begin_transaction(timeout_ms=1000, namespace=None) as txn:
            assert_type(txn, Transaction)
            txn.write(agent_id="a", key="k", value={"n": 1, "list": [{"x": None}, 1.5, True]})
            txn.delete(agent_id="a", key="k")
            assert_type(txn.commit(), int)
            txn.abort()
        state = client.get_state("a", "k", namespace="n")
        assert_type(state, StateResult)
        assert_type(state.version, int)
        assert_type(state.key, str | None)
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
        for line in client.replay_pretty("a", verbose=True):
            assert_type(line, str)
        assert_type(client.get_state("a", "k", timeout_s=0.5), StateResult)
        assert_type(client.replay("a", timeout_s=math.inf), Iterator[ReplayEvent])


async def async_client() -> None:
    secure = AsyncStatehouse(
        "https://db:50051", token="t", ca_file=Path("ca.pem"), cert_file="c", key_file="k", server_name="n"
    )
    assert_type(secure, AsyncStatehouse)
    async with AsyncStatehouse("localhost:50051", timeout_s=5) as client:
        assert_type(client, AsyncStatehouse)
        async with await client.begin_transaction() as txn:
            assert_type(txn, AsyncTransaction)
            await txn.write("a", "k", {})
            assert_type(await txn.commit(), int)
        assert_type(await client.get_state("a", "k"), StateResult)
        assert_type(await client.scan_prefix("a", "k"), list[StateResult])
        async for event in client.replay("a"):
            assert_type(event, ReplayEvent)
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
    txn.write("a", "k", {"bad": {1, 2}})  # type: ignore[dict-item]
    txn.write("a", "k", {"bad": b"bytes"})  # type: ignore[dict-item]
