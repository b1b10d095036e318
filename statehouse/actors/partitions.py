"""The resident partitions live here and nowhere else: started on demand, passivated when idle, restarted after a bug.

At most a configured number is resident, and beyond it only those that have work. The least recently used one that has
nothing pending makes room; a partition has no state that is not in the view once its commits are durable, so
passivating loses nothing.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from statehouse.actors.partition import PartitionMachine
from statehouse.actors.reply import Reply
from statehouse.actors.resident import Partition, ReadInherited
from statehouse.actors.supervisor import Supervisor
from statehouse.errors import InternalError, OverloadedError, StatehouseError, UnavailableError
from statehouse.limits import (
    BUSY_PARTITIONS,
    PARTITION_IDLE_S,
    PARTITION_RESTART_S,
    ROOM_TRIES,
)
from statehouse.types import AgentId

__all__ = ["Partitions"]

log = structlog.stdlib.get_logger(__name__)


class Partitions:
    """The partitions' supervisor and directory.

    `machine(agent)` makes a partition's machine from the view; `barrier()` is the sequencer's.
    """

    def __init__(
        self,
        machine: Callable[[AgentId], PartitionMachine],
        barrier: Callable[[], Reply[None]],
        read_inherited: ReadInherited,
        supervisor: Supervisor,
        *,
        max_resident: int,
    ) -> None:
        self._machine = machine
        self._barrier = barrier
        self._read_inherited = read_inherited
        self._supervisor = supervisor
        self.max_resident = max_resident
        self.most_resident = max_resident + BUSY_PARTITIONS
        """With those that have work: past it, a commit is refused, and its transaction stays open."""
        self._resident: OrderedDict[AgentId, Partition] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self.failures = 0
        """How often everything pending was forgotten: a commit in preparation compares it before it goes on."""
        self.last_failure: StatehouseError | None = None
        """Why it was forgotten the last time."""

    def of(self, agent: AgentId) -> Partition:
        """The agent's partition, started if it is not resident. OverloadedError when far too many have work."""
        partition = self._resident.get(agent)
        if partition is None:
            partition = self._start(agent)
        else:
            self._resident.move_to_end(agent)
        partition.used = True
        return partition

    def __len__(self) -> int:
        return len(self._resident)

    def forget_pending(self, error: StatehouseError) -> None:
        """An append has failed with `error`, and with it everything that any partition has pending."""
        self.failures += 1
        self.last_failure = error
        for partition in self._resident.values():
            if not partition.idle:
                partition.forget_pending(error)

    def restart(self, partition: Partition) -> None:
        """Have a partition begin again from the view, without what it has prepared and not sent.

        It takes nothing until its commits that are in line have settled.
        """
        partition.pause()
        if self._nursery is not None:
            self._nursery.start_soon(self._restart, partition)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The nursery of the partitions' tasks, and the sweep that passivates those that are idle, around a block."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._sweep)
            yield
            self._close()
            nursery.cancel_scope.cancel()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(PARTITION_IDLE_S)
            self._passivate_unused()

    def _close(self) -> None:
        """End every partition; what waits in their mailboxes fails, and has not happened."""
        self._nursery = None
        for partition in self._resident.values():
            partition.close("the daemon is stopping")
        self._resident.clear()

    def _start(self, agent: AgentId) -> Partition:
        if self._nursery is None:
            raise UnavailableError("the daemon is stopping")
        self._make_room()
        partition = self._resident[agent] = Partition(
            agent, lambda: self._machine(agent), self._barrier, self._read_inherited, self._crashed
        )
        self._nursery.start_soon(partition.run, name=partition.name)
        return partition

    def _make_room(self) -> None:
        """Passivate those that were not used for longest, down to the number that may be resident.

        Those with work stay beyond it: residency is a cache, and a commit must not fail for another's sake.
        """
        for _ in range(min(ROOM_TRIES, len(self._resident))):
            if len(self._resident) < self.max_resident:
                return
            agent, partition = next(iter(self._resident.items()))
            if partition.idle:
                self._passivate(agent)
            else:
                self._resident.move_to_end(agent)  # it is in use, and need not be looked at again for a while
        if len(self._resident) >= self.most_resident:
            raise OverloadedError(
                f"{len(self._resident)} partitions have commits under way; try again later",
                details={"limit": str(self.most_resident), "size": str(len(self._resident) + 1)},
            )

    def _passivate_unused(self) -> None:
        unused = [agent for agent, partition in self._resident.items() if not partition.used and partition.idle]
        for agent in unused:
            self._passivate(agent)
        for partition in self._resident.values():
            partition.used = False

    def _passivate(self, agent: AgentId) -> None:
        self._resident.pop(agent).close("passivated")

    def _crashed(self, partition: Partition, txn_id: str, error: Exception) -> InternalError:
        reported = self._supervisor.bug(error, txn_id=txn_id, **partition.state)
        now_s = trio.current_time()
        if partition.crashed_s is not None and now_s - partition.crashed_s < PARTITION_RESTART_S:
            partition.pause()  # until the engine has stopped: what it counts from here on may be wrong
            self._supervisor.escalate(error)
        else:
            self.restart(partition)
        partition.crashed_s = now_s
        return reported

    async def _restart(self, partition: Partition) -> None:
        # Its commits that are in line already count on versions that only the old machine knows: let them settle.
        await self._barrier().wait()
        partition.restart()
