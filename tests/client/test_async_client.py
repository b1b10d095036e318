"""The async client's surface, under Trio and asyncio, against another implementation of gRPC."""

import gc
import math
from functools import partial

import anyio
import pytest
from client import memory_service
from client.fix_server import cancelled_once

from statehouse import (
    AsyncStatehouse,
    AsyncTransaction,
    ConnectionError,
    Operation,
    Put,
    StateResult,
    TransactionError,
)


def test_the_whole_surface(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            assert await client.health() == "ok"
            assert await client.version() == ("memory", "none")
            async with await client.begin_transaction(timeout_ms=1000) as txn:
                await txn.write("a", "k", {"n": 1, "list": [{"x": []}, None]})
                await txn.write("a", "k", {})
                await txn.delete("a", "gone")
                await txn.write("b", "other", {"n": 1})
            other = await client.begin_transaction(namespace="elsewhere")
            await other.write("a", "k", {"n": 3})
            assert await other.commit() == 2

            assert await client.get_state("a", "k") == StateResult({}, 2, 1, exists=True)
            assert await client.get_state("a", "k", namespace="elsewhere") == StateResult({"n": 3}, 1, 2, exists=True)
            assert await client.get_state("a", "gone") == StateResult(None, 1, 1, exists=False)
            assert await client.get_state("a", "never") == StateResult(None, 0, 0, exists=False)
            old = await client.get_state_at_version("a", "k", 1)
            assert old == StateResult({"n": 1, "list": [{"x": []}, None]}, 1, 1, exists=True)
            assert await client.get_state_at_version("a", "k", 9) == StateResult(None, 0, 0, exists=False)
            assert await client.list_keys("a") == ["k"]
            assert await client.scan_prefix("b", "o") == [StateResult({"n": 1}, 1, 1, exists=True, key="other")]
            assert await client.scan_prefix("b", "x") == []

            events = [event async for event in client.replay("a")]
            assert [(event.txn_id, event.commit_ts, event.namespace, event.agent_id) for event in events] == [
                ("t1", 1, "default", "a")
            ]
            assert events[0].operations == (
                Operation("k", {"n": 1, "list": [{"x": []}, None]}, 1),
                Operation("k", {}, 2),
                Operation("gone", None, 1),
            )
            assert [event async for event in client.replay_events("a", start_ts=2)] == []
            assert [line async for line in client.replay_pretty("b", end_ts=1)] == [
                '--:--:--Z  agent=b  WRITE  key=other  v=1  {"n":1}'
            ]
            lines = [line async for line in client.replay_pretty("b", verbose=True)]
            assert lines[1] == '  payload: {"n":1}'

    run(main)


def test_a_namespace_of_the_clients_own(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url, namespace="mine") as client:
            async with await client.begin_transaction() as txn:
                await txn.write("a", "k", {"n": 1})
            assert (await client.get_state("a", "k")).exists
            assert not (await client.get_state("a", "k", namespace="default")).exists
            assert [event.namespace async for event in client.replay("a")] == ["mine"]

    run(main)


def test_many_calls_share_a_connection(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            async with await client.begin_transaction() as txn, anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(txn.write, "a", f"k{number:03}", {"n": number, "pad": "x" * 2000})
            found = await client.scan_prefix("a", "k")
            assert [entry.value["n"] for entry in found] == list(range(200))

    run(main)


def test_values_far_above_the_windows_pass_both_ways(run, memory_server):
    big = {"text": "x" * 3_000_000}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            for key in ("k1", "k2", "k3"):
                async with await client.begin_transaction() as txn:
                    await txn.write("a", key, big)
            assert [entry.value for entry in await client.scan_prefix("a", "k")] == [big, big, big]
            assert [event.operations[0].value async for event in client.replay("a")] == [big, big, big]

    run(main)


async def write_events(client, count, size_bytes):
    for _ in range(count):
        async with await client.begin_transaction() as txn:
            await txn.write("a", "k", {"pad": "x" * size_bytes})


def test_a_slow_reader_holds_back_the_server(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await write_events(client, 100, 100_000)
            replay = client.replay("a")
            assert (await anext(replay)).commit_ts == 1
            for _ in range(20):
                await client.health()
            # 10 MB of events: the server may send a window, and what its own library buffers beside it.
            assert memory_server.sent_events < 40
            assert len([event async for event in replay]) == 99

    run(main)


@pytest.mark.parametrize("leave", ["break", "aclose", "cancel", "collect"])
def test_leaving_a_replay_early_resets_it_and_keeps_the_connection(run, memory_server, leave):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await write_events(client, 60, 100_000)
            memory_server.cancelled.clear()
            replay = client.replay("a")
            async for _ in replay:
                break
            if leave == "aclose":
                await replay.aclose()
                assert [event async for event in replay] == []
            elif leave == "cancel":
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    async for _ in replay:
                        pass
                assert scope.cancelled_caught
            if leave == "collect":
                cycle = [replay]
                cycle.append(cycle)
                del cycle
            del replay
            gc.collect()
            with anyio.fail_after(30):
                while "Replay" not in memory_server.cancelled:
                    assert await client.health() == "ok"
            assert memory_server.sent_events < 60

    run(main)


def test_cancelling_a_call_resets_it_and_keeps_the_connection(run, memory_server):
    memory_server.hold = {"ListKeys"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await client.health()
            await cancelled_once(lambda: memory_server.held, client.list_keys("a"))
            with anyio.fail_after(30):
                while "ListKeys" not in memory_server.cancelled:
                    assert await client.health() == "ok"

    run(main)


def test_every_call_has_its_own_deadline(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction(local=False)
            memory_server.hold = {method.name for method in memory_service.SERVICE.methods}
            calls = [
                client.health,
                client.version,
                partial(client.begin_transaction, local=False),
                (await client.begin_transaction()).commit,
                partial(client.transact, [Put("a", "k", {})]),
                partial(client.batch_get, [("a", "k")]),
                partial(client.lease, "a", "me", 1),
                partial(client.get_lease, "a"),
                partial(client.fork, "a", "b"),
                partial(client.lineage, "a"),
                partial(client.delete_agent, "a"),
                partial(client.get_state, "a", "k"),
                partial(client.get_state_at_version, "a", "k", 1),
                partial(client.list_keys, "a"),
                partial(client.scan_prefix, "a", ""),
                partial(txn.write, "a", "k", {}),
                partial(txn.delete, "a", "k"),
                txn.commit,
                partial(AsyncTransaction(client, "t", "n").abort),
            ]
            for call in calls:
                with pytest.raises(ConnectionError, match=r"was not answered .* within 0\.05 s|Deadline Exceeded"):
                    await call(timeout_s=0.05)
                with pytest.raises(ValueError, match="timeout_s must be a finite number"):
                    await call(timeout_s=math.inf)

    run(main)


def test_an_exception_of_the_block_passes_as_it_is(run, memory_server):
    async def main():
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012
            async with AsyncStatehouse(memory_server.url) as client:
                await client.health()
                raise KeyError("mine")
        with pytest.raises(TransactionError):  # noqa: PT012
            async with AsyncStatehouse(memory_server.url) as client, await client.begin_transaction() as txn:
                await txn.commit()
                await txn.commit()

    run(main)


def test_cancelling_the_block_ends_it(run, memory_server):
    async def main():
        with anyio.CancelScope() as scope:
            async with AsyncStatehouse(memory_server.url) as client:
                await client.health()
                scope.cancel()
                await client.health()
        assert scope.cancelled_caught

    run(main)


def test_outside_its_block_a_client_says_so(run, memory_server):
    async def main():
        client = AsyncStatehouse(memory_server.url)
        with pytest.raises(RuntimeError, match="async with"):
            await client.health()
        async with client:
            await client.health()
            with pytest.raises(RuntimeError, match="once"):
                await client.__aenter__()

    run(main)


@pytest.mark.parametrize(
    "arguments", [{"start_ts": -1}, {"end_ts": 2**64}, {"agent_id": "\ud800"}, {"namespace": "\ud800"}]
)
def test_arguments_that_the_wire_has_not_are_value_errors(arguments):
    with pytest.raises(
        ValueError,
        match=r"^(start_ts must be from 0|end_ts must be from 0|agent_id is not Unicode|namespace is not Unicode)",
    ):
        AsyncStatehouse().replay(**{"agent_id": "a", **arguments})


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s"])
@pytest.mark.parametrize("seconds", [0, -1, -0.0, float("nan"), float("inf"), float("-inf")])
def test_a_timeout_is_finite_and_above_zero(name, seconds):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number of seconds above 0, got "):
        AsyncStatehouse(**{name: seconds})


@pytest.mark.parametrize("seconds", ["5", None, True])
def test_a_timeout_is_a_number(seconds):
    with pytest.raises(TypeError, match=r"^timeout_s must be a number of seconds, not a "):
        AsyncStatehouse(timeout_s=seconds)


@pytest.mark.parametrize("arguments", [{"url": None}, {"url": b"localhost:1"}, {"namespace": None}, {"namespace": 1}])
def test_a_client_is_given_text(arguments):
    (name,) = arguments
    with pytest.raises(TypeError, match=f"^{name} must be a str, not "):
        AsyncStatehouse(**arguments)


MISTAKES = [
    (lambda client, _: client.get_state(3, "k"), "agent_id must be a str, not a int"),
    (lambda client, _: client.get_state("a", None), "key must be a str, not None"),
    (lambda client, _: client.get_state("a", "k", namespace=b"n"), "namespace must be a str, not a bytes"),
    (lambda client, _: client.get_state_at_version("a", "k", "1"), "version must be an int, not a str"),
    (lambda client, _: client.get_state_at_version("a", "k", None), "version must be an int, not None"),
    (lambda client, _: client.list_keys(b"x"), "agent_id must be a str, not a bytes"),
    (lambda client, _: client.scan_prefix("a", None), "prefix must be a str, not None"),
    (lambda client, _: client.begin_transaction(timeout_ms=1.5), "timeout_ms must be an int, not a float"),
    (lambda client, _: client.begin_transaction(namespace=1), "namespace must be a str, not a int"),
    (lambda client, _: anext(client.replay(None)), "agent_id must be a str, not None"),
    (lambda client, _: anext(client.replay("a", start_ts="0")), "start_ts must be an int, not a str"),
    (lambda client, _: anext(client.replay_pretty("a", end_ts=[])), "end_ts must be an int, not a list"),
    (lambda _, txn: txn.write(3, "k", {}), "agent_id must be a str, not a int"),
    (lambda _, txn: txn.write("a", None, {}), "key must be a str, not None"),
    (lambda _, txn: txn.delete("a", b"k"), "key must be a str, not a bytes"),
]


def test_an_argument_of_a_wrong_type_is_named_before_anything_is_sent(run):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:  # nobody listens there
            for call, message in MISTAKES:
                with pytest.raises(TypeError) as caught:
                    await call(client, AsyncTransaction(client, "t", "n"))
                assert str(caught.value) == message

    run(main)
