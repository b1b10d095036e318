"""The handlers against an engine in memory: bytes in, bytes out, and errors as our own exceptions."""

from collections.abc import Coroutine

import pytest
from google.protobuf import struct_pb2, timestamp_pb2

from statehouse.actors.engine import ViewAwayError
from statehouse.actors.messages import Check, LeaseIs, LeaseRow, LeaseView, Lineage
from statehouse.actors.reads import Page
from statehouse.actors.reply import Reply
from statehouse.actors.watching import ReplayLogArguments
from statehouse.errors import (
    AgentExistsError,
    DiskFullError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    TransactionError,
)
from statehouse.findings import HEADS_AT_MOST
from statehouse.limits import FORK_DEPTH, LINEAGE_FORKS
from statehouse.rpc.contract import METHODS, SERVICE, SERVICE_NAME
from statehouse.rpc.server import handlers_reads
from statehouse.rpc.server.access import ANYONE, Caller, Role
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.dispatch import bound_service
from statehouse.rpc.server.handlers import make_handlers
from statehouse.storage.lineage import Child, Origin
from statehouse.types import AgentId
from statehouse.v1 import statehouse_pb2 as pb

A = AgentId("default", "a")
VALUE = {"list": [{"deep": [None, [], {}]}], "text": "ü\0🦀", "yes": True, "big": 2**53}


@pytest.fixture
def handlers(fake_engine):
    return make_handlers(fake_engine, BuildVersion("1.2.3", "abc"))


@pytest.fixture
def call(handlers):
    """Call a unary handler as a connection does, with messages in place of bytes."""

    async def call(name, **fields):
        response = handlers.unary[name](METHODS[name].request_type(**fields).SerializeToString(), ANYONE)
        if isinstance(response, Reply):
            response = await response.wait()
        elif isinstance(response, Coroutine):
            response = await response
        return METHODS[name].response_type.FromString(response)

    return call


@pytest.fixture
def commit(call):
    async def commit(*operations, namespace=""):
        txn_id = (await call("BeginTransaction")).txn_id
        for agent_id, key, value in operations:
            names = {"txn_id": txn_id, "namespace": namespace, "agent_id": agent_id, "key": key}
            if value is None:
                await call("Delete", **names)
            else:
                await call("Write", **names, value=struct_of(value))
        return (await call("Commit", txn_id=txn_id)).commit_ts

    return commit


def struct_of(value):
    message = struct_pb2.Struct()
    message.update(value)
    return message


async def replayed(handlers, **fields):
    chunks = handlers.streams["Replay"](pb.ReplayRequest(**fields).SerializeToString(), ANYONE)
    return [pb.ReplayEvent.FromString(event) async for chunk in chunks for event in chunk]


def test_there_is_a_handler_for_every_call_of_the_contract(handlers):
    assert handlers.unary.keys() | handlers.streams.keys() == METHODS.keys()
    assert handlers.streams.keys() == {name for name, method in METHODS.items() if method.server_streaming}
    assert len(METHODS) == 28


def test_the_contract_names_paths_and_messages():
    method = METHODS["ScanPrefix"]
    assert SERVICE_NAME == "statehouse.v1.StatehouseService"
    assert method.path == "/statehouse.v1.StatehouseService/ScanPrefix"
    assert (method.request_type, method.response_type) == (pb.ScanPrefixRequest, pb.ScanPrefixResponse)


def test_a_service_needs_a_function_for_every_call():
    with pytest.raises(ValueError, match="functions for"):
        bound_service(SERVICE_NAME, SERVICE, {"Health": lambda request: request})


async def test_health_and_version(call):
    assert (await call("Health")).status == "ok"
    answer = await call("Version")
    assert (answer.version, answer.git_sha) == ("1.2.3", "abc")


async def test_what_was_written_comes_back(call, commit):
    assert await commit(("a", "k", VALUE), ("a", "k", {"second": 1}), ("a", "gone", {}), ("b", "k", {})) == 1
    assert await commit(("a", "gone", None)) == 2
    latest = await call("GetState", agent_id="a", key="k", namespace="default")
    assert (latest.value, latest.version, latest.commit_ts, latest.exists) == (struct_of({"second": 1}), 2, 1, True)
    first = await call("GetStateAtVersion", agent_id="a", key="k", version=1)
    assert (first.value, first.version) == (struct_of(VALUE), 1)
    deleted = await call("GetState", agent_id="a", key="gone")
    assert (deleted.exists, deleted.version, deleted.commit_ts, deleted.HasField("value")) == (False, 2, 2, False)


