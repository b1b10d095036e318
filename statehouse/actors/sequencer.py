"""The Sequencer: the next commit_ts and the last commit time live here and nowhere else.

It drains its mailbox, gives what it found consecutive commit timestamps, and makes the group durable with one
call in a worker thread: append, sync, apply to the view. What arrives meanwhile is the next group. The thread
is never abandoned: once an append has begun, the commit is decided whether or not somebody still waits.

When a group fails, everything that was prepared behind it fails too, because its versions were counted on top
of the group's: the partitions forget what is pending before anybody is answered, and no commit_ts is used up.
"""

from collections.abc import Callable, Sequence

import trio

from statehouse.actors.mailbox import Mailbox
from statehouse.actors.messages import Barrier, Submit
from statehouse.actors.reply import Reply
from statehouse.errors import LogPoisonedError, StatehouseError, UnavailableError
from statehouse.limits import GROUP_BYTES, GROUP_COMMITS, SEQUENCER_MAILBOX_MESSAGES
from statehouse.storage.commit import GroupCommit, PreparedCommit

__all__ = ["Sequencer", "SequencerMachine"]


class SequencerMachine:
    """Order and time. `head_ts` and `head_time_ns` are those of the last commit that is durable."""

    def __init__(self, head_ts: int, head_time_ns: int) -> None:
        self._head_ts = head_ts
        self._head_time_ns = head_time_ns

    def order(self, commits: Sequence[PreparedCommit], now_ns: int) -> GroupCommit:
        """The next group: commit_ts without a gap, and a time that is never earlier than the last."""
        return GroupCommit(self._head_ts + 1, max(now_ns, self._head_time_ns), tuple(commits))

    def durable(self, group: GroupCommit) -> None:
        """The group is on disk and applied: its timestamps are used."""
        self._head_ts = group.last_commit_ts
        self._head_time_ns = group.committed_at_ns


class Sequencer:
    """The actor and its handle.

    `commit_group` is the blocking call into the store; `forget_pending` tells the partitions that everything
    they have pending has failed, and why; `committed` is given each group once it is durable and was answered.
    """

    def __init__(
        self,
        machine: SequencerMachine,
        *,
        commit_group: Callable[[GroupCommit], None],
        forget_pending: Callable[[StatehouseError], None],
        committed: Callable[[GroupCommit], None],
        now_ns: Callable[[], int],
    ) -> None:
        self._machine = machine
        self._commit_group = commit_group
        self._forget_pending = forget_pending
        self._committed = committed
        self._now_ns = now_ns
        self._mailbox: Mailbox[Submit | Barrier] = Mailbox("sequencer", SEQUENCER_MAILBOX_MESSAGES)
        self._thread = trio.CapacityLimiter(1)
        self._refusal: StatehouseError | None = None
        self._in_flight: list[Submit] = []

    @property
    def refusal(self) -> StatehouseError | None:
        """Why no commit is accepted any more, or None."""
        return self._refusal

    def commit(self, commit: PreparedCommit) -> Reply[int]:
        """Put a prepared commit in line; its commit_ts once it is durable.

        Raises what `refusal` says, and OverloadedError: then nothing is in line, and the caller has the
        partitions undo what they prepared.
        """
        if self._refusal is not None:
            raise _anew(self._refusal)
        message = Submit(commit)
        self._mailbox.put(message)
        return message.reply

    def barrier(self) -> Reply[None]:
        """Settled when everything that is in line now is durable or has failed."""
        message = Barrier()
        self._mailbox.put(message, refusable=False)  # a few for each partition, and one at the end
        return message.reply

    async def run(self) -> None:
        """The actor's task. Ends only when cancelled, or by a bug, which must stop the daemon."""
        try:
            while True:
                await self._mailbox.wait()
                await self._turn()
        finally:
            self._close()

    async def _turn(self) -> None:
        group = self._in_flight = self._take_group()
        if not group:
            return
        ordered = self._machine.order([message.commit for message in group], self._now_ns())
        try:
            await trio.to_thread.run_sync(self._commit_group, ordered, limiter=self._thread)
        except StatehouseError as error:
            self._fail(error)
        else:
            self._machine.durable(ordered)
            # failpoint: sequencer.answering
            for commit_ts, message in enumerate(group, start=ordered.first_commit_ts):
                message.reply.succeed(commit_ts)
            self._committed(ordered)
        self._in_flight = []

    def _take_group(self) -> list[Submit]:
        """The next commits up to the group's limits, or up to a barrier; a barrier at the head is answered."""
        group: list[Submit] = []
        size_bytes = 0
        while len(self._mailbox) and len(group) < GROUP_COMMITS and size_bytes < GROUP_BYTES:
            if isinstance(self._mailbox.peek(), Barrier) and group:
                break
            match self._mailbox.take():
                case Barrier(reply=reply):
                    reply.succeed(None)
                case message:
                    group.append(message)
                    size_bytes += message.commit.size_bytes
        return group

    def _fail(self, error: StatehouseError) -> None:
        """Fail the group and all that is in line behind it. For a poisoned log nothing is accepted any more."""
        behind = self._mailbox.take_all()
        self._forget_pending(error)
        # failpoint: sequencer.failing
        if isinstance(error, LogPoisonedError):
            self._refusal = LogPoisonedError("the log is poisoned: the daemon is read-only until it is restarted")
            error.outcome_unknown = True
        for message in self._in_flight:
            message.reply.fail(error)
        for waiting in behind:
            match waiting:
                case Barrier():
                    waiting.reply.succeed(None)
                case Submit():
                    waiting.reply.fail(error if self._refusal is None else _anew(self._refusal))

    def _close(self) -> None:
        self._refusal = self._refusal or UnavailableError("the daemon is stopping")
        unknown = LogPoisonedError("the outcome is unknown until the daemon restarts", outcome_unknown=True)
        for message in self._in_flight:
            message.reply.fail(unknown)
        for waiting in self._mailbox.take_all():
            waiting.reply.fail(self._refusal)


def _anew(error: StatehouseError) -> StatehouseError:
    # An exception that is raised again and again keeps the frames of every raise alive.
    return type(error)(error.message)
