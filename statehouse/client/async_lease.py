"""A lease from its holder's side: its epoch, until when it lasts, and the precondition that fences commits."""

import datetime as dt
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio

from statehouse.client.arguments import check_texts
from statehouse.client.results import time_of
from statehouse.client.types import Precondition
from statehouse.errors import ConnectionError, LeaseError, StatehouseError
from statehouse.rpc.client.transport import check_seconds
from statehouse.v1 import statehouse_pb2 as pb

if TYPE_CHECKING:
    from statehouse.client.calls import Calls

__all__ = ["AsyncLease"]

RELEASE_TIMEOUT_S: Final = 2.0
"""How long leaving a lease's block by an exception may wait for the daemon. It expires there anyway."""


class AsyncLease:
    """A lease on an agent. Made by `lease`.

    It fences writers off: give `precondition` to each commit that is made under it. Such a commit is refused
    (ConflictError) once the lease has expired, was released, or somebody else has acquired one; the daemon decides, by
    its own clock. Nothing renews it but `renew`.

    As a context manager it is released when its block ends. LeaseError then says that it was not held any more; a
    daemon that cannot be reached is none, for the lease expires by itself. When the block raises, the release does not
    hide the exception, cannot be cancelled, and waits at most two seconds.
    """

    def __init__(self, client: "Calls", namespace: str, agent_id: str, ttl_ms: int, lease: pb.Lease) -> None:
        self._client = client
        self._ttl_ms = ttl_ms
        self._released = False
        self.namespace: Final = namespace
        self.agent_id: Final = agent_id
        self.holder: Final = lease.holder
        self.epoch: Final = lease.epoch
        self.expires_at: dt.datetime = time_of(lease.expires_at)
        self.commit_ts: int = lease.commit_ts

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(agent_id={self.agent_id!r}, namespace={self.namespace!r}, "
            f"holder={self.holder!r}, epoch={self.epoch}, expires_at={self.expires_at:%Y-%m-%dT%H:%M:%S.%fZ})"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                await self.release()
            except ConnectionError:
                self._released = True
        else:
            with anyio.move_on_after(RELEASE_TIMEOUT_S, shield=True):
                await self._release_quietly()

    @property
    def precondition(self) -> Precondition:
        """That this lease is the agent's newest, and held."""
        return Precondition.lease(self.agent_id, self.epoch, self.namespace)

    async def renew(self, ttl_s: float | None = None, *, timeout_s: float | None = None) -> dt.datetime:
        """Let it last for `ttl_s` seconds from now, or as long as it was acquired for; returns when it expires.

        LeaseError when it is not held any more: then acquire another.
        """
        ttl_ms = self._ttl_ms if ttl_s is None else milliseconds(ttl_s)
        request = pb.RenewLeaseRequest(
            namespace=self.namespace, agent_id=self.agent_id, epoch=self.epoch, ttl_ms=ttl_ms
        )
        lease = await self._client.stub.RenewLease(request, timeout_s=timeout_s)
        self.expires_at, self.commit_ts = time_of(lease.expires_at), lease.commit_ts
        return self.expires_at

    async def release(self, *, timeout_s: float | None = None) -> None:
        """Let the next one have it. LeaseError when it is not held any more; nothing when it was released here."""
        if not self._released:
            request = pb.ReleaseLeaseRequest(namespace=self.namespace, agent_id=self.agent_id, epoch=self.epoch)
            await self._client.stub.ReleaseLease(request, timeout_s=timeout_s)
            self._released = True

    async def _release_quietly(self) -> None:
        try:
            await self.release()
        except StatehouseError:
            self._released = True  # it expires by itself


def acquire_request(namespace: str, agent_id: str, holder: str, ttl_s: float) -> pb.AcquireLeaseRequest:
    """The request for a lease. TypeError and ValueError for what the wire cannot carry."""
    check_texts(agent_id=agent_id, holder=holder)
    return pb.AcquireLeaseRequest(namespace=namespace, agent_id=agent_id, holder=holder, ttl_ms=milliseconds(ttl_s))


def not_held(agent_id: str, epoch: int, found: pb.GetLeaseResponse) -> LeaseError:
    """That a lease is not the newest, or not held; says what is, as the daemon does."""
    newest = found.lease
    state = "held" if found.held else "not held"
    told = f"the newest has epoch {newest.epoch} and is {state}" if newest.epoch else "it never had one"
    return LeaseError(
        f"agent {agent_id!r} has no lease of epoch {epoch} that is held: {told}",
        details={"epoch": str(newest.epoch), "holder": newest.holder},
    )


def milliseconds(ttl_s: float) -> int:
    """To the nearest; TypeError and ValueError for what is no time."""
    check_seconds("ttl_s", ttl_s)
    if ttl_s * 1000 >= 2**64:
        raise ValueError(f"ttl_s must be below 2**64 milliseconds, got {ttl_s:g}")
    return round(ttl_s * 1000)
