"""The clients' calls about an agent as a whole: what they ask for, and how they read what they are told."""

import datetime as dt

import pytest
from client.fix_server import cancelled_once

from statehouse import (
    AgentExistsError,
    AgentInfo,
    AsyncStatehouse,
    ConflictError,
    ConnectionError,
    DeletedAgent,
    ErrorCode,
    Forked,
    ForkOrigin,
    Lineage,
    NotFoundError,
    Precondition,
    Put,
    Remove,
    Statehouse,
    TransactionError,
)
from statehouse.client import agents
from statehouse.client.results import agent_info
from statehouse.v1 import statehouse_pb2 as pb


def test_forks_and_their_lineage(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await client.transact([Put("a", "k", {})])
            assert await client.fork("a", "b") == Forked(commit_ts=2, at_ts=1, depth=1)
            assert await client.fork("a", "c", at_ts=0) == Forked(commit_ts=3, at_ts=0, depth=1)
            forks = ForkOrigin("c", 0, 3), ForkOrigin("b", 1, 2)
            assert await client.lineage("a") == Lineage(ancestors=(), forks=forks)
            assert await client.lineage("b") == Lineage(ancestors=(ForkOrigin("a", 1, 2),), forks=())
            assert await client.lineage("nobody") == Lineage((), ())
            assert await client.lineage("a", namespace="other") == Lineage((), ())
            with pytest.raises(AgentExistsError):
                await client.fork("a", "b")
            with pytest.raises(NotFoundError) as unknown:
                await client.fork("nobody", "d")
            assert unknown.value.code is ErrorCode.AGENT_NOT_FOUND

    run(main)


@pytest.mark.parametrize(
    ("limit", "asked", "given"),
    [(None, [3, 3, 3], 7), (7, [3, 3, 1], 7), (6, [3, 3], 6), (1, [1], 1), (100, [3, 3, 3], 7)],
)
def test_a_lineage_is_asked_for_in_parts(run, memory_server, monkeypatch, limit, asked, given):
    monkeypatch.setattr(agents, "LINEAGE_FORKS", 3)

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await client.transact([Put("root", "k", {})])
            await client.fork("root", "a")
            memory_server.events.append((("default", "a"), pb.ReplayEvent(commit_ts=1)))
            for number in range(7):
                await client.fork("a", f"fork-{number}")
            found = await client.lineage("a", limit=limit)
            assert [each.agent_id for each in found.forks] == [f"fork-{number}" for number in range(6, 6 - given, -1)]
            assert [each.agent_id for each in found.ancestors] == ["root"]
        assert [each.limit for each in memory_server.lineages] == asked
        # Each part goes on before the last of the one before.
        ends = [found.forks[place].commit_ts for place in range(2, len(found.forks), 3)]
        assert [each.before_ts for each in memory_server.lineages] == [0, *ends][: len(asked)]

    run(main)


def test_a_daemon_that_says_more_and_gives_none_is_not_asked_for_ever(run):
    asked = []

    async def says_more(request, *, timeout_s):
        asked.append(timeout_s)
        return pb.GetLineageResponse(more=True)

    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:
            client.stub.GetLineage = says_more
            assert await client.lineage("a", timeout_s=7) == Lineage((), ())

    run(main)
    assert asked == [7]


def test_an_agent_s_end(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url, "n") as client:
            await client.transact([Put("a", "k", {}), Put("a", "l", {}), Remove("a", "l")])
            with pytest.raises(ConflictError):
                await client.delete_agent("a", preconditions=[Precondition.version_is("a", "k", 7)])
            known = [Precondition.version_is("a", "k", 1), Precondition.agent_at("a", 1)]
            done = await client.delete_agent("a", preconditions=known, metadata={"user": "ada"})
            assert done == DeletedAgent(commit_ts=2, deleted_keys=1)
            assert not (await client.get_state("a", "k")).exists
        request = memory_server.ends[-1]
        assert (request.namespace, [each.namespace for each in request.preconditions]) == ("n", ["n", "n"])
        assert dict(request.metadata) == {"user": "ada"}

    run(main)


def test_a_point_of_a_fork_is_a_commit_or_a_time(run):
    requests = []

    async def fork_agent(request, *, timeout_s):
        requests.append(request)
        return pb.ForkAgentResponse()

    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:
            client.stub.ForkAgent = fork_agent
            await client.fork("a", "b", namespace="n")
            await client.fork("a", "b", at_ts=0)
            await client.fork("a", "b", at_time=dt.datetime(1970, 1, 1, 0, 0, 5, 7, dt.UTC))

    run(main)
    assert (requests[0].namespace, requests[0].agent_id, requests[0].new_agent_id) == ("n", "a", "b")
    assert not requests[0].HasField("at_ts")
    assert not requests[0].HasField("at_time")
    assert (requests[1].HasField("at_ts"), requests[1].at_ts) == (True, 0)
    # To the end of the microsecond: an event's `committed_at` is cut to it.
    assert (requests[2].at_time.seconds, requests[2].at_time.nanos) == (5, 7_999)


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda client: client.fork("a", "b"), "the lineage of the new agent tells"),
        (lambda client: client.delete_agent("a"), "the same call again tells"),
    ],
)
def test_what_was_lost_is_not_asked_for_again(run, memory_server, call, advice):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await client.transact([Put("a", "k", {})])
            memory_server.lose_answer_of_commit = True
            with pytest.raises(ConnectionError, match=advice):
                await call(client)
        assert len(memory_server.committed) == 2

    run(main)