async def test_what_does_not_last_says_so(call, handlers):
    txn_id = (await call("BeginTransaction")).txn_id
    write = {"txn_id": txn_id, "agent_id": "a", "value": struct_of(VALUE)}
    await call("Write", **write, key="k/1", ttl_s=60)
    await call("Write", **write, key="k/2")
    await call("Commit", txn_id=txn_id)
    operation = pb.TransactOperation(agent_id="a", key="k/3", value=struct_of({}), ttl_s=30)
    await call("Transact", operations=[operation])
    found = [await call("GetState", agent_id="a", key=f"k/{n}") for n in (1, 2, 3)]
    assert [(each.exists, each.expires_at.seconds) for each in found] == [(True, 61), (True, 0), (True, 32)]
    assert [each.ttl_s for event in await replayed(handlers, agent_id="a") for each in event.operations] == [60, 0, 30]


async def test_what_was_never_written_does_not_exist(call):
    for answer in (
        await call("GetState", agent_id="a", key="k"),
        await call("GetStateAtVersion", agent_id="a", key="k", version=3),
    ):
        assert (answer.exists, answer.version, answer.commit_ts, answer.HasField("value")) == (False, 0, 0, False)


async def test_namespaces_are_apart_and_empty_means_default(call, commit):
    await commit(("a", "k", {"in": "other"}), namespace="other")
    assert not (await call("GetState", agent_id="a", key="k")).exists
    assert (await call("GetState", namespace="other", agent_id="a", key="k")).exists


async def test_lists_and_scans(call, commit):
    await commit(("a", "x/2", VALUE), ("a", "x/1", {"n": 1}), ("a", "y", {}), ("a", "x/0", {}), ("b", "x/9", {}))
    await commit(("a", "x/0", None))
    assert (await call("ListKeys", agent_id="a")).keys == ["x/1", "x/2", "y"]
    entries = (await call("ScanPrefix", agent_id="a", prefix="x/")).entries
    found = [(entry.key, entry.value, entry.version, entry.commit_ts) for entry in entries]
    assert found == [("x/1", struct_of({"n": 1}), 1, 1), ("x/2", struct_of(VALUE), 1, 1)]
    assert (await call("ScanPrefix", agent_id="nobody")).entries == []


async def test_replay_gives_the_engine_s_events(handlers, commit):
    for n in range(5):
        await commit(("a", "k", {"n": n}))
    assert [event.commit_ts for event in await replayed(handlers, agent_id="a")] == [1, 2, 3, 4, 5]
    assert [event.commit_ts for event in await replayed(handlers, agent_id="a", start_ts=2, end_ts=4)] == [2, 3, 4]
    assert await replayed(handlers, agent_id="b") == []


async def test_an_answer_that_comes_later_is_a_reply(handlers, fake_engine, call):
    fake_engine.held = []
    txn_id = (await call("BeginTransaction")).txn_id
    response = handlers.unary["Commit"](pb.CommitRequest(txn_id=txn_id).SerializeToString(), ANYONE)
    assert isinstance(response, Reply)
    assert not response.settled
    reply, commit_ts = fake_engine.held[0]
    reply.succeed(commit_ts)
    assert response.result() == pb.CommitResponse(commit_ts=commit_ts).SerializeToString()


async def test_a_failure_that_comes_later_is_the_reply_s(handlers, fake_engine, call):
    fake_engine.held = []
    txn_id = (await call("BeginTransaction")).txn_id
    response = handlers.unary["Commit"](pb.CommitRequest(txn_id=txn_id).SerializeToString(), ANYONE)
    fake_engine.held[0][0].fail(DiskFullError("no room"))
    with pytest.raises(DiskFullError, match="no room"):
        response.result()


async def test_errors_are_raised_as_they_are(call, fake_engine):
    with pytest.raises(TransactionError):
        await call("Commit", txn_id="unknown")
    with pytest.raises(InvalidRequestError, match="key is empty"):
        await call("GetState", agent_id="a")
    fake_engine.fail_with = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        await call("Health")


async def test_limits_are_the_engine_s(fake_engine, small_limits):
    fake_engine.limits = small_limits
    handlers = make_handlers(fake_engine, BuildVersion("1", "2"))
    with pytest.raises(InvalidRequestError, match="agent_id is 9 bytes; the limit is 8"):
        handlers.unary["ListKeys"](pb.ListKeysRequest(agent_id="123456789").SerializeToString(), ANYONE)


async def test_an_answer_over_the_limit_is_refused(call, commit, monkeypatch):
    await commit(("a", "k", {"x": "y" * 100}))
    monkeypatch.setattr(handlers_reads, "RESPONSE_BYTES", 100)
    with pytest.raises(OverloadedError, match="ask for less") as refused:
        await call("ScanPrefix", agent_id="a")
    assert refused.value.details["limit"] == "100"
    assert (await call("ListKeys", agent_id="a")).keys == ["k"]


