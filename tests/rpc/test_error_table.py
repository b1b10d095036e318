"""The error table: every row of the contract, both ways, and what comes from elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statehouse import errors
from statehouse.errors import ErrorCode
from statehouse.rpc.error_table import (
    TABLE,
    GrpcStatus,
    decode_error,
    encode_error,
    row_of,
)
from statehouse.v1 import statehouse_pb2 as pb

CONTRACT = [
    (errors.InvalidRequestError, ErrorCode.INVALID_REQUEST, "INVALID_ARGUMENT"),
    (errors.TransactionError, ErrorCode.TXN_NOT_FOUND, "NOT_FOUND"),
    (errors.TransactionError, ErrorCode.TXN_EXPIRED, "DEADLINE_EXCEEDED"),
    (errors.TransactionError, ErrorCode.TXN_ALREADY_COMMITTED, "FAILED_PRECONDITION"),
    (errors.DiskFullError, ErrorCode.STORAGE_ERROR, "RESOURCE_EXHAUSTED"),
    (errors.LogPoisonedError, ErrorCode.STORAGE_ERROR, "UNAVAILABLE"),
    (errors.UnavailableError, ErrorCode.INTERNAL_ERROR, "UNAVAILABLE"),
    (errors.InternalError, ErrorCode.INTERNAL_ERROR, "INTERNAL"),
    (errors.OverloadedError, ErrorCode.INVALID_REQUEST, "RESOURCE_EXHAUSTED"),
    (errors.NotFoundError, ErrorCode.AGENT_NOT_FOUND, "NOT_FOUND"),
    (errors.AgentExistsError, ErrorCode.AGENT_EXISTS, "ALREADY_EXISTS"),
    (errors.AgentDeletedError, ErrorCode.AGENT_DELETED, "FAILED_PRECONDITION"),
]


@pytest.mark.parametrize(("error_class", "code", "status"), CONTRACT)
def test_the_contract_s_situations(error_class, code, status):
    encoded = encode_error(error_class("what happened", code=code, details={"commit_ts": "7"}))
    assert encoded.status.name == status
    assert encoded.message == "what happened"
    detail = pb.StatehouseError.FromString(encoded.trailer)
    assert (detail.code, detail.message, dict(detail.details)) == (code, "what happened", {"commit_ts": "7"})


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.error.__name__}-{row.code.name}")
def test_a_row_comes_back_as_it_went(row):
    sent = row.error("a message", code=row.code, details={"size": "9"})
    encoded = encode_error(sent)
    assert encoded.status is row.status
    came = decode_error(int(encoded.status), encoded.message, encoded.trailer)
    expected = errors.ConnectionError if row.status is GrpcStatus.UNAVAILABLE else row.error
    assert type(came) is expected
    assert (came.message, came.code, came.details) == ("a message", row.code, {"size": "9"})


def test_every_code_of_the_contract_is_ours():
    assert {(each.name, each.value) for each in ErrorCode} == set(pb.ErrorCode.items())


def test_a_subclass_travels_as_its_nearest_class():
    assert row_of(errors.NewerFormatError("newer")).error is errors.StoreDamagedError
    assert encode_error(errors.TransactionError("?", code=ErrorCode.INTERNAL_ERROR)).status is GrpcStatus.NOT_FOUND


@pytest.mark.parametrize("code", list(ErrorCode))
def test_unavailable_is_a_connection_error_whatever_it_says(code):
    trailer = pb.StatehouseError(code=int(code), message="no").SerializeToString()
    came = decode_error(GrpcStatus.UNAVAILABLE, "", trailer)
    assert type(came) is errors.ConnectionError
    assert came.code is code


@pytest.mark.parametrize("code", [ErrorCode.TXN_NOT_FOUND, ErrorCode.TXN_EXPIRED, ErrorCode.TXN_ALREADY_COMMITTED])
@pytest.mark.parametrize("status", [GrpcStatus.UNKNOWN, GrpcStatus.NOT_FOUND, GrpcStatus.ABORTED, 99])
def test_a_transaction_s_code_is_a_transaction_error_under_any_status(code, status):
    trailer = pb.StatehouseError(code=int(code), message="no").SerializeToString()
    came = decode_error(int(status), "", trailer)
    assert type(came) is errors.TransactionError
    assert came.code is code


AGENT_ERRORS = [
    (ErrorCode.AGENT_NOT_FOUND, errors.NotFoundError),
    (ErrorCode.AGENT_EXISTS, errors.AgentExistsError),
    (ErrorCode.AGENT_DELETED, errors.AgentDeletedError),
]


@pytest.mark.parametrize(("code", "error_class"), AGENT_ERRORS)
@pytest.mark.parametrize("status", [GrpcStatus.UNKNOWN, GrpcStatus.NOT_FOUND, GrpcStatus.ABORTED, 99])
def test_an_agent_s_code_is_its_error_under_any_status(code, error_class, status):
    trailer = pb.StatehouseError(code=int(code), message="no", details={"commit_ts": "7"}).SerializeToString()
    came = decode_error(int(status), "", trailer)
    assert (type(came), came.code, came.details) == (error_class, code, {"commit_ts": "7"})


@pytest.mark.parametrize(
    ("status", "error_class", "code"),
    [
        (GrpcStatus.UNAVAILABLE, errors.ConnectionError, ErrorCode.UNKNOWN),
        (GrpcStatus.CANCELLED, errors.ConnectionError, ErrorCode.UNKNOWN),
        (GrpcStatus.DEADLINE_EXCEEDED, errors.ConnectionError, ErrorCode.UNKNOWN),
        (GrpcStatus.INVALID_ARGUMENT, errors.InvalidRequestError, ErrorCode.INVALID_REQUEST),
        (GrpcStatus.UNIMPLEMENTED, errors.InvalidRequestError, ErrorCode.INVALID_REQUEST),
        (GrpcStatus.NOT_FOUND, errors.NotFoundError, ErrorCode.UNKNOWN),
        (GrpcStatus.FAILED_PRECONDITION, errors.TransactionError, ErrorCode.UNKNOWN),
        (GrpcStatus.RESOURCE_EXHAUSTED, errors.OverloadedError, ErrorCode.UNKNOWN),
        (GrpcStatus.INTERNAL, errors.InternalError, ErrorCode.INTERNAL_ERROR),
        (GrpcStatus.DATA_LOSS, errors.StorageError, ErrorCode.STORAGE_ERROR),
        (GrpcStatus.UNAUTHENTICATED, errors.UnauthenticatedError, ErrorCode.UNAUTHENTICATED),
        (GrpcStatus.PERMISSION_DENIED, errors.PermissionDeniedError, ErrorCode.PERMISSION_DENIED),
        (GrpcStatus.ALREADY_EXISTS, errors.StatehouseError, ErrorCode.UNKNOWN),
        (4711, errors.StatehouseError, ErrorCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("trailer", [None, b"", b"\xff not protobuf", b"\x08\xe7\x07"])
def test_without_a_trailer_that_says_more_the_status_decides(status, error_class, code, trailer):
    came = decode_error(int(status), "from a proxy", trailer)
    assert (type(came), came.code, came.message) == (error_class, code, "from a proxy")


def test_an_error_always_has_a_message():
    assert "DATA_LOSS" in decode_error(15, "", None).message
    assert "4711" in decode_error(4711, "", None).message


def test_the_trailers_stay_below_what_peers_accept():
    details = {f"{n}" * 1000: "é" * 5000 for n in range(100)}
    encoded = encode_error(errors.InvalidRequestError("é" * 100_000, details=details))
    assert len(encoded.message.encode()) <= 768
    assert encoded.message.endswith("...")
    percent_encoded = 3 * len(encoded.message.encode())
    assert percent_encoded + len(encoded.trailer) * 4 / 3 < 8 * 1024


@given(st.text(), st.integers(-5, 200), st.none() | st.binary())
def test_decoding_never_raises(message, status, trailer):
    assert isinstance(decode_error(status, message, trailer), errors.StatehouseError)


@given(st.text(st.characters(), max_size=2000))
def test_any_message_can_be_sent(message):
    encoded = encode_error(errors.InvalidRequestError(message, details={message: message}))
    assert pb.StatehouseError.FromString(encoded.trailer).message == encoded.message


def test_a_lone_surrogate_in_a_message_is_escaped():
    assert encode_error(errors.InvalidRequestError("a\ud800b")).message == "a\\ud800b"