def test_how_an_agent_is_told():
    info = pb.AgentInfo(namespace="n", agent_id="b", live_keys=1, commits=2, operations=3, first_commit_ts=4)
    assert agent_info(info) == AgentInfo("n", "b", 1, 2, 3, 4, 0, deleted=False, forked_from=None)
    info.deleted = True
    info.forked_from.SetInParent()  # of a parent that may not be read, at commit 0 of an older form: it is a fork
    assert agent_info(info).deleted
    assert agent_info(info).forked_from == ForkOrigin("", 0, 0)


# Commits that revive


def test_revive_is_sent_by_each_way_to_commit(run, memory_server):
    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            await client.transact([Put("a", "k", {})], revive=True)
            await client.transact([Put("a", "k", {})])
            for local in (True, False):
                for revive in (True, False):
                    txn = await client.begin_transaction(local=local)
                    await txn.write("a", "k", {})
                    await txn.commit(revive=revive)

    run(main)
    assert [each.revive for each in memory_server.transacts] == [True, False, True, False]
    assert [each.revive for each in memory_server.commits] == [True, False]


def test_a_commit_that_is_asked_for_again_revives_as_it_did(run, memory_server):
    memory_server.hold = {"Transact"}

    async def main():
        async with AsyncStatehouse(memory_server.url) as client:
            txn = await client.begin_transaction()
            await txn.write("a", "k", {"n": 1})
            await cancelled_once(lambda: memory_server.held, txn.commit(revive=True, metadata={"run": "7"}))
            with pytest.raises(ValueError, match="as it was"):
                await txn.commit(metadata={"run": "7"})
            memory_server.released.set()
            assert await txn.commit() == 1
        assert {each.revive for each in memory_server.transacts} == {True}

    run(main)


def test_the_sync_client_does_the_same(memory_server):
    with Statehouse(memory_server.url) as client:
        client.transact([Put("a", "k", {})], revive=True)
        with client.begin_transaction() as txn:
            txn.write("a", "k", {})
            txn.commit(revive=True)
        assert client.fork("a", "b", at_ts=1) == Forked(3, 1, 1)
        assert client.lineage("a", limit=1).forks == (ForkOrigin("b", 1, 3),)
        assert client.delete_agent("a", preconditions=iter([Precondition.exists("a", "k")]), metadata={"m": "1"})
        with pytest.raises(TypeError, match="a sequence"):
            client.delete_agent("a", preconditions=Precondition.exists("a", "k"))
    assert [each.revive for each in memory_server.transacts] == [True, True]
    assert len(memory_server.ends[0].preconditions) == 1


MISTAKES = [
    (lambda c: c.fork(1, "b"), TypeError, "^agent_id must be a str"),
    (lambda c: c.fork("a", None), TypeError, "^new_agent_id must be a str, not None"),
    (lambda c: c.fork("a", "\ud800"), ValueError, "^new_agent_id is not Unicode"),
    (lambda c: c.fork("a", "b", namespace=1), TypeError, "^namespace must be a str"),
    (lambda c: c.fork("a", "b", at_ts="1"), TypeError, "^at_ts must be an int"),
    (lambda c: c.fork("a", "b", at_ts=True), TypeError, "^at_ts must be an int, not a bool"),
    (lambda c: c.fork("a", "b", at_ts=-1), ValueError, "^at_ts must be from 0"),
    (lambda c: c.fork("a", "b", at_time=1), TypeError, "^at_time must be a datetime"),
    (lambda c: c.fork("a", "b", at_time=dt.datetime(2030, 1, 1)), ValueError, "^at_time has no time zone"),  # noqa: DTZ001
    (lambda c: c.fork("a", "b", at_ts=1, at_time=dt.datetime.now(dt.UTC)), ValueError, "exclude each other"),
    (lambda c: c.lineage(None), TypeError, "^agent_id must be a str"),
    (lambda c: c.lineage("a", limit=0), ValueError, "^limit must be from 1"),
    (lambda c: c.lineage("a", limit=1.5), TypeError, "^limit must be an int"),
    (lambda c: c.lineage("a", limit=True), TypeError, "^limit must be an int, not a bool"),
    (lambda c: c.delete_agent(b"a"), TypeError, "^agent_id must be a str"),
    (lambda c: c.delete_agent("a", metadata={"n": 1}), TypeError, r"metadata\['n'\] must be a str"),
    (lambda c: c.delete_agent("a", preconditions=["x"]), TypeError, "a precondition must be a Precondition"),
    (lambda c: c.transact([], revive="no"), TypeError, "^revive must be a bool, not a str"),
    (lambda c: c.transact([], revive=1), TypeError, "^revive must be a bool, not a int"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_are_told_before_anything_is_sent(run, call, error, message):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:  # nobody listens there
            with pytest.raises(error, match=message):
                await call(client)

    run(main)


def test_a_flag_that_is_none_leaves_the_transaction_open(run):
    async def main():
        async with AsyncStatehouse("127.0.0.1:1") as client:
            txn = await client.begin_transaction()
            with pytest.raises(TypeError, match="revive must be a bool"):
                await txn.commit(revive=None)
            await txn.abort()
            with pytest.raises(TransactionError, match="is aborted"):
                await txn.commit(revive=True)

    run(main)