async def test_requests_may_have_fields_from_the_future(handlers):
    assert pb.HealthResponse.FromString(handlers.unary["Health"](b"\xa8\x06\x01", ANYONE)).status == "ok"
    with pytest.raises(InvalidRequestError):
        handlers.unary["Health"](b"\xff", ANYONE)


# Who may do what

EVERY_AGENT_CALL = {
    "GetState": {"key": "k"},
    "GetStateAtVersion": {"key": "k", "version": 1},
    "ListKeys": {},
    "ScanPrefix": {},
    "History": {"key": "k"},
    "Diff": {},
    "Replay": {},
    "GetLease": {},
    "Write": {"txn_id": "t", "key": "k", "value": struct_pb2.Struct()},
    "Delete": {"txn_id": "t", "key": "k"},
    "AcquireLease": {"ttl_ms": 1_000},
    "RenewLease": {"epoch": 1, "ttl_ms": 1_000},
    "ReleaseLease": {"epoch": 1},
    "GetLineage": {},
    "DeleteAgent": {},
}
READS = {
    "GetState",
    "GetStateAtVersion",
    "ListKeys",
    "ScanPrefix",
    "History",
    "Diff",
    "Replay",
    "GetLease",
    "GetLineage",
}
OPEN_TO_ALL = {"Health", "Version"}
BY_TRANSACTION = {"BeginTransaction": {}, "Commit": {"txn_id": "t"}, "Abort": {"txn_id": "t"}}
OF_THE_WHOLE_STORE = {"Head", "Verify", "ListNamespaces"}
OF_ANY_AGENTS = {"Transact", "BatchGet", "ListAgents", "ReplayLog", "ForkAgent"}
BOUND = Caller("bound", Role.READ_WRITE, ("default",), ("mine/",))


def test_the_calls_above_are_all_there_are():
    of_one = EVERY_AGENT_CALL.keys() | BY_TRANSACTION.keys()
    assert of_one | OPEN_TO_ALL | OF_THE_WHOLE_STORE | OF_ANY_AGENTS == METHODS.keys()


@pytest.fixture
def refused(handlers, fake_engine):
    """Why a call is refused to a caller, None when it reaches the engine; whatever does ends there."""
    fake_engine.fail_with = ReachedEngineError()

    def refused(name, caller, **fields):
        handler = (handlers.unary | handlers.streams)[name]
        try:
            response = handler(METHODS[name].request_type(**fields).SerializeToString(), caller)
        except PermissionDeniedError as error:
            return error.message
        except ReachedEngineError:
            return None
        if isinstance(response, Coroutine):
            response.close()
        return None

    return refused


class ReachedEngineError(Exception):
    pass


@pytest.mark.parametrize("name", sorted(METHODS.keys() - OF_THE_WHOLE_STORE - OF_ANY_AGENTS))
def test_a_read_only_caller_reads_and_nothing_else(name, refused):
    names = {"agent_id": "a"} if name in EVERY_AGENT_CALL else {}
    fields = EVERY_AGENT_CALL.get(name, {}) | BY_TRANSACTION.get(name, {}) | names
    reason = refused(name, Caller("reader", Role.READ_ONLY), **fields)
    assert reason == (None if name in READS | OPEN_TO_ALL else "token reader is read-only")
    for role in (Role.READ_WRITE, Role.ADMIN):
        assert refused(name, Caller("writer", role), **fields) is None


@pytest.mark.parametrize("name", EVERY_AGENT_CALL)
def test_a_bound_caller_reaches_its_own_agents_and_no_others(name, refused):
    fields = EVERY_AGENT_CALL[name]
    for namespace in ("", "default"):
        assert refused(name, BOUND, agent_id="mine/1", namespace=namespace, **fields) is None
        assert "bound" in refused(name, BOUND, agent_id="yours/1", namespace=namespace, **fields)
    assert "bound" in refused(name, BOUND, agent_id="mine/1", namespace="other", **fields)
    elsewhere = Caller("elsewhere", Role.ADMIN, ("other",))
    assert refused(name, elsewhere, agent_id="mine/1", namespace="other", **fields) is None
    assert "bound" in refused(name, elsewhere, agent_id="mine/1", **fields)


def test_what_is_about_the_whole_store_is_for_callers_that_are_bound_to_nothing(refused):
    reader, writer, admin = (Caller(role, role) for role in Role)
    for name in ("Head", "ListNamespaces"):
        assert [refused(name, caller) for caller in (reader, writer, admin)] == [None, None, None]
    assert refused("Verify", reader) == "token read-only is read-only, and this takes admin"
    assert refused("Verify", writer) == "token read-write is read-write, and this takes admin"
    assert refused("Verify", admin) is None
    for bound in (Caller("b", Role.ADMIN, ("default",)), Caller("b", Role.ADMIN, (), ("mine/",))):
        for name in OF_THE_WHOLE_STORE:
            assert refused(name, bound) == "token b is bound to namespaces or agents, and this is about all of them"


