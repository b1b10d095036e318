"""A peer on the wire, made with grpcio alone: what any program sees that calls the gRPC API directly."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest
from attrs import frozen
from daemon_process import DaemonProcess
from google.protobuf.struct_pb2 import Struct
from rpc.fix_edge import stub

from statehouse.rpc.contract import METHODS
from statehouse.v1 import statehouse_pb2 as pb

PATIENCE_S = 30.0
"""Of anything in these tests that would otherwise hang."""


@frozen
class Refused:
    """How a call failed: status and code by name, and what the trailer says."""

    status: str
    code: str
    message: str
    details: dict[str, str]

    @property
    def pair(self) -> tuple[str, str]:
        return self.status, self.code


def refusal_of(error: grpc.RpcError) -> Refused:
    trailer = dict(error.trailing_metadata() or ()).get("statehouse-error-bin", b"")
    detail = pb.StatehouseError.FromString(trailer)
    return Refused(error.code().name, pb.ErrorCode.Name(detail.code), error.details(), dict(detail.details))


def struct(value: dict) -> Struct:
    encoded = Struct()
    encoded.update(value)
    return encoded


def until(is_so: Callable[[], bool]) -> None:
    """Ask again and again, for some time; every asking is a call, which is a wait."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline_s:
            pytest.fail("it never came about")


class Wire:
    """Calls of the contract by name. A call that fails raises grpc.RpcError; `refused` says how it failed."""

    def __init__(self, address: str) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        own = [*unlimited, ("grpc.use_local_subchannel_pool", 1)]  # no connection, and no backoff, of another test
        self.channel = grpc.insecure_channel(address, options=own)

    def call(self, name: str, **fields):
        return stub(self.channel, name)(METHODS[name].request_type(**fields), timeout=PATIENCE_S)

    def calls(self, name: str, requests) -> list:
        """Many calls at once; the answers in order."""
        callable_ = stub(self.channel, name)
        pending = [callable_.future(METHODS[name].request_type(**fields), timeout=PATIENCE_S) for fields in requests]
        return [each.result() for each in pending]

    def raw(self, name: str, request: bytes) -> bytes:
        return self.channel.unary_unary(METHODS[name].path)(request, timeout=PATIENCE_S)

    def refused(self, name: str, **fields) -> Refused:
        called = partial(self.call, name, **fields)
        with pytest.raises(grpc.RpcError) as caught:
            list(called()) if METHODS[name].server_streaming else called()
        return refusal_of(caught.value)

    def may_be_refused(self, name: str, **fields) -> Refused | None:
        """How a unary call failed, None when it did not."""
        try:
            self.call(name, **fields)
        except grpc.RpcError as error:
            return refusal_of(error)
        return None

    # Short forms

    def begin(self, timeout_ms: int | None = None) -> str:
        return self.call("BeginTransaction", timeout_ms=timeout_ms).txn_id

    def write(self, txn_id: str, agent: str, key: str, value: dict, namespace: str = "") -> None:
        names = {"namespace": namespace, "agent_id": agent, "key": key}
        self.call("Write", txn_id=txn_id, value=struct(value), **names)

    def commit(self, txn_id: str) -> int:
        return self.call("Commit", txn_id=txn_id).commit_ts

    def put(self, agent: str, key: str, value: dict, namespace: str = "") -> int:
        """One write in a transaction of its own; its commit_ts."""
        txn_id = self.begin()
        self.write(txn_id, agent, key, value, namespace)
        return self.commit(txn_id)

    def get(self, agent: str, key: str, namespace: str = ""):
        return self.call("GetState", namespace=namespace, agent_id=agent, key=key)

    def replay(self, agent: str, **fields) -> list:
        return list(self.call("Replay", agent_id=agent, **fields))


@pytest.fixture
def connect() -> Iterator:
    """Make peers of an address; their channels are closed with the test."""
    made: list[Wire] = []

    def make(address: str) -> Wire:
        made.append(Wire(address))
        return made[-1]

    yield make
    for wire in made:
        wire.channel.close()


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory) -> Iterator[DaemonProcess]:
    """One daemon for the tests of a module, which keep to agents of their own."""
    with DaemonProcess(tmp_path_factory.mktemp("shared") / "statehouse-data") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def wire(shared_daemon) -> Iterator[Wire]:
    """A peer of the shared daemon."""
    peer = Wire(shared_daemon.address)
    yield peer
    peer.channel.close()
