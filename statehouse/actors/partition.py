"""A Partition: one agent's version counters, and what is prepared and not yet durable, live here and nowhere else.

A commit is prepared in two steps. `examine` reads what is needed and judges whether the commit may be done; it changes
nothing, so that a conflict leaves nothing to undo. `assign`, which comes next or never, gives the versions; it reads
nothing, so it cannot fail halfway.

Both look at what is pending first and at the view second, so that two commits in one group count on from each
other. What became durable is dropped from the pending, because the view has it then; after a failed append all of it is
dropped at once, and the counters are those of the view again. So what is pending may never come to be, and nobody is
told of it: a judgement against a commit that rests on it is put off until it is durable (`UNSETTLED`).

A fork's keys may have to be looked for in many ancestors. Where that is too much for a turn, `examine` says what is to
be read first (`Unread`), and is called again with it. What is inherited never changes, so it may be read beforehand;
the agent's own row, which comes before it, is read in the turn that judges.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Final

from statehouse.actors.agent_reads import AgentReads
from statehouse.actors.forking import find_fork, not_known
from statehouse.actors.latest import Latest
from statehouse.actors.leases import AgentLease
from statehouse.actors.messages import (
    AgentAt,
    Check,
    ExistsIs,
    Findings,
    ForkOf,
    Idempotency,
    LeaseIs,
    Leg,
    Prepare,
    StagedOperation,
    Transaction,
    Unread,
    VersionIs,
)
from statehouse.errors import AgentDeletedError, ErrorCode, FailedPrecondition, InvalidRequestError, LeaseError
from statehouse.limits import INHERITED_LOOKS
from statehouse.storage.commit import AgentCounters, PreparedSection, prepare_section
from statehouse.storage.keys import agent_prefix
from statehouse.storage.lineage import Levels
from statehouse.storage.record_notes import LeaseChange
from statehouse.storage.section import agent_fields
from statehouse.storage.stored_value import expires_at_ns
from statehouse.types import AgentId

__all__ = ["UNSETTLED", "PartitionMachine"]

UNSETTLED: Final = Findings()
"""Something is in the way, and it is not durable yet: examine again when it is, or has failed."""


class PartitionMachine:
    """The rules of one partition. `now_ns` is the engine's clock; an idempotency key is known for `window_ns`."""

    def __init__(self, agent: AgentId, reads: AgentReads, *, now_ns: Callable[[], int], window_ns: int) -> None:
        self._agent = agent
        self._column_prefix = agent_prefix(agent)
        self._agent_fields = agent_fields(agent)
        self._reads = reads
        self._now_ns = now_ns
        self._window_ns = window_ns
        self._counters: AgentCounters | None = None
        """None: not read from the view yet, which can fail."""
        self._levels: Levels = ()
        """Likewise."""
        self._end_ts: int | None = None
        """The newest commit that deleted the agent, 0: none; None: not read from the view yet."""
        self._last_ts = 0
        """The newest commit to the agent that was durable while the partition was there; else the counters have it."""
        self._pending: dict[bytes, Latest] = {}
        self._pending_requests: set[bytes] = set()
        """Idempotency keys: one request with the same at a time."""
        self._lease = AgentLease(agent, stored=reads.lease, now_ns=now_ns)
        self._read: dict[bytes, Latest] = {}
        """What `examine` has read for the commit that is being prepared."""
        self._pending_sections = 0

    @property
    def pending_commits(self) -> int:
        """Commits that are prepared and not yet durable."""
        return self._pending_sections + self._lease.pending

    def examine(self, message: Prepare) -> Findings | Unread | None:
        """What stands against preparing the leg, or None; until the next call, `assign` may follow.

        Unread: examine again with what is inherited of these keys; nothing may be assigned meanwhile.
        AgentDeletedError, AgentExistsError, InvalidRequestError, LeaseError, NotFoundError, StorageError.
        """
        leg = message.leg
        self._read = {}
        if self._counters is None:
            self._levels = self._reads.levels()
            self._counters = self._reads.counters()
        if leg.exclusive is not None:
            return self._examine_alone(message, self._counters)
        if leg.expire:
            return self._examine_expired(message)
        if message.idempotency is not None and leg.operations:
            found = self._look_up(message.idempotency)
            if found is not None:
                return found
        if leg.operations and not (message.revive or leg.checks):
            self._need_life(self._counters)
        unread = self._unread(message)
        if unread is not None:
            return unread
        pending, read = self._pending, self._read
        for key, _, _ in leg.operations:
            if key not in read:
                # What is pending may become durable, and be dropped, while other agents' partitions examine theirs.
                read[key] = pending.get(key) or self._latest_stored(key)
        if leg.checks:
            return self._check(leg.checks, self._counters)
        if leg.lease is None:
            return None
        try:
            return Findings(lease=self._lease.changed(leg.lease))
        except LeaseError:
            if self._lease.pending:
                return UNSETTLED
            raise

    def assign(self, transaction: Transaction, leg: Leg) -> PreparedSection:
        """Assign versions and build the section of the leg that was examined; everything in it is pending from now on.

        Raises KeyError when something else was examined since, which is a bug.
        """
        counters = self._counters
        if counters is None:
            raise KeyError("nothing was examined")
        pending, read = self._pending, self._read
        operations: list[tuple[bytes, bytes | None, int]] = []
        ttls_s: dict[int, int] = {}
        live_keys = 0
        for key, value, ttl_s in [StagedOperation(key, None) for key in read] if leg.expire else leg.operations:
            known = pending.get(key)
            if known is None:
                known = pending[key] = read[key]
            exists = value is not None
            live_keys += exists - known.exists
            known.version += 1
            known.exists = exists
            known.expires_at_ns = 0
            if ttl_s:
                ttls_s[len(operations)] = ttl_s
                known.expires_at_ns = expires_at_ns(self._now_ns(), ttl_s)
            operations.append((key, value, known.version))
        counters = self._counters = counters.plus(operations=len(operations), live_keys=live_keys)
        self._pending_sections += 1
        if transaction.idempotency is not None:
            self._pending_requests.add(transaction.idempotency.key)
        read.clear()
        # failpoint: prepare.versions_assigned
        return prepare_section(
            self._column_prefix,
            self._agent_fields,
            transaction.txn_id,
            operations,
            counters,
            transaction.metadata,
            ttls_s,
            expired=bool(leg.expire),
        )

    def assign_lease(self, change: LeaseChange) -> None:
        """The change that was found is pending from now on."""
        self._lease.count(change)

    def under_way(self, idempotency: Idempotency | None) -> bool:
        """Whether a request with this key is pending."""
        return idempotency is not None and idempotency.key in self._pending_requests

    def durable(self, section: PreparedSection, commit_ts: int, idempotency: Idempotency | None) -> None:
        """The section is in the log and in the view."""
        self._pending_sections -= 1
        self._last_ts = commit_ts
        for operation in section.operations:
            latest = self._pending.get(operation.key)
            if latest is not None and latest.version == operation.version:
                del self._pending[operation.key]
        if idempotency is not None:
            self._pending_requests.discard(idempotency.key)
        if self._counters is not None and not self._counters.first_commit_ts:
            self._counters = self._counters.at(commit_ts, commit_ts)

    def lease_durable(self) -> None:
        """The oldest change of the lease that was pending is in the log and in the view."""
        self._lease.durable()

    def begin_again(self) -> None:
        """What was read of the agent is of before: it became a fork, or was deleted. Nothing is pending."""
        self._counters = None
        self._end_ts = None
        self._last_ts = 0

    def forget_pending(self) -> None:
        """Everything pending has failed."""
        self._pending_sections = 0
        self._pending.clear()
        self._pending_requests.clear()
        self._lease.forget_pending()
        self._counters = None

    def _examine_alone(self, message: Prepare, counters: AgentCounters) -> Findings | Unread:
        """For a fork or an end, beside which nothing else of the agent may be under way."""
        leg = message.leg
        if self.pending_commits:
            return UNSETTLED
        if isinstance(leg.exclusive, ForkOf):
            return Findings(fork=find_fork(self._agent, leg.exclusive, counters, self._reads))
        if not counters.commits:
            raise not_known(self._agent)
        # Before the conditions: who asks again, not knowing that it was done, is not to be told that they fail now.
        ended_ts = self._ended(counters)
        if ended_ts:
            return Findings(ended_ts=ended_ts)
        return self._unread(message) or self._check(leg.checks, counters) or Findings(ending=counters)

    def _unread(self, message: Prepare) -> Unread | None:
        """What must be read of inherited rows first, being too much for a turn; None: it is at hand, or little."""
        leg, ancestors = message.leg, len(self._levels) - 1
        if (len(leg.operations) + len(leg.checks) + len(leg.expire)) * ancestors <= INHERITED_LOOKS:
            return None
        own, read, unread = self._levels[:1], self._read, dict[bytes, None]()
        conditions = (check.condition for check in leg.checks)
        named = (condition.key for condition in conditions if isinstance(condition, VersionIs | ExistsIs))
        for key in chain((key for key, _, _ in leg.operations), named, (key for key, _ in leg.expire)):
            if key in self._pending or key in read or key in unread:
                continue
            stored = self._reads.stored(own, key)
            if stored is None and key not in message.inherited:
                unread[key] = None
            else:
                read[key] = Latest.of(message.inherited[key] if stored is None else stored)
        return Unread(self._levels, list(unread)) if len(unread) * ancestors > INHERITED_LOOKS else None

    def _examine_expired(self, message: Prepare) -> Findings | Unread | None:
        """Of what is to be deleted because it expired, what is still to be; `assign` takes that from what was read."""
        wanted = message.leg.expire
        if any(key in self._pending for key, _ in wanted):
            return UNSETTLED  # what is to replace the value may fail, and this is not asked for again
        unread = self._unread(message)
        if unread is not None:
            return unread
        now_ns = self._now_ns()
        latest = [(key, version, self._latest(key)) for key, version in wanted]
        self._read = {key: each for key, version, each in latest if each.version == version and each.is_due(now_ns)}
        return None if self._read else Findings(is_nothing_due=True)

    def _need_life(self, counters: AgentCounters) -> None:
        """AgentDeletedError, unless the agent lives, or will when what is pending is durable."""
        if self._pending_sections:
            return
        ended_ts = self._ended(counters)
        if ended_ts:
            namespace, agent_id = self._agent
            raise AgentDeletedError(
                f"the agent {namespace}/{agent_id} was deleted at commit_ts {ended_ts}; to bring it back, commit "
                f"with revive, or with a precondition on it",
                details={"commit_ts": str(ended_ts)},
            )

    def _ended(self, counters: AgentCounters) -> int:
        """The commit that deleted the agent, if nothing was written to it since, else 0. Nothing is pending."""
        if not counters.commits:
            return 0
        if self._end_ts is None:
            self._end_ts = self._reads.ended_ts()
        return self._end_ts if self._end_ts >= (self._last_ts or counters.last_commit_ts) else 0

    def _look_up(self, idempotency: Idempotency) -> Findings | None:
        """What is known of an earlier request with the same key."""
        if idempotency.key in self._pending_requests:
            return UNSETTLED
        earlier = self._reads.earlier(idempotency.key)
        if earlier is None or earlier.committed_at_ns + self._window_ns <= self._now_ns():
            return None
        if earlier.fingerprint != idempotency.fingerprint:
            raise InvalidRequestError(
                f"the idempotency key was used for another request, which was committed at commit_ts "
                f"{earlier.commit_ts}",
                code=ErrorCode.IDEMPOTENCY_KEY_REUSED,
                details={"commit_ts": str(earlier.commit_ts)},
            )
        return Findings(earlier=earlier)

    def _check(self, checks: Sequence[Check], counters: AgentCounters) -> Findings | None:
        """Those that do not hold, with what was found instead."""
        failed: list[FailedPrecondition] = []
        now_ns = cache(self._now_ns)  # one time for all, or two that contradict each other might both hold
        for place, _, condition in checks:
            match condition:
                case VersionIs(key=key) | ExistsIs(key=key):
                    known = self._latest(key)
                    asked = condition[1]
                    exists = known.shows(now_ns)
                    settled = key not in self._pending
                    if isinstance(condition, VersionIs):
                        holds = asked == known.version
                    else:  # what is pending may have expired by now, but when is told by its commit
                        holds = asked == exists and (settled or exists == known.exists)
                    found = FailedPrecondition(index=place, version=known.version, exists=exists)
                case AgentAt(commit_ts):
                    last_ts = self._last_ts or counters.last_commit_ts
                    settled = not self._pending_sections
                    holds = settled and commit_ts == last_ts
                    found = FailedPrecondition(index=place, agent_commit_ts=last_ts)
                case LeaseIs(epoch):
                    newest, held = self._lease.now()
                    newest_epoch = 0 if newest is None else newest.epoch
                    settled = not self._lease.pending
                    holds = held and epoch == newest_epoch
                    found = FailedPrecondition(index=place, lease_epoch=newest_epoch, lease_held=held)
            if not holds:
                if not settled:
                    return UNSETTLED
                failed.append(found)
        return Findings(failed) if failed else None

    def _latest(self, key: bytes) -> Latest:
        latest = self._pending.get(key) or self._read.get(key)
        if latest is None:
            latest = self._read[key] = self._latest_stored(key)
        return latest

    def _latest_stored(self, key: bytes) -> Latest:
        return Latest.of(self._reads.stored(self._levels, key))
