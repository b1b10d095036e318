"""The handlers against an engine in memory: bytes in, bytes out, and errors as our own exceptions."""

from collections.abc import Coroutine

import pytest
from google.protobuf import struct_pb2

from statehouse.actors.reply import Reply
from statehouse.errors import (
    DiskFullError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    TransactionError,
)
from statehouse.rpc.contract import METHODS, SERVICE, SERVICE_NAME
from statehouse.rpc.server import handlers as handlers_module
from statehouse.rpc.server.access import ANYONE, Caller, Role
from statehouse.rpc.server.build_version import BuildVersion
from statehouse.rpc.server.dispatch import bound_service
from statehouse.rpc.server.handlers import make_handlers
from statehouse.v1 import statehouse_pb2 as pb

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
    assert len(METHODS) == 12


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
    monkeypatch.setattr(handlers_module, "RESPONSE_BYTES", 100)
    with pytest.raises(OverloadedError, match="longer prefix") as refused:
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
    "Replay": {},
    "Write": {"txn_id": "t", "key": "k", "value": struct_pb2.Struct()},
    "Delete": {"txn_id": "t", "key": "k"},
}
READS = {"GetState", "GetStateAtVersion", "ListKeys", "ScanPrefix", "Replay"}
OPEN_TO_ALL = {"Health", "Version"}
BY_TRANSACTION = {"BeginTransaction": {}, "Commit": {"txn_id": "t"}, "Abort": {"txn_id": "t"}}
BOUND = Caller("bound", Role.READ_WRITE, ("default",), ("mine/",))


def test_the_calls_above_are_all_there_are():
    assert EVERY_AGENT_CALL.keys() | BY_TRANSACTION.keys() | OPEN_TO_ALL == METHODS.keys()


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


@pytest.mark.parametrize("name", METHODS)
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
