"""Forks, lineages, ends and revivals: the clients against the daemon, over a socket."""

import datetime as dt
from itertools import takewhile

import pytest
from daemon_process import DaemonProcess

from statehouse import (
    AgentDeletedError,
    AgentExistsError,
    AsyncStatehouse,
    Bookmark,
    ConflictError,
    DeletedAgent,
    ErrorCode,
    Forked,
    ForkOrigin,
    InvalidRequestError,
    Lineage,
    NotFoundError,
    PermissionDeniedError,
    Precondition,
    Put,
    Remove,
    Statehouse,
    StateResult,
    TransactionError,
)
from statehouse.cli.statehousectl import exit_code_of
from statehouse.limits import FORK_DEPTH


@pytest.fixture
def client(daemon):
    with Statehouse(daemon.address) as client:
        yield client


def put(client, agent_id, key="k", **options):
    """Write a value that no other commit writes; its commit_ts."""
    value = {"after": client.head().commit_ts}
    return client.transact([Put(agent_id, key, value)], **options).commit_ts


def states(client, agent_id, **point):
    return {state.key: (state.value, state.version) for state in client.scan_prefix(agent_id, "", **point)}


def as_copied(events, agent_id):
    """Events of an agent as they would be of another one of this name."""
    return [(agent_id, each.commit_ts, each.txn_id, each.operations, each.committed_at) for each in events]


# Forks


@pytest.fixture
def parent(client):
    """Agent `a`, with four commits, its third a delete."""
    client.transact([Put("a", "x", {"n": 1}), Put("a", "y", {"n": 1})], metadata={"run": "7"})
    client.transact([Put("a", "x", {"n": 2}), Put("a", "large", {"text": "l" * 10_000})])
    client.transact([Remove("a", "y")])
    client.transact([Put("a", "y", {"n": 3}), Put("a", "z", {})])
    return "a"


def test_a_fork_reads_as_its_parent_did(client, parent):
    assert client.fork(parent, "b", at_ts=3) == Forked(commit_ts=5, at_ts=3, depth=1)
    for at_ts in range(4):
        assert states(client, "b", at_ts=at_ts) == states(client, parent, at_ts=at_ts)
        assert client.list_keys("b", at_ts=at_ts) == client.list_keys(parent, at_ts=at_ts)
    assert states(client, "b") == states(client, "b", at_ts=9) == states(client, parent, at_ts=3)
    assert list(client.iter_keys("b")) == client.list_keys("b") == ["large", "x"]
    assert [each.key for each in client.iter_prefix("b", "l")] == ["large"]
    assert client.get_state("b", "y") == StateResult(None, 2, 3, exists=False)
    assert client.get_state("b", "z") == StateResult(None, 0, 0, exists=False)
    assert client.get_state_at_version("b", "x", 1) == client.get_state_at_version(parent, "x", 1)
    assert not client.get_state_at_version("b", "y", 3).exists
    assert list(client.history("b", "x")) == list(client.history(parent, "x"))
    assert [each.version for each in client.history("b", "y")] == [2, 1]
    assert list(client.diff("b", 1, 3)) == list(client.diff(parent, 1, 3))
    found = client.batch_get([("b", "x"), (parent, "y"), ("b", "y")])
    assert [each.version for each in found] == [2, 3, 2]
    whole = as_copied(client.replay(parent, end_ts=3), "b")
    assert as_copied(client.replay("b"), "b") == whole
    assert {event.agent_id for event in client.replay("b")} == {"b"}
    assert [event.metadata for event in client.replay("b", metadata={"run": "7"})] == [{"run": "7"}]


def test_both_live_on_for_themselves(client, parent):
    client.fork(parent, "b")
    before = states(client, parent)
    assert states(client, "b") == before
    done = client.transact([Put("b", "x", {"of": "b"}), Put("b", "own", {}), Remove("b", "z"), Put(parent, "y", {})])
    assert done.versions == (3, 1, 2, 4)
    assert client.get_state(parent, "x").value == {"n": 2}
    assert client.list_keys(parent) == ["large", "x", "y", "z"]
    assert client.get_state("b", "y").version == 3
    assert client.list_keys("b") == ["large", "own", "x", "y"]
    assert states(client, "b", at_ts=4) == before
    assert [event.commit_ts for event in client.replay("b")] == [1, 2, 3, 4, 6]
    (own,) = client.replay("b", start_ts=5)
    assert [(each.key, each.version) for each in own.operations] == [("x", 3), ("own", 1), ("z", 2)]
    assert [(each.key, each.before.version, each.after.version) for each in client.diff("b", 4)] == [
        ("own", 0, 1),
        ("x", 2, 3),
        ("z", 1, 2),
    ]
    # What a precondition holds against is what was inherited, too.
    client.transact([Put("b", "y", {})], preconditions=[Precondition.version_is("b", "y", 3)])
    with pytest.raises(ConflictError) as conflict:
        client.transact([Put("b", "large", {})], preconditions=[Precondition.exists("b", "large", exists=False)])
    assert conflict.value.failed[0].version == 1


