"""One agent's lease: the newest, as it will be once what is pending is durable, lives here and nowhere else.

A lease has an epoch, one above that of the lease before it, and a time at which it ends. It is held until then, unless
it was released; a new one can be acquired only when it is not. Every change is a commit of its own, which shows in no
agent's events. That is what fences: a commit that carries an epoch (`LeaseIs`) passes through the same partition as
the acquisition of the next one, so once there is a newer epoch, an older one is refused for ever.
"""

from collections.abc import Callable

from statehouse.actors.messages import AcquireLease, LeaseRequest, LeaseRow, LeaseView, ReleaseLease, RenewLease
from statehouse.errors import LeaseError
from statehouse.storage.record_notes import LeaseChange
from statehouse.types import AgentId

__all__ = ["AgentLease", "lease_view"]

_NS_PER_MS = 1_000_000


def lease_view(row: LeaseRow | None, now_ns: int) -> LeaseView:
    """The newest lease, and whether it is held at that time."""
    return LeaseView(row, held=row is not None and row.expires_at_ns > now_ns)


class AgentLease:
    """`stored()` is the view's newest row, or None; `now_ns()` the engine's clock."""

    def __init__(self, agent: AgentId, *, stored: Callable[[], LeaseRow | None], now_ns: Callable[[], int]) -> None:
        self._agent = agent
        self._stored = stored
        self._now_ns = now_ns
        self._newest: LeaseRow | None = None
        self._known = False
        """Whether `_newest` was read: only the agents that have leases are asked for them."""
        self.pending = 0
        """Changes that are not durable yet; with any, the newest is one of them."""

    def now(self) -> LeaseView:
        """The newest lease, and whether it is held now. StorageError."""
        if not self._known:
            self._newest = self._stored()
            self._known = True
        return lease_view(self._newest, self._now_ns())

    def changed(self, request: LeaseRequest) -> LeaseChange:
        """What the request comes to. LeaseError when the lease is another's, or not this one any more; StorageError."""
        newest, held = self.now()
        epoch = 0 if newest is None else newest.epoch
        match request:
            case AcquireLease(holder, ttl_ms):
                if held:
                    raise self._refusal("is held")
                return LeaseChange(self._agent, epoch + 1, holder, self._now_ns() + ttl_ms * _NS_PER_MS)
            case RenewLease(asked, ttl_ms):
                expires_at_ns = self._now_ns() + ttl_ms * _NS_PER_MS
            case ReleaseLease(asked):
                expires_at_ns = 0
        if newest is None or asked != epoch:
            raise self._refusal(f"is not that of epoch {asked}")
        if not held:
            raise self._refusal(f"of epoch {asked} has expired or was released")
        return LeaseChange(self._agent, epoch, newest.holder, expires_at_ns)

    def count(self, change: LeaseChange) -> None:
        """The change is pending from now on."""
        self._newest = LeaseRow(0, change.epoch, change.holder, change.expires_at_ns)
        self.pending += 1

    def durable(self) -> None:
        """The oldest pending change is in the log and in the view."""
        self.pending -= 1

    def forget_pending(self) -> None:
        """Everything pending has failed."""
        self.pending = 0
        self._known = False

    def _refusal(self, why: str) -> LeaseError:
        newest = self._newest
        namespace, agent_id = self._agent
        epoch, holder = (0, "") if newest is None else (newest.epoch, newest.holder)
        of = "there is none" if newest is None else f"epoch {epoch}, holder {holder}"
        return LeaseError(
            f"the lease on {namespace}/{agent_id} {why} ({of})", details={"epoch": str(epoch), "holder": holder}
        )
