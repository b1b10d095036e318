"""What a client is told of a call that fails: status, `ErrorCode`, message, and nothing of our insides."""

import re
from functools import partial

import grpc
import pytest
import trio
from rpc.fix_edge import PATIENCE_S, SHAPES, call_of, detail_of, refused, struct_of
from structlog.testing import capture_logs

from statehouse.errors import (
    DiskFullError,
    ErrorCode,
    LogPoisonedError,
    OverloadedError,
    StorageError,
    StoreDamagedError,
    TransactionError,
)
from statehouse.rpc.contract import SERVICE_NAME
from statehouse.storage.wire import length_delimited
from statehouse.v1 import statehouse_pb2 as pb


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TransactionError("gone", code=ErrorCode.TXN_EXPIRED), grpc.StatusCode.DEADLINE_EXCEEDED),
        (OverloadedError("too much"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DiskFullError("the disk is full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (LogPoisonedError("read-only"), grpc.StatusCode.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("name", SHAPES)
async def test_an_error_of_the_engine_has_status_code_and_trailer(edge, fake_engine, error, status, name):
    fake_engine.fail_with = error
    with pytest.raises(grpc.RpcError) as raised:
        await call_of(edge, name)
    assert (raised.value.code(), raised.value.details()) == (status, error.message)
    detail = detail_of(raised.value)
    assert (detail.code, detail.message) == (error.code, error.message)


async def test_a_message_in_any_language_comes_through(edge, fake_engine):
    fake_engine.fail_with = TransactionError("weg: ü 🦀 100% \r\n", details={"k": "ü"})
    error = await refused(edge, "Health")
    assert error.details() == "weg: ü 🦀 100% \r\n"
    assert dict(detail_of(error).details) == {"k": "ü"}


async def test_committing_twice_tells_the_commit_ts(edge):
    txn_id = (await edge.call("BeginTransaction")).txn_id
    assert (await edge.call("Commit", txn_id=txn_id)).commit_ts == 1
    error = await refused(edge, "Commit", txn_id=txn_id)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(detail_of(error).details) == {"commit_ts": "1"}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_bug_is_an_error_id_and_nothing_else(edge, fake_engine, name):
    fake_engine.fail_with = ZeroDivisionError("secret internals at /srv/data")
    with pytest.raises(grpc.RpcError) as raised, capture_logs() as logged:
        await call_of(edge, name)
    error = raised.value
    assert error.code() is grpc.StatusCode.INTERNAL
    error_id = re.fullmatch(r"internal error ([0-9a-f]{16})", error.details())[1]
    assert detail_of(error).code == ErrorCode.INTERNAL_ERROR
    assert dict(detail_of(error).details) == {"error_id": error_id}
    assert [(line["error_id"], line["call"], line["exc_info"]) for line in logged] == [
        (error_id, name, fake_engine.fail_with)
    ]
    told = error.details() + str(error.trailing_metadata()) + str(detail_of(error))
    assert "secret" not in told
    assert "ZeroDivision" not in told
    fake_engine.fail_with = None
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize(
    ("error_class", "status"),
    [(StoreDamagedError, grpc.StatusCode.DATA_LOSS), (StorageError, grpc.StatusCode.INTERNAL)],
)
async def test_damage_is_told_without_naming_files(edge, fake_engine, error_class, status):
    fake_engine.fail_with = error_class("/srv/data/log/1.log: bad record at 7", details={"file": "/srv/data"})
    error = await refused(edge, "Health")
    assert error.code() is status
    assert detail_of(error).code == ErrorCode.STORAGE_ERROR
    assert "srv" not in error.details() + str(detail_of(error))


@pytest.mark.parametrize("error_class", [DiskFullError, LogPoisonedError])
async def test_what_the_operating_system_said_is_not_told(edge, fake_engine, error_class):
    fake_engine.fail_with = error_class("[Errno 28] No space left on device: '/srv/data/log/1.log'")
    fake_engine.fail_with.__cause__ = OSError(28, "No space left on device", "/srv/data/log/1.log")
    error = await refused(edge, "Health")
    assert detail_of(error).code == ErrorCode.STORAGE_ERROR
    assert "commit" in error.details()
    assert "srv" not in error.details() + str(detail_of(error))


async def test_invalid_requests(edge):
    error = await refused(edge, "GetState", agent_id="a")
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "key is empty")
    assert detail_of(error).code == ErrorCode.INVALID_REQUEST


async def test_a_value_nested_ten_thousand_deep_is_refused_and_harms_nobody(edge, fake_engine):
    value = b""
    for _ in range(10_000):
        value = length_delimited(1, length_delimited(1, b"k") + length_delimited(2, length_delimited(5, value)))
    txn_id = (await edge.call("BeginTransaction")).txn_id
    request = pb.WriteRequest(txn_id=txn_id, agent_id="a", key="k").SerializeToString() + length_delimited(5, value)
    send_raw = edge.channel.unary_unary(f"/{SERVICE_NAME}/Write")
    with pytest.raises(grpc.RpcError) as raised:
        await trio.to_thread.run_sync(partial(send_raw, request, timeout=PATIENCE_S))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "nested too deep" in raised.value.details()
    assert fake_engine.open == {txn_id: []}
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize("size", [3 * 2**20, 5 * 2**20])
async def test_a_value_over_the_limit_is_refused_with_limit_and_size(edge, size):
    txn_id = (await edge.call("BeginTransaction")).txn_id
    error = await refused(edge, "Write", txn_id=txn_id, agent_id="a", key="k", value=struct_of({"x": "x" * size}))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(detail_of(error).details)
    assert int(details["size"]) > size > int(details["limit"])
    assert (await edge.call("Health")).status == "ok"


@pytest.mark.parametrize("path", [f"/{SERVICE_NAME}/Nonsense", "/other.Service/Health"])
async def test_unknown_calls_are_unimplemented(edge, path):
    with pytest.raises(grpc.RpcError) as raised:
        await trio.to_thread.run_sync(partial(edge.channel.unary_unary(path), b"", timeout=PATIENCE_S))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