def test_a_fork_from_a_time(client, parent):
    times = [event.committed_at for event in client.replay(parent)]
    assert client.fork(parent, "b", at_time=times[1]).at_ts == 2
    assert client.fork(parent, "c", at_time=dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).at_ts >= 4
    assert states(client, "c") == states(client, parent)
    with pytest.raises(InvalidRequestError):
        client.fork(parent, "d", at_time=times[0] - dt.timedelta(seconds=1))
    with pytest.raises(NotFoundError) as unknown:
        client.fork("nobody", "d", at_time=times[1])
    assert unknown.value.code is ErrorCode.AGENT_NOT_FOUND


def test_a_point_after_the_newest_commit_is_the_newest(client, parent):
    assert client.fork(parent, "b", at_ts=2**64 - 1).at_ts == 4
    put(client, parent)
    assert client.list_keys("b") == ["large", "x", "y", "z"]


def test_a_fork_onto_a_name_that_is_taken(client, parent):
    put(client, "written")
    client.fork(parent, "forked")
    put(client, "gone")
    client.delete_agent("gone")
    newest = client.head()
    for name in ("written", "forked", "gone", parent):
        with pytest.raises(AgentExistsError) as taken:
            client.fork(parent, name)
        assert taken.value.code is ErrorCode.AGENT_EXISTS
    assert client.head() == newest
    with client.lease("leased", "me", 60):
        client.fork(parent, "leased")
    assert client.list_keys("leased") == client.list_keys(parent)


def test_a_fork_is_within_a_namespace(client, parent):
    with pytest.raises(NotFoundError):
        client.fork(parent, "b", namespace="n")
    client.transact([Put(parent, "k", {}, namespace="n")])
    client.fork(parent, "b", namespace="n")
    assert client.list_keys("b", "n") == ["k"]
    assert client.list_keys("b") == []


def test_a_fork_of_an_agent_that_was_not_there(client, parent):
    with pytest.raises(NotFoundError) as unknown:
        client.fork("nobody", "b")
    assert unknown.value.code is ErrorCode.AGENT_NOT_FOUND
    put(client, "late")
    for at_ts in (0, 1, 4):
        with pytest.raises(InvalidRequestError):
            client.fork("late", "b", at_ts=at_ts)
    assert client.fork("late", "b", at_ts=5).at_ts == 5


def test_a_fork_of_a_fork_up_to_the_limit(client):
    put(client, "fork-0")
    for depth in range(1, FORK_DEPTH + 1):
        assert client.fork(f"fork-{depth - 1}", f"fork-{depth}").depth == depth
    with pytest.raises(InvalidRequestError, match=str(FORK_DEPTH)):
        client.fork(f"fork-{FORK_DEPTH}", "one-more")
    deepest = f"fork-{FORK_DEPTH}"
    assert client.get_state(deepest, "k").version == 1
    assert client.transact([Put(deepest, "k", {})]).versions == (2,)
    assert [event.commit_ts for event in client.replay(deepest)] == [1, FORK_DEPTH + 2]
    found = [each.agent_id for each in client.lineage(deepest).ancestors]
    assert found == [f"fork-{depth}" for depth in range(FORK_DEPTH - 1, -1, -1)]


