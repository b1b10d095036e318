"""The clients on a line that breaks all the time: nothing is lost, and nothing happens twice."""

from contextlib import ExitStack
from functools import partial

import pytest
from client.breaking_line import BreakingLine

from statehouse import AsyncStatehouse, ConnectionError, Statehouse

EVENTS = 200


@pytest.fixture
def line(daemon):
    with ExitStack() as stack:

        def start(after_bytes):
            line = BreakingLine(daemon.address, after_bytes)
            stack.callback(line.close)
            return line

        yield start


@pytest.fixture
def history(daemon):
    with Statehouse(daemon.address) as client:
        for number in range(EVENTS):
            with client.begin_transaction() as txn:
                txn.write("a", f"k{number:03}", {"n": number, "pad": "x" * 500})


def test_a_replay_is_whole(run, line, history):
    breaking = line(after_bytes=20_000)

    async def main():
        async with AsyncStatehouse(breaking.url) as client:
            return [event.operations[0].value["n"] async for event in client.replay("a")]

    assert run(main) == list(range(EVENTS))
    assert breaking.breaks >= 5


def test_a_replay_of_the_sync_client_is_whole(line, history):
    with Statehouse(line(after_bytes=20_000).url) as client:
        assert [event.operations[0].value["n"] for event in client.replay("a")] == list(range(EVENTS))


def test_reads_are_answered(run, line, history):
    breaking = line(after_bytes=3_000)

    async def main():
        async with AsyncStatehouse(breaking.url) as client:
            return [(await client.get_state("a", f"k{number:03}")).value["n"] for number in range(100)]

    assert run(main) == list(range(100))
    assert breaking.breaks >= 10


def test_a_commit_happens_once_or_says_that_it_is_not_known(run, line, daemon):
    async def until_answered(call):
        while True:
            try:
                return await call()
            except ConnectionError:
                continue

    async def main(url, numbers):
        async with AsyncStatehouse(url) as client:
            for number in numbers:
                while True:
                    txn = await until_answered(partial(client.begin_transaction, local=False))
                    try:
                        await txn.write("a", "k", {"n": number})
                    except ConnectionError:
                        continue  # it may be staged or not
                    break
                try:
                    await txn.commit()
                except ConnectionError as error:
                    undecided.append(str(error))
                    await until_answered(txn.commit)

    undecided = []
    # It depends on the length of everybody's frames where a line must break to lose the answer of a commit.
    for start, after_bytes in zip(range(0, 60, 5), range(280, 520, 20), strict=True):
        run(partial(main, line(after_bytes).url, range(start, start + 5)))
    assert undecided
    assert all("TXN_ALREADY_COMMITTED" in each for each in undecided)
    with Statehouse(daemon.address) as client:
        assert [event.operations[0].value["n"] for event in client.replay("a")] == list(range(60))
        assert client.get_state("a", "k").version == 60


def test_what_is_staged_here_is_committed_once_however_often_it_is_sent(run, line, daemon):
    async def main(url, numbers):
        async with AsyncStatehouse(url) as client:
            for number in numbers:
                txn = await client.begin_transaction()
                await txn.write("a", "k", {"n": number})
                while True:
                    try:
                        given.append(await txn.commit())
                    except ConnectionError:
                        continue
                    break

    given, breaks = [], 0
    for start, after_bytes in zip(range(0, 60, 5), range(280, 520, 20), strict=True):
        breaking = line(after_bytes)
        run(partial(main, breaking.url, range(start, start + 5)))
        breaks += breaking.breaks
    assert breaks > 10
    with Statehouse(daemon.address) as client:
        events = list(client.replay("a"))
    assert [event.operations[0].value["n"] for event in events] == list(range(60))
    assert [event.commit_ts for event in events] == given