async def test_head_and_verify(handlers, call, commit):
    await commit(("a", "k", {}))
    head = await call("Head")
    assert (head.commit_ts, len(head.chain), len(head.store_id)) == (1, 32, 16)
    request = pb.VerifyRequest(heads=[pb.KnownHead(commit_ts=9, chain=bytes(32))])
    chunks = [chunk async for chunk in handlers.streams["Verify"](request.SerializeToString(), ANYONE)]
    events = [pb.VerifyEvent.FromString(event) for chunk in chunks for event in chunk]
    assert [event.WhichOneof("event") for event in events] == ["progress", "finding", "done"]
    assert (events[1].finding.kind, events[1].finding.commit_ts) == ("head-cut", 9)
    assert (events[2].done.sound, events[2].done.head) == (False, head)


@pytest.mark.parametrize("chain", [b"", bytes(31), bytes(33)])
def test_a_known_head_without_a_whole_chain_value_is_refused(handlers, chain):
    request = pb.VerifyRequest(heads=[pb.KnownHead(commit_ts=1, chain=chain)])
    with pytest.raises(InvalidRequestError, match="32 bytes"):
        handlers.streams["Verify"](request.SerializeToString(), ANYONE)


def test_too_many_known_heads_are_refused(handlers):
    heads = [pb.KnownHead(commit_ts=ts, chain=bytes(32)) for ts in range(HEADS_AT_MOST + 1)]
    with pytest.raises(InvalidRequestError, match="at most 10000"):
        handlers.streams["Verify"](pb.VerifyRequest(heads=heads).SerializeToString(), ANYONE)


@pytest.mark.parametrize("name", BY_TRANSACTION)
def test_who_has_the_id_of_a_transaction_may_end_it(name, refused):
    assert refused(name, BOUND, **BY_TRANSACTION[name]) is None


async def test_a_refusal_is_the_same_whether_or_not_there_is_something(handlers, commit, refused, fake_engine):
    fake_engine.fail_with = None
    await commit(("yours/1", "k", {"secret": 1}))
    there = {refused(name, BOUND, agent_id="yours/1", **fields) for name, fields in EVERY_AGENT_CALL.items()}
    missing = {refused(name, BOUND, agent_id="nobody", **fields) for name, fields in EVERY_AGENT_CALL.items()}
    assert there == missing
    assert len(there) == 1


async def test_a_point_read_waits_for_a_view_that_is_being_opened_anew(fake_engine, call, commit, monkeypatch):
    await commit(("a", "k", VALUE))
    for name, asked in (("GetState", {}), ("GetStateAtVersion", {"version": 1})):
        expected = await call(name, agent_id="a", key="k", **asked)
        method = {"GetState": "get_state", "GetStateAtVersion": "get_state_at_version"}[name]
        get = getattr(fake_engine, method)

        async def later(*arguments, get=get):
            return get(*arguments)

        def away(*_):
            raise ViewAwayError("away")

        monkeypatch.setattr(fake_engine, method, away)
        monkeypatch.setattr(fake_engine, f"{method}_later", later, raising=False)
        assert await call(name, agent_id="a", key="k", **asked) == expected
        assert expected.exists


# What came after the first calls


async def test_a_whole_transaction_in_one_call(call, fake_engine):
    operations = [
        pb.TransactOperation(agent_id="a", key="k", value=struct_of(VALUE)),
        pb.TransactOperation(agent_id="b", key="k", value=struct_of({})),
        pb.TransactOperation(agent_id="a", key="k"),
    ]
    done = await call("Transact", operations=operations, metadata={"run": "1"})
    assert (done.commit_ts, len(done.txn_id), done.deduplicated) == (1, 32, False)
    assert fake_engine.asked.metadata == {"run": "1"}
    assert (await call("GetStateAtVersion", agent_id="a", key="k", version=1)).value == struct_of(VALUE)
    assert not (await call("GetState", agent_id="a", key="k")).exists


def test_the_answer_of_a_transaction_is_a_reply_even_if_it_is_there(handlers):
    """A large answer at once is taken for that of a read, which may be asked again."""
    request = pb.TransactRequest(operations=[pb.TransactOperation(agent_id="a", key="k")])
    response = handlers.unary["Transact"](request.SerializeToString(), ANYONE)
    assert isinstance(response, Reply)
    assert pb.TransactResponse.FromString(response.result()).versions == [1]