def test_where_agents_come_from(client, parent):
    client.fork(parent, "b", at_ts=2)
    put(client, "b")
    client.fork("b", "c", at_ts=1)
    client.fork(parent, "d")
    from_parent = ForkOrigin("d", 7, 8), ForkOrigin("b", 2, 5)
    assert client.lineage(parent) == Lineage(ancestors=(), forks=from_parent)
    assert client.lineage(parent, limit=1).forks == from_parent[:1]
    assert client.lineage("c") == Lineage(ancestors=(ForkOrigin("b", 1, 7), ForkOrigin(parent, 2, 5)), forks=())
    assert client.lineage("nobody") == Lineage((), ())
    infos = {info.agent_id: info for info in client.list_agents()}
    assert {name: info.forked_from for name, info in infos.items()} == {
        parent: None,
        "b": ForkOrigin(parent, 2, 5),
        "c": ForkOrigin("b", 1, 7),
        "d": ForkOrigin(parent, 7, 8),
    }
    assert (infos["b"].live_keys, infos["b"].commits, infos["b"].operations) == (4, 3, 5)
    assert (infos["b"].first_commit_ts, infos["b"].last_commit_ts) == (1, 6)
    assert (infos["c"].live_keys, infos["c"].commits, infos["c"].operations) == (2, 1, 2)


def test_forks_last(daemon, client, parent):
    client.fork(parent, "b", at_ts=3)
    put(client, "b", "own")
    client.fork("b", "c")

    def told():
        return {name: states(client, name) for name in "abc"}, [*client.list_agents()], client.lineage("c")

    before = told()
    daemon.kill()
    daemon.start()
    assert told() == before
    assert client.list_keys("c") == ["large", "own", "x"]
    with pytest.raises(AgentExistsError):
        client.fork(parent, "c")


def test_a_watch_goes_on_from_what_was_inherited(client, parent):
    client.fork(parent, "b", at_ts=2)
    watch = client.watch("b", start_ts=0)
    assert [next(watch).commit_ts for _ in range(2)] == [1, 2]
    put(client, parent)
    newest = put(client, "b")
    event = next(watch)
    assert (event.commit_ts, event.agent_id) == (newest, "b")
    watch.close()


def test_a_watch_of_a_name_that_becomes_a_fork_ends_rather_than_leave_a_gap(client, parent):
    early, live = client.watch("b", start_ts=0, bookmarks=True), client.watch("b", bookmarks=True)
    assert [next(watch) for watch in (early, live)] == [Bookmark(4)] * 2
    client.fork(parent, "b")
    newest = put(client, "b")
    with pytest.raises(InvalidRequestError, match="fork"):
        list(early)
    found = next(each for each in live if not isinstance(each, Bookmark))
    assert (found.agent_id, found.commit_ts) == ("b", newest)
    live.close()
    anew = client.watch("b", start_ts=0)
    assert [next(anew).commit_ts for _ in range(5)] == [1, 2, 3, 4, newest]
    anew.close()


@pytest.mark.parametrize("filters", [{}, {"key_prefix": "x"}, {"limit": 2}], ids=str)
def test_a_watch_that_was_cut_off_when_its_name_became_a_fork_gives_what_that_inherited(
    daemon, client, parent, filters
):
    watch, live = client.watch("b", start_ts=0, bookmarks=True, **filters), client.watch("b", bookmarks=True)
    assert [next(each) for each in (watch, live)] == [Bookmark(4)] * 2
    address = daemon.address
    # Another address, so that the watch cannot be back before the fork.
    daemon.kill()
    daemon.listen = "127.0.0.1:0"
    daemon.start()
    with Statehouse(daemon.address) as other:
        other.fork(parent, "b", at_ts=3)
    daemon.kill()
    daemon.listen = address
    daemon.start()
    wanted = [event.commit_ts for event in client.replay("b", **filters)]
    assert wanted[:2] == [1, 2]
    newest = put(client, "b", "x")
    found = (each.commit_ts for each in watch if not isinstance(each, Bookmark))
    assert [*takewhile(lambda commit_ts: commit_ts < newest, found)] == wanted
    assert next(each for each in live if not isinstance(each, Bookmark)).commit_ts == newest
    watch.close()
    live.close()


# Ends


def test_an_end_is_one_commit(client):
    client.transact([Put("a", "k", {}), Put("a", "l", {}), Put("b", "k", {})])
    client.transact([Remove("a", "l")])
    known = [Precondition.agent_at("a", 2), Precondition.version_is("a", "k", 1)]
    done = client.delete_agent("a", preconditions=known, metadata={"user": "ada"})
    assert done == DeletedAgent(commit_ts=3, deleted_keys=1)
    assert client.list_keys("a") == []
    assert client.get_state("a", "k") == StateResult(None, 2, 3, exists=False)
    assert client.list_keys("a", at_ts=2) == ["k"]
    (event,) = client.replay("a", start_ts=3)
    assert [(each.key, each.value, each.version) for each in event.operations] == [("k", None, 2)]
    assert event.metadata == {"user": "ada"}
    assert client.delete_agent("a") == DeletedAgent(commit_ts=3, deleted_keys=0)
    assert client.head().commit_ts == 3
    deleted = {info.agent_id: (info.deleted, info.live_keys) for info in client.list_agents()}
    assert deleted == {"a": (True, 0), "b": (False, 1)}


