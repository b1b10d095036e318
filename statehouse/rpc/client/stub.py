"""The contract as a client sees it: an object with a method for each call, as purerpc's client stubs have them.

    stub = Stub(transport)
    answer = await stub.GetState(pb.GetStateRequest(agent_id="a", key="k"), timeout_s=1)
    async for event in stub.Replay(pb.ReplayRequest(agent_id="a")): ...

The methods come from `contract.METHODS`; the annotations below say the same to the type checker, and a test
compares the two.
"""

from collections.abc import Awaitable
from functools import partial
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from statehouse.rpc.client.following import FollowingStream
from statehouse.rpc.client.message_stream import MessageStream
from statehouse.rpc.client.transport import Transport
from statehouse.rpc.contract import METHODS, Method
from statehouse.v1 import statehouse_pb2 as pb

__all__ = ["Stub"]

Q_contra = TypeVar("Q_contra", bound=Message, contravariant=True)
A_co = TypeVar("A_co", bound=Message, covariant=True)


class UnaryCall(Protocol[Q_contra, A_co]):
    """One request, one answer, within `timeout_s` (None: the client's own). Raises StatehouseError."""

    def __call__(self, request: Q_contra, *, timeout_s: float | None = None) -> Awaitable[A_co]:
        """Make the call."""


class StreamCall(Protocol[Q_contra]):
    """One request, any number of answers; each wait for the next is bounded by `timeout_s`."""

    def __call__(self, request: Q_contra, *, timeout_s: float | None = None) -> MessageStream:
        """The answers."""


class Stub:
    """The calls of `StatehouseService`, through a transport."""

    BeginTransaction: UnaryCall[pb.BeginTransactionRequest, pb.BeginTransactionResponse]
    Write: UnaryCall[pb.WriteRequest, pb.WriteResponse]
    Delete: UnaryCall[pb.DeleteRequest, pb.DeleteResponse]
    Commit: UnaryCall[pb.CommitRequest, pb.CommitResponse]
    Abort: UnaryCall[pb.AbortRequest, pb.AbortResponse]
    Transact: UnaryCall[pb.TransactRequest, pb.TransactResponse]
    AcquireLease: UnaryCall[pb.AcquireLeaseRequest, pb.Lease]
    RenewLease: UnaryCall[pb.RenewLeaseRequest, pb.Lease]
    ReleaseLease: UnaryCall[pb.ReleaseLeaseRequest, pb.ReleaseLeaseResponse]
    GetLease: UnaryCall[pb.GetLeaseRequest, pb.GetLeaseResponse]
    GetState: UnaryCall[pb.GetStateRequest, pb.GetStateResponse]
    GetStateAtVersion: UnaryCall[pb.GetStateAtVersionRequest, pb.GetStateAtVersionResponse]
    ListKeys: UnaryCall[pb.ListKeysRequest, pb.ListKeysResponse]
    ScanPrefix: UnaryCall[pb.ScanPrefixRequest, pb.ScanPrefixResponse]
    BatchGet: UnaryCall[pb.BatchGetRequest, pb.BatchGetResponse]
    History: StreamCall[pb.HistoryRequest]
    Diff: StreamCall[pb.DiffRequest]
    ListAgents: UnaryCall[pb.ListAgentsRequest, pb.ListAgentsResponse]
    ForkAgent: UnaryCall[pb.ForkAgentRequest, pb.ForkAgentResponse]
    GetLineage: UnaryCall[pb.GetLineageRequest, pb.GetLineageResponse]
    DeleteAgent: UnaryCall[pb.DeleteAgentRequest, pb.DeleteAgentResponse]
    ListNamespaces: UnaryCall[pb.ListNamespacesRequest, pb.ListNamespacesResponse]
    Replay: StreamCall[pb.ReplayRequest]
    ReplayLog: StreamCall[pb.ReplayLogRequest]
    Head: UnaryCall[pb.HeadRequest, pb.HeadResponse]
    Verify: StreamCall[pb.VerifyRequest]
    Health: UnaryCall[pb.HealthRequest, pb.HealthResponse]
    Version: UnaryCall[pb.VersionRequest, pb.VersionResponse]

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        for method in METHODS.values():
            setattr(self, method.name, _bound(transport, method))

    def follow(
        self, request: pb.ReplayRequest | pb.ReplayLogRequest, *, timeout_s: float | None = None
    ) -> FollowingStream:
        """Replay or ReplayLog for as long as the caller wants; see `FollowingStream`."""
        method = METHODS["Replay" if isinstance(request, pb.ReplayRequest) else "ReplayLog"]
        return FollowingStream(self._transport, method, request, timeout_s)


def _bound(transport: Transport, method: Method) -> Any:
    if not method.server_streaming:
        return partial(transport.unary, method)

    def stream(request: Message, *, timeout_s: float | None = None) -> MessageStream:
        return MessageStream(transport, method, request, transport.limit_s(timeout_s, endless=True))

    return stream