async def test_a_commit_hands_on_its_preconditions_and_metadata(call, fake_engine):
    txn_id = (await call("BeginTransaction")).txn_id
    await call(
        "Commit", txn_id=txn_id, preconditions=[pb.Precondition(agent_id="a", lease_epoch=3)], metadata={"m": "1"}
    )
    (check,), metadata, revive = fake_engine.asked
    assert (check, metadata, revive) == (Check(0, A, LeaseIs(3)), {"m": "1"}, False)


async def test_a_commit_says_whether_it_revives(call, fake_engine):
    txn_id = (await call("BeginTransaction")).txn_id
    await call("Commit", txn_id=txn_id, revive=True)
    assert fake_engine.asked == ((), {}, True)
    operation = pb.TransactOperation(agent_id="a", key="k")
    for revive in (True, False):
        await call("Transact", operations=[operation], revive=revive)
        assert fake_engine.asked.revive is revive


async def test_forks(call, commit, fake_engine):
    await commit(("a", "k", {}))
    done = await call("ForkAgent", agent_id="a", new_agent_id="b")
    assert (done.commit_ts, done.at_ts, done.depth) == (9, 1, 1)
    assert fake_engine.asked == (A, AgentId("default", "b"), None)
    await call("ForkAgent", agent_id="a", new_agent_id="b", at_ts=0)
    assert fake_engine.asked == (A, AgentId("default", "b"), 0)
    time = timestamp_pb2.Timestamp(seconds=7)
    assert (await call("ForkAgent", agent_id="a", new_agent_id="b", namespace="n", at_time=time)).at_ts == 7
    assert fake_engine.asked == (AgentId("n", "a"), AgentId("n", "b"), 7)


@pytest.mark.parametrize("point", [{}, {"at_time": timestamp_pb2.Timestamp(seconds=7)}])
async def test_a_fork_that_is_refused(call, fake_engine, monkeypatch, point):
    refusal = Reply.failed(AgentExistsError("taken"))
    monkeypatch.setattr(fake_engine, "fork_agent", lambda *_: refusal)
    with pytest.raises(AgentExistsError, match="taken"):
        await call("ForkAgent", agent_id="a", new_agent_id="b", **point)


async def test_the_end_of_an_agent(call, fake_engine):
    given = [pb.Precondition(agent_id="a", lease_epoch=3)]
    done = await call("DeleteAgent", agent_id="a", preconditions=given, metadata={"m": "1"})
    assert (done.commit_ts, done.deleted_keys) == (9, 2)
    assert fake_engine.asked == (A, (Check(0, A, LeaseIs(3)),), {"m": "1"})


async def test_a_lineage(call, fake_engine):
    assert await call("GetLineage", agent_id="a") == pb.GetLineageResponse()
    fake_engine.found_lineage = LINEAGE
    found = await call("GetLineage", agent_id="mine/1", limit=2, before_ts=50)
    assert fake_engine.asked == (AgentId("default", "mine/1"), 2, 50)
    assert found == pb.GetLineageResponse(
        ancestors=[pb.ForkOrigin(agent_id="template", at_ts=3, commit_ts=9)],
        forks=[
            pb.ForkOrigin(agent_id="yours/1", at_ts=20, commit_ts=31),
            pb.ForkOrigin(agent_id="mine/2", at_ts=20, commit_ts=30),
        ],
        more=True,
    )


async def test_leases(call, fake_engine):
    lease = await call("AcquireLease", agent_id="a", holder="me", ttl_ms=1_500)
    assert (lease.epoch, lease.holder, lease.commit_ts) == (1, "me", 7)
    assert (lease.expires_at.seconds, lease.expires_at.nanos) == (1, 500_000_000)
    assert fake_engine.asked == (A, "me", 1_500)
    assert (await call("RenewLease", agent_id="a", epoch=4, ttl_ms=1_000)).epoch == 4
    assert (await call("ReleaseLease", agent_id="a", epoch=4)).commit_ts == 9
    assert fake_engine.asked == (A, 4)
    nothing = await call("GetLease", agent_id="a")
    assert (nothing.HasField("lease"), nothing.held) == (False, False)
    fake_engine.lease = LeaseRow(3, 2, "me", 0)  # released: it has no end any more
    found = await call("GetLease", agent_id="a")
    assert (found.lease.epoch, found.lease.HasField("expires_at"), found.held) == (2, False, True)


async def test_a_lease_is_read_later_while_the_view_is_away(call, fake_engine, monkeypatch):
    async def later(agent):
        return LeaseView(LeaseRow(3, 2, agent.agent_id, 0), held=False)

    def away(_):
        raise ViewAwayError("away")

    monkeypatch.setattr(fake_engine, "get_lease", away)
    monkeypatch.setattr(fake_engine, "get_lease_later", later, raising=False)
    assert (await call("GetLease", agent_id="a")).lease.holder == "a"


