"""The store as the clients of this proof see it: every call passes, and what matters about a full disk is counted.

A commit that a full disk refuses is what must happen; the same answer to anything else, and any other refusal, is not.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator

from attrs import define, field
from histories.subject import DaemonSubject
from histories.submissions import Staged
from histories.workload import WorkloadError

from statehouse import AsyncStatehouse, ReplayEvent, StatehouseError, StateResult
from statehouse.errors import ConnectionError, DiskFullError
from statehouse.types import AgentId

__all__ = ["Seen", "Watched"]


@define
class Seen:
    """What all clients of a round saw. `full` is set while the disk is known to be full, and no ballast was removed."""

    full: bool = False
    acknowledged: int = 0
    refused: int = 0
    refused_at_once: int = 0
    """In a row, since the last commit that was acknowledged."""
    reads: int = 0
    reads_while_full: int = 0
    reasons: Counter[str] = field(factory=Counter)

    def read(self) -> None:
        """A read was answered."""
        self.reads += 1
        self.reads_while_full += self.full


class Watched(DaemonSubject):
    """A daemon, through the public client, and `seen` of all that use it."""

    def __init__(self, client: AsyncStatehouse, seen: Seen) -> None:
        super().__init__(client)
        self._seen = seen

    async def begin(self) -> str:
        try:
            return await super().begin()
        except StatehouseError as error:
            raise _beyond("begin", error) from error

    async def stage(self, txn_id: str, staged: Staged) -> None:
        try:
            await super().stage(txn_id, staged)
        except StatehouseError as error:
            raise _beyond("a staged write", error) from error

    async def commit(self, txn_id: str) -> int:
        seen = self._seen
        try:
            commit_ts = await super().commit(txn_id)
        except DiskFullError as error:
            seen.refused += 1
            seen.refused_at_once += 1
            seen.reasons[re.split("[;:]", error.message)[0]] += 1
            raise
        seen.acknowledged += 1
        seen.refused_at_once = 0
        return commit_ts

    async def get(self, agent: AgentId, key: str) -> StateResult:
        try:
            found = await super().get(agent, key)
        except StatehouseError as error:
            raise _beyond("a read", error) from error
        self._seen.read()
        return found

    async def scan(self, agent: AgentId, prefix: str) -> dict[str, StateResult]:
        try:
            found = await super().scan(agent, prefix)
        except StatehouseError as error:
            raise _beyond("a scan", error) from error
        self._seen.read()
        return found

    async def replay(self, agent: AgentId, first_ts: int = 0, last_ts: int | None = None) -> AsyncIterator[ReplayEvent]:
        try:
            async for event in super().replay(agent, first_ts, last_ts):
                yield event
        except StatehouseError as error:
            raise _beyond("a replay", error) from error
        self._seen.read()


def _beyond(what: str, error: StatehouseError) -> Exception:
    """A refusal that no full disk excuses. A daemon that is gone was killed, which is for others to judge."""
    if isinstance(error, ConnectionError):
        return error
    return WorkloadError(f"{what} was refused with {type(error).__name__}: {error.message}")
