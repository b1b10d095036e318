"""A Partition: one agent's version counters, and what is prepared and not yet durable, live here and nowhere else.

Preparing a commit looks at what is pending first and at the view second, so that two commits in one group
count on from each other. What became durable is dropped from the pending, because the view has it then; after
a failed append all of it is dropped at once, and the counters are those of the view again.
"""

from collections.abc import Callable

from attrs import define

from statehouse.actors.messages import Prepare
from statehouse.storage.commit import AgentCounters, PreparedSection, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.section import agent_fields
from statehouse.storage.stored_value import exists_of, version_of
from statehouse.types import AgentId

__all__ = ["PartitionMachine"]


@define
class _Latest:
    """The newest version of a key among the pending."""

    version: int
    exists: bool


class PartitionMachine:
    """The rules of one partition, with no I/O but the two point reads that are passed in.

    `stored(key)` is the view's stored value of a key, or None; `counters()` the view's counters of the agent.
    """

    def __init__(
        self,
        agent: AgentId,
        *,
        stored: Callable[[bytes], bytes | None],
        counters: Callable[[], AgentCounters],
    ) -> None:
        self._column_prefix = agent_prefix(agent)
        self._agent_fields = agent_fields(agent)
        self._stored = stored
        self._load_counters = counters
        self._counters: AgentCounters | None = None
        """None: not read from the view yet, which can fail."""
        self._pending: dict[bytes, _Latest] = {}
        self.pending_commits = 0

    def prepare(self, message: Prepare) -> PreparedSection:
        """Assign versions and build the section; everything in it is pending from now on."""
        latest = self._pending
        counters = self._load_counters() if self._counters is None else self._counters
        # All reads come first: one that fails must not leave versions that were counted and never committed.
        read: dict[bytes, _Latest] = {}
        for key, _ in message.leg.operations:
            if key not in latest and key not in read:
                read[key] = self._latest_stored(key)
        latest.update(read)
        operations: list[tuple[bytes, bytes | None, int]] = []
        live_keys = 0
        for key, value in message.leg.operations:
            known = latest[key]
            exists = value is not None
            live_keys += exists - known.exists
            known.version += 1
            known.exists = exists
            operations.append((key, value, known.version))
        counters = self._counters = counters.plus(operations=len(operations), live_keys=live_keys)
        self.pending_commits += 1
        return prepare_section(self._column_prefix, self._agent_fields, message.txn_id, operations, counters)

    def durable(self, section: PreparedSection, commit_ts: int) -> None:
        """The section is in the log and in the view."""
        self.pending_commits -= 1
        for operation in section.operations:
            latest = self._pending.get(operation.key)
            if latest is not None and latest.version == operation.version:
                del self._pending[operation.key]
        if self._counters is not None and not self._counters.first_commit_ts:
            self._counters = self._counters.at(commit_ts, commit_ts)

    def forget_pending(self) -> None:
        """Everything pending has failed."""
        self.pending_commits = 0
        self._pending.clear()
        self._counters = None

    def _latest_stored(self, key: bytes) -> _Latest:
        stored = self._stored(key)
        if stored is None:
            return _Latest(0, exists=False)
        return _Latest(version_of(stored), exists_of(stored))