async def test_reads_at_a_point(call, commit, fake_engine):
    for n in range(3):
        await commit(("a", "k", {"n": n}))
    assert (await call("GetState", agent_id="a", key="k", at_ts=2)).version == 2
    assert (await call("GetState", agent_id="a", key="k", at_ts=0)).version == 0
    time = timestamp_pb2.Timestamp(seconds=2, nanos=1)
    assert (await call("GetState", agent_id="a", key="k", at_time=time)).version == 2
    assert fake_engine.asked == (None, 2_000_000_001)
    for name in ("ListKeys", "ScanPrefix"):
        await call(name, agent_id="a", at_ts=1)
        assert fake_engine.asked == (1, None)
        await call(name, agent_id="a", at_time=time)
        assert fake_engine.asked == (None, 2_000_000_001)


async def pages_of(call, name, **fields):
    """The answers of all pages, two entries each."""
    token, pages = b"", []
    while True:
        pages.append(await call(name, limit=2, page_token=token, **fields))
        token = pages[-1].next_page_token
        if not token:
            return pages


async def test_pages_show_one_moment(call, commit, fake_engine):
    for n in range(5):
        await commit(("a", f"k/{n}", {"n": n}), ("a", "other", {}))
    pages = await pages_of(call, "ListKeys", agent_id="a")
    assert [list(page.keys) for page in pages] == [["k/0", "k/1"], ["k/2", "k/3"], ["k/4", "other"]]
    first = await call("ScanPrefix", agent_id="a", prefix="k/", limit=2)
    assert fake_engine.asked == (5, fake_engine.time_ns)
    asked = fake_engine.asked
    await commit(("a", "k/5", {}))
    second = await call("ScanPrefix", agent_id="a", prefix="k/", limit=2, page_token=first.next_page_token)
    assert fake_engine.asked == asked  # the commit and the time of the first page
    assert [entry.key for page in (first, second) for entry in page.entries] == ["k/0", "k/1", "k/2", "k/3"]
    await call("ListKeys", agent_id="a", limit=2, at_ts=3)
    assert fake_engine.asked == (3, 0)  # nothing expires in the past
    past = await call("ListKeys", agent_id="a", limit=2, at_time=timestamp_pb2.Timestamp(seconds=4))
    assert fake_engine.asked == (4, 0)
    at_time = {"at_time": timestamp_pb2.Timestamp(seconds=4), "page_token": past.next_page_token}
    await call("ListKeys", agent_id="a", limit=2, **at_time)
    assert fake_engine.asked == (4, 0)


async def test_a_page_of_now_is_of_a_commit_no_earlier_than_its_time(call, commit, fake_engine, monkeypatch):
    """Or a value that another commit made last longer would be missing, if it expired between the two."""
    await commit(("a", "k", {}))
    told = []

    def now_ns(now_ns=fake_engine.now_ns):
        told.append(now_ns())
        return told[-1]

    async def pin(*at, pin=fake_engine.pin):
        told.append(await pin(*at))
        return told[-1]

    monkeypatch.setattr(fake_engine, "now_ns", now_ns)
    monkeypatch.setattr(fake_engine, "pin", pin)
    for name in ("ListKeys", "ScanPrefix"):
        told.clear()
        await call(name, agent_id="a", limit=2)
        assert tuple(told) == fake_engine.asked[::-1] == (fake_engine.time_ns, 1)


async def test_pages_of_agents_and_namespaces(call, commit):
    for n in range(5):
        await commit((f"a/{n}", "k", {}), namespace="n")
        await commit(("x", "k", {}), namespace=f"m{n}")
    pages = await pages_of(call, "ListAgents", namespace="n", prefix="a/")
    assert [[info.agent_id for info in page.agents] for page in pages] == [["a/0", "a/1"], ["a/2", "a/3"], ["a/4"]]
    pages = await pages_of(call, "ListNamespaces", prefix="m")
    assert [[info.namespace for info in page.namespaces] for page in pages] == [["m0", "m1"], ["m2", "m3"], ["m4"]]