def test_an_end_without_keys(client):
    client.transact([Put("a", "k", {}), Remove("a", "k")])
    assert client.delete_agent("a") == DeletedAgent(commit_ts=2, deleted_keys=0)
    assert client.delete_agent("a") == DeletedAgent(commit_ts=2, deleted_keys=0)
    with pytest.raises(AgentDeletedError):
        put(client, "a")


def test_an_end_that_is_refused(client):
    with pytest.raises(NotFoundError) as unknown:
        client.delete_agent("nobody")
    assert unknown.value.code is ErrorCode.AGENT_NOT_FOUND
    put(client, "a")
    with pytest.raises(ConflictError) as conflict:
        client.delete_agent("a", preconditions=[Precondition.exists("a", "k"), Precondition.agent_at("a", 7)])
    assert [(each.index, each.agent_commit_ts) for each in conflict.value.failed] == [(1, 1)]
    for other in (Precondition.agent_at("b", 0), Precondition.agent_at("a", 0, "n")):
        with pytest.raises(InvalidRequestError, match="precondition 0: it is about another agent"):
            client.delete_agent("a", preconditions=[other])
    assert client.list_keys("a") == ["k"]


def test_who_writes_to_what_was_deleted_is_refused(client):
    put(client, "a")
    put(client, "b")
    ended = client.delete_agent("a")

    def in_transaction(*, local):
        with client.begin_transaction(local=local) as txn:
            txn.write("a", "k", {})

    writes = (
        lambda: put(client, "a"),
        lambda: client.transact([Remove("a", "k")]),
        lambda: client.transact([Put("b", "k", {}), Put("a", "new", {})]),
        lambda: client.transact([Put("a", "k", {})], preconditions=[Precondition.exists("b", "k")]),
        lambda: in_transaction(local=True),
        lambda: in_transaction(local=False),
    )
    for write in writes:
        with pytest.raises(AgentDeletedError) as refused:
            write()
        assert refused.value.code is ErrorCode.AGENT_DELETED
        assert refused.value.details["commit_ts"] == str(ended.commit_ts)
        assert isinstance(refused.value, TransactionError)
    assert client.head().commit_ts == ended.commit_ts
    # Without a write it is as any other.
    client.transact([], preconditions=[Precondition.exists("a", "k", exists=False)])
    with client.lease("a", "me", 60):
        pass


REVIVALS = [
    lambda client, _: put(client, "a", revive=True),
    lambda client, _: client.transact([Remove("a", "k")], revive=True),
    lambda client, _: put(client, "a", preconditions=[Precondition.exists("a", "k", exists=False)]),
    lambda client, _: put(client, "a", preconditions=[Precondition.version_is("a", "other", 0)]),
    lambda client, ended: put(client, "a", preconditions=[Precondition.agent_at("a", ended.commit_ts)]),
    lambda client, _: put(client, "a", preconditions=[client.lease("a", "me", 60).precondition]),
    lambda client, _: client.update("a", "k", lambda _: {"n": 1}),
]


@pytest.mark.parametrize("revive", REVIVALS)
def test_who_means_to_brings_it_back(client, revive):
    put(client, "a")
    ended = client.delete_agent("a")
    revive(client, ended)
    (info,) = client.list_agents()
    assert not info.deleted
    put(client, "a", "new")
    assert client.get_state("a", "k").version == 3  # it goes on where it was
    again = client.delete_agent("a")
    assert again.commit_ts > ended.commit_ts
    with pytest.raises(AgentDeletedError) as refused:
        put(client, "a")
    assert refused.value.details["commit_ts"] == str(again.commit_ts)


@pytest.mark.parametrize("local", [True, False])
def test_a_transaction_revives(client, local):
    put(client, "a")
    client.delete_agent("a")
    txn = client.begin_transaction(local=local)
    txn.write("a", "k", {"n": 2})
    txn.commit(revive=True)
    assert client.get_state("a", "k").value == {"n": 2}


