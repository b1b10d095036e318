"""Room for what transactions stage and ask for: the limits of one and of all together are kept here, nowhere else."""

from collections.abc import Sequence

from attrs import define, field

from statehouse.actors.conditions import ExistsIs, VersionIs
from statehouse.actors.messages import Leg, StagedOperation
from statehouse.errors import InvalidRequestError, OverloadedError
from statehouse.limits import COMMIT_REQUESTS_BYTES, Limits
from statehouse.types import AgentId

__all__ = ["Staged", "StagingRoom"]

OVERHEAD_BYTES = 256
"""About what an operation or a precondition costs in memory beyond its names and value: empty ones are counted too."""


@define
class Staged:
    """What one transaction holds: its operations, in order, and what the request to commit it has besides."""

    operations: list[tuple[AgentId, StagedOperation]] = field(factory=list)
    size_bytes: int = 0
    """Of keys and values: what the limit of one transaction counts."""
    staged_bytes: int = 0
    """In memory: what the limit of all together counts."""
    asked_bytes: int = 0
    """Of the request to commit them, while it is under way: its preconditions and metadata."""


class StagingRoom:
    """What all transactions may stage, each by itself and together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._staged_bytes = 0
        self._asked_bytes = 0

    @property
    def staged_bytes(self) -> int:
        """Held by all transactions that are open or being committed."""
        return self._staged_bytes

    @property
    def asked_bytes(self) -> int:
        """Held by the requests of all that are being committed."""
        return self._asked_bytes

    def add(self, staged: Staged, agent: AgentId, operation: StagedOperation) -> None:
        """Stage one more operation. InvalidRequestError, OverloadedError: then nothing was staged."""
        limits = self._limits
        if len(staged.operations) >= limits.transaction_operations:
            raise InvalidRequestError(
                f"the transaction would have {len(staged.operations) + 1} operations, "
                f"the limit is {limits.transaction_operations}",
                details={"limit": str(limits.transaction_operations), "size": str(len(staged.operations) + 1)},
            )
        size_bytes = len(operation.key) + len(operation.value or b"")
        if staged.size_bytes + size_bytes > limits.transaction_bytes:
            raise InvalidRequestError(
                f"the transaction would have {staged.size_bytes + size_bytes} bytes, "
                f"the limit is {limits.transaction_bytes}",
                details={"limit": str(limits.transaction_bytes), "size": str(staged.size_bytes + size_bytes)},
            )
        namespace, agent_id = agent
        staged_bytes = size_bytes + len(namespace) + len(agent_id) + OVERHEAD_BYTES
        if self._staged_bytes + staged_bytes > limits.staged_bytes:
            raise OverloadedError(
                f"all open transactions together hold {self._staged_bytes} bytes, the limit is {limits.staged_bytes}",
                details={"limit": str(limits.staged_bytes), "size": str(self._staged_bytes + staged_bytes)},
            )
        staged.operations.append((agent, operation))
        staged.size_bytes += size_bytes
        staged.staged_bytes += staged_bytes
        self._staged_bytes += staged_bytes

    def ask(self, staged: Staged, legs: Sequence[Leg], metadata: bytes, what_next: str) -> None:
        """Count what the request to commit it holds while it is under way: metadata stands in the event of each agent.

        OverloadedError: then nothing was counted. Apart from what is staged, which commits set free: for want of room
        there none may be refused.
        """
        asked_bytes = len(metadata) * max(1, sum(bool(leg.operations) for leg in legs)) if metadata else 0
        for leg in legs:
            for _, (namespace, agent_id), condition in leg.checks:
                key = condition.key if isinstance(condition, VersionIs | ExistsIs) else b""
                asked_bytes += len(namespace) + len(agent_id) + len(key) + OVERHEAD_BYTES
        if asked_bytes and self._asked_bytes and self._asked_bytes + asked_bytes > COMMIT_REQUESTS_BYTES:
            raise OverloadedError(
                f"the preconditions and metadata of commits under way hold {self._asked_bytes} bytes, and this one has "
                f"{asked_bytes}; the limit is {COMMIT_REQUESTS_BYTES}; {what_next}",
                details={"limit": str(COMMIT_REQUESTS_BYTES), "size": str(self._asked_bytes + asked_bytes)},
            )
        staged.asked_bytes = asked_bytes
        self._asked_bytes += asked_bytes

    def answered(self, staged: Staged) -> None:
        """The request is not under way any more: give back what it held."""
        self._asked_bytes -= staged.asked_bytes
        staged.asked_bytes = 0

    def free(self, staged: Staged) -> None:
        """Give back the room of a transaction that is over; once."""
        self.answered(staged)
        self._staged_bytes -= staged.staged_bytes