async def test_a_page_token_is_good_for_its_request_alone(call, commit, fake_engine):
    for agent_id in ("a", "b"):
        await commit(*((agent_id, f"k/{n}", {}) for n in range(5)))
    asked = {"agent_id": "a", "prefix": "k", "limit": 2, "at_ts": 2}
    token = (await call("ScanPrefix", **asked)).next_page_token
    assert (await call("ScanPrefix", **asked, page_token=token)).entries[0].key == "k/2"
    assert len((await call("ScanPrefix", **asked | {"limit": 3}, page_token=token)).entries) == 3
    others = [
        {"agent_id": "b"},
        {"namespace": "n"},
        {"prefix": "k/"},
        {"at_ts": 1},
        {"at_ts": None},
        {"at_ts": None, "at_time": timestamp_pb2.Timestamp(seconds=2)},
    ]
    for other in others:
        with pytest.raises(InvalidRequestError, match="page_token"):
            await call("ScanPrefix", **asked | other, page_token=token)
    with pytest.raises(InvalidRequestError, match="page_token"):
        await call("ListKeys", agent_id="a", at_ts=2, limit=2, page_token=token)
    for name in ("ListAgents", "ListNamespaces"):
        with pytest.raises(InvalidRequestError, match="page_token"):
            await call(name, page_token=token)
    with pytest.raises(InvalidRequestError, match="page_token"):
        await call("ScanPrefix", **asked, page_token=token + b"x")
    fake_engine.store_id = b"of another store"
    with pytest.raises(InvalidRequestError, match="page_token"):
        await call("ScanPrefix", **asked, page_token=token)


async def test_many_keys_at_once(call, commit, fake_engine, monkeypatch):
    await commit(("a", "k", VALUE), ("b", "k", {}))
    keys = [pb.KeyRef(agent_id="b", key="k"), pb.KeyRef(agent_id="a", key="gone"), pb.KeyRef(agent_id="a", key="k")]
    entries = (await call("BatchGet", keys=keys, at_ts=1)).entries
    assert [(entry.agent_id, entry.key, entry.version) for entry in entries] == [
        ("b", "k", 1),
        ("a", "gone", 0),
        ("a", "k", 1),
    ]
    assert entries[2].value == struct_of(VALUE)
    assert fake_engine.asked == 1
    assert (await call("BatchGet")).entries == []
    now = await call("BatchGet", keys=keys)
    assert now.entries == entries
    fake_engine.at_hand, fake_engine.asked = True, "nothing more"
    assert await call("BatchGet", keys=keys) == now
    assert fake_engine.asked == "nothing more"
    assert list((await call("BatchGet", keys=keys, at_ts=0)).entries[0].key) == ["k"]
    assert fake_engine.asked == 0

    def away(keys):
        raise ViewAwayError("away")

    monkeypatch.setattr(fake_engine, "batch_at_hand", away)
    assert await call("BatchGet", keys=keys) == now
    monkeypatch.setattr(handlers_reads, "RESPONSE_BYTES", 100)
    with pytest.raises(OverloadedError, match="ask for less"):
        await call("BatchGet", keys=keys)


async def streamed(handlers, name, caller=ANYONE, **fields):
    chunks = handlers.streams[name](METHODS[name].request_type(**fields).SerializeToString(), caller)
    return [METHODS[name].response_type.FromString(each) async for chunk in chunks for each in chunk]


async def test_history_and_differences(handlers, commit, fake_engine):
    for n in range(3):
        await commit(("a", "k", {"n": n}))
    assert [each.version for each in await streamed(handlers, "History", agent_id="a", key="k", limit=7)] == [3, 2, 1]
    assert fake_engine.asked == (7, 0)
    assert [each.key for each in await streamed(handlers, "Diff", agent_id="a", from_ts=1)] == ["k"]
    assert fake_engine.asked == {"from_ts": 1, "from_time_ns": None, "to_ts": None, "to_time_ns": None}


async def test_the_whole_log(handlers, commit, fake_engine):
    await commit(("a", "k", {}), ("b", "k", {}))
    assert len(await streamed(handlers, "ReplayLog", follow=True)) == 2
    assert fake_engine.asked == ReplayLogArguments(follow=True)


def test_the_largest_lineage_is_no_larger_than_it_is_said_to_be(handlers):
    origin = pb.ForkOrigin(agent_id="x" * 256, at_ts=2**64 - 1, commit_ts=2**64 - 1)
    largest = pb.GetLineageResponse(ancestors=[origin] * FORK_DEPTH, forks=[origin] * LINEAGE_FORKS, more=True)
    assert 0.9 < largest.ByteSize() / handlers.answer_bytes["GetLineage"] <= 1


# Who may do that

LINEAGE = Lineage(
    [Origin(AgentId("default", "template"), 3, 9)],
    [Child(AgentId("default", "yours/1"), 20, 31), Child(AgentId("default", "mine/2"), 20, 30)],
    more=True,
)
"""Of `mine/1`."""


def test_who_may_fork(refused):
    def of(caller, agent_id, new_agent_id, **fields):
        return refused("ForkAgent", caller, agent_id=agent_id, new_agent_id=new_agent_id, **fields)

    for point in ({}, {"at_ts": 1}, {"at_time": timestamp_pb2.Timestamp(seconds=1)}):
        assert of(READER, "mine/1", "mine/2", **point) == "token reader is read-only"
        assert of(BOUND, "mine/1", "mine/2", **point) is None
        assert "bound" in of(BOUND, "mine/1", "yours/2", **point)
        assert "bound" in of(BOUND, "yours/1", "mine/2", **point)
        assert "bound" in of(BOUND, "mine/1", "mine/2", namespace="other", **point)