def test_what_revives_is_part_of_a_repeated_request(client):
    put(client, "a")
    first = client.transact([Put("a", "k", {})], idempotency_key="x")
    client.delete_agent("a")
    # The first answer is given again, also after the end; another request under the key is refused as ever.
    assert client.transact([Put("a", "k", {})], idempotency_key="x").commit_ts == first.commit_ts
    with pytest.raises(InvalidRequestError) as reused:
        client.transact([Put("a", "k", {})], idempotency_key="x", revive=True)
    assert reused.value.code is ErrorCode.IDEMPOTENCY_KEY_REUSED
    revived = client.transact([Put("a", "k", {})], idempotency_key="y", revive=True)
    again = client.transact([Put("a", "k", {})], idempotency_key="y", revive=True)
    assert (again.commit_ts, again.deduplicated) == (revived.commit_ts, True)


def test_the_end_of_one_is_not_that_of_its_forks(client, parent):
    client.fork(parent, "b", at_ts=2)
    client.delete_agent(parent)
    client.fork(parent, "late")
    client.fork(parent, "saved", at_ts=4)
    assert client.list_keys("b") == ["large", "x", "y"]
    assert client.list_keys("saved") == ["large", "x", "y", "z"]
    assert client.list_keys("late") == []
    put(client, "late")  # a fork of what was deleted is not deleted
    assert [info.agent_id for info in client.list_agents() if info.deleted] == [parent]
    assert client.delete_agent("b").deleted_keys == 3
    assert client.list_keys("b") == []
    assert client.list_keys("b", at_ts=2) == ["large", "x", "y"]
    assert client.get_state("b", "x").version == 3
    assert client.list_keys(parent, at_ts=4) == ["large", "x", "y", "z"]


def test_an_end_lasts(daemon, client):
    put(client, "a")
    ended = client.delete_agent("a")
    daemon.kill()
    daemon.start()
    with pytest.raises(AgentDeletedError):
        put(client, "a")
    assert client.delete_agent("a") == DeletedAgent(ended.commit_ts, 0)
    put(client, "a", revive=True)
    daemon.kill()
    daemon.start()
    put(client, "a")


def test_with_both_event_loops(run, daemon):
    async def main():
        async with AsyncStatehouse(daemon.address, "n") as client:
            await client.transact([Put("a", "k", {"n": 1})])
            assert (await client.fork("a", "b")).depth == 1
            assert (await client.get_state("b", "k")).value == {"n": 1}
            assert [each.agent_id for each in (await client.lineage("a")).forks] == ["b"]
            assert (await client.delete_agent("b")).deleted_keys == 1
            with pytest.raises(AgentDeletedError):
                await client.transact([Put("b", "k", {})])
            async with await client.begin_transaction() as txn:
                await txn.write("b", "k", {})
                await txn.commit(revive=True)
            assert [info.deleted async for info in client.list_agents()] == [False, False]

    run(main)


def test_a_token_forks_what_it_may_read_to_what_it_may_write(tmp_path, capfd):
    tokens = str(tmp_path / "tokens")

    def token(*options):
        assert exit_code_of(["token", "create", "--file", tokens, *options]) == 0
        return capfd.readouterr().out.strip()

    admin = token("--role", "admin")
    tenant = token("--role", "read-write", "--agent-prefix", "mine/", "--agent-prefix", "template")
    with (
        DaemonProcess(tmp_path / "data", options=["--token-file", tokens]) as daemon,
        Statehouse(daemon.address, token=admin) as owner,
        Statehouse(daemon.address, token=tenant) as client,
    ):
        owner.transact([Put("template", "k", {}), Put("yours/1", "k", {})])
        owner.fork("template", "yours/2")
        owner.fork("yours/1", "mine/given")
        client.fork("template", "mine/1")
        for pair in (("template", "yours/3"), ("yours/1", "mine/2")):
            with pytest.raises(PermissionDeniedError):
                client.fork(*pair)
        for refused in (lambda: client.lineage("yours/1"), lambda: client.delete_agent("yours/1")):
            with pytest.raises(PermissionDeniedError):
                refused()
        assert [each.agent_id for each in client.lineage("template").forks] == ["mine/1", ""]
        assert [each.agent_id for each in owner.lineage("template").forks] == ["mine/1", "yours/2"]
        assert client.lineage("mine/given").ancestors == (ForkOrigin("", 2, 3),)
        parents = {info.agent_id: info.forked_from.agent_id for info in client.list_agents("mine/")}
        assert parents == {"mine/1": "template", "mine/given": ""}
        assert client.delete_agent("mine/1").deleted_keys == 1
