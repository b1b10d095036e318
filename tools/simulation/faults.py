"""What goes wrong while a life runs: the faults of its plan, brought about at the operations that they are due at.

What is struck is counted; a fault that finds no operation of its kind is not. What becomes of the machine is
`simulation.machine`'s.
"""

import errno
import os
from typing import Final

import trio

from simulation.coverage import kind_of
from simulation.machine import COPIED, Machine
from simulation.plan import CRASHES, Fault, Plan
from simulation.view import BatchFault
from simulation.world import OPENING, Crash, World
from statehouse.storage.view import ViewWriteError

__all__ = ["Faults"]

OTHERS: Final = frozenset({"open", "rename", "remove", "truncate", "list_dir", "make_dir"})
STRUCK_BY: Final = {
    "sync fails": frozenset({"sync", "sync_dir"}),
    "write fails": frozenset({"write"}),
    "write has no room": frozenset({"write"}),
    "disk full, and freed": frozenset({"write"}),
    "read fails": frozenset({"read"}),
    "another operation fails": OTHERS,
    "view batch has no room": frozenset({"view apply"}),
    "view batch fails, written": frozenset({"view apply"}),
    "view batch finds damage": frozenset({"view apply"}),
    "view read finds damage": frozenset({"view get", "view scan"}),
    "view cannot be opened": frozenset({"view find"}),
}
ROOM_LEFT_BYTES: Final = 600
FULL_S: Final = 8.0
"""At most so long is a disk full, in virtual time."""
NEVER: Final = 1 << 62
"""As the number of an operation."""


class Faults:
    """The faults of one life, as its `World` asks for them."""

    def __init__(self, plan: Plan, life: int, machine: Machine, world: World) -> None:
        self._machine = machine
        self._world = world
        self._due = [fault for fault in plan.faults_of(life) if fault.kind in STRUCK_BY]
        self._copies = [fault for fault in plan.faults_of(life + 1) if fault.kind in COPIED]
        self._crashes = [fault for fault in plan.faults_of(life) if fault.kind in CRASHES]
        self._since = {0: 0}
        """The operation at which each fault struck, by its number; 0: the life's beginning."""
        self._next = 0
        self.struck: list[str] = []
        self.may_not_open = False
        """Whether something was struck that a store cannot be opened without."""
        self._look_ahead()

    def strike(self, operation: str, path: str, *, may_crash: bool) -> Crash | None:
        self._machine.free_when_due()
        if self._world.operations < self._next:
            return None
        now = self._world.operations
        for fault in [fault for fault in self._copies if fault.at <= now]:
            self._copy(fault)
        for fault in self._due:
            # Not while the checker looks: what it sends again would fail the view that it is about to read.
            if fault.at <= now and operation in STRUCK_BY[fault.kind] and not self._world.auditing:
                self._due.remove(fault)
                self._since[fault.number] = now
                self._count(fault, operation, path)
                self._bring_about(fault.kind, operation, path)
                break
        crash = self._crashes[0] if may_crash and self._crashes else None
        if crash is not None and self._from(crash) <= now and crash.where in {"", operation}:
            return self.crash(operation, path)
        self._look_ahead()
        return None

    def look_at_clock(self) -> None:
        self._machine.free_when_due()

    def crash(self, operation: str, path: str) -> Crash | None:
        """The crash that is due at this operation at the latest, None when the life ends in another way."""
        if not self._crashes:
            return None
        fault = self._crashes.pop(0)
        self._count(fault, operation, path)
        self._world.coverage.struck_at[f"{fault.kind}: {operation} {kind_of(path)}".rstrip()] += 1
        if fault.after and fault.after in self._since:
            self._world.coverage.counts["crashes close on another fault"] += 1
        machine = self._machine

        def strike() -> None:
            machine.disk.clear_faults()
            if fault.kind == "power loss":
                machine.lose_power()

        return Crash(machine.rng.random(), strike)

    def _from(self, crash: Fault) -> int:
        """The operation that a crash is due at; never, while the fault that it follows has not struck."""
        return self._since.get(crash.after, NEVER) + crash.at

    def _look_ahead(self) -> None:
        due = [fault.at for fault in (*self._due, *self._copies)]
        self._next = min([*due, *map(self._from, self._crashes)], default=NEVER)

    def _count(self, fault: Fault, operation: str, path: str) -> None:
        self.struck.append(fault.kind)
        self._world.coverage.struck[fault.kind] += 1
        # A snapshot that cannot be read is one that is damaged: there is another, or the log.
        self.may_not_open |= kind_of(path) != "snapshot" or operation not in {"open", "read"}
        self._world.say(f"FAULT {fault.number}: {fault.kind} at {operation} {path}")

    def _copy(self, fault: Fault) -> None:
        paths = self._machine.paths(COPIED[fault.kind])
        if paths:
            path = self._machine.rng.choice((paths[-1], self._machine.rng.choice(paths)))
            self._machine.copies[fault.number] = (path, self._machine.disk.content(path))
            self._copies.remove(fault)

    def _bring_about(self, kind: str, operation: str, path: str) -> None:
        machine, rng = self._machine, self._machine.rng
        home, disk = machine.home, machine.disk
        match kind:
            case "sync fails":
                disk.fail_next(operation, _error(errno.EIO), path=path)
            case "write fails" | "write has no room":
                number = errno.EIO if kind == "write fails" else errno.ENOSPC
                disk.fail_next("write", _error(number), path=path, partial_bytes=int(2000 * rng.random() ** 2))
            case "disk full, and freed":
                disk.capacity_bytes = 0
                disk.capacity_bytes = rng.randrange(ROOM_LEFT_BYTES) - disk.room()
                machine.full_until_s = trio.current_time() + rng.random() * FULL_S
            case "read fails":
                disk.fail_next("read", _error(errno.EIO), path=path)
            case "another operation fails":
                number = rng.choice((errno.EIO, errno.ENOSPC, errno.EMFILE))
                disk.fail_next(operation, _error(number), path=path)
            case "view batch has no room":
                home.batch_fault = BatchFault(ViewWriteError("no room", full=True), rng.random() < 0.3)
            case "view batch fails, written":
                home.batch_fault = BatchFault(ViewWriteError("an I/O error"), is_written=True)
            case "view batch finds damage":
                home.batch_fault = BatchFault(ViewWriteError("a table is damaged", damaged=True), is_written=False)
            case "view read finds damage" if home.medium is not None:
                home.medium.damaged = True
                if self._world.condition() == OPENING:
                    machine.look_for_witnesses()  # it may not have testified yet
            case "view cannot be opened":
                home.unavailable = True


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