def test_who_may_end_an_agent_under_a_condition(refused):
    checked = [pb.Precondition(agent_id="mine/1", agent_commit_ts=1)]
    assert refused("DeleteAgent", BOUND, agent_id="mine/1", preconditions=checked) is None
    with pytest.raises(InvalidRequestError, match="another agent"):
        refused("DeleteAgent", BOUND, agent_id="mine/2", preconditions=checked)


async def test_a_lineage_names_no_agent_that_its_reader_may_not_read(handlers, fake_engine):
    fake_engine.found_lineage = LINEAGE
    request = pb.GetLineageRequest(agent_id="mine/1").SerializeToString()
    found = pb.GetLineageResponse.FromString(await handlers.unary["GetLineage"](request, BOUND))
    assert [(each.agent_id, each.at_ts, each.commit_ts) for each in found.ancestors] == [("", 3, 9)]
    assert [(each.agent_id, each.at_ts, each.commit_ts) for each in found.forks] == [("", 20, 31), ("mine/2", 20, 30)]
    assert found.more


async def test_a_listing_names_no_parent_that_its_reader_may_not_read(handlers, fake_engine, monkeypatch):
    infos = [
        pb.AgentInfo(namespace="default", agent_id="mine/1", forked_from=pb.ForkOrigin(agent_id="template", at_ts=3)),
        pb.AgentInfo(namespace="default", agent_id="mine/2", forked_from=pb.ForkOrigin(agent_id="mine/1", at_ts=4)),
        pb.AgentInfo(namespace="default", agent_id="mine/3", commits=7),
    ]

    async def list_agents(*_, **__):
        return Page([each.SerializeToString() for each in infos], None)

    monkeypatch.setattr(fake_engine, "list_agents", list_agents)
    request = pb.ListAgentsRequest(prefix="mine/").SerializeToString()
    everything = pb.ListAgentsResponse.FromString(await handlers.unary["ListAgents"](request, READER))
    assert list(everything.agents) == infos
    bound = pb.ListAgentsResponse.FromString(await handlers.unary["ListAgents"](request, BOUND))
    infos[0].forked_from.agent_id = ""
    assert list(bound.agents) == infos


READER = Caller("reader", Role.READ_ONLY)


def test_who_may_transact(refused):
    def of(caller, *operations, **fields):
        return refused(
            "Transact", caller, operations=[pb.TransactOperation(key="k", **each) for each in operations], **fields
        )

    mine, yours = {"agent_id": "mine/1"}, {"agent_id": "yours/1"}
    assert of(READER, mine) == of(READER) == "token reader is read-only"
    assert of(BOUND) is of(BOUND, mine, mine) is None
    assert "bound" in of(BOUND, mine, yours)
    assert "bound" in of(BOUND, mine | {"namespace": "other"})
    assert "bound" in of(BOUND, mine, namespace="other")
    for name, fields in (("Transact", {}), ("Commit", {"txn_id": "t"})):
        checked = [pb.Precondition(**mine, agent_commit_ts=1)]
        assert refused(name, BOUND, preconditions=checked, **fields) is None
        checked.append(pb.Precondition(**yours, agent_commit_ts=1))
        assert "bound" in refused(name, BOUND, preconditions=checked, **fields)


def test_who_may_read_many_keys(refused):
    mine, yours = pb.KeyRef(agent_id="mine/1", key="k"), pb.KeyRef(agent_id="yours/1", key="k")
    assert refused("BatchGet", READER, keys=[mine, yours]) is refused("BatchGet", BOUND, keys=[mine, mine]) is None
    assert "bound" in refused("BatchGet", BOUND, keys=[mine, yours])
    assert "bound" in refused("BatchGet", BOUND, keys=[mine], namespace="other")


def test_who_may_list_agents_and_read_the_log(refused):
    for name, prefix in (("ListAgents", "prefix"), ("ReplayLog", "agent_prefix")):
        assert refused(name, READER) is None
        assert refused(name, BOUND, namespace="default", **{prefix: "mine/"}) is None
        assert "more could be listed" in refused(name, BOUND, namespace="default", **{prefix: "mine"})
        assert "more could be listed" in refused(name, BOUND, namespace="other", **{prefix: "mine/"})
    assert refused("ListAgents", BOUND, prefix="mine/") is None  # an empty namespace is the default one
    assert "more could be listed" in refused("ReplayLog", BOUND, agent_prefix="mine/")  # an absent one is all
