"""What outlives the processes of a seed, disk and view, and what happens to them while none runs, or when one ends.

A machine knows what was done to it since its store was last found exact: which bits flipped, which files were replaced,
and how far something on it still testifies to the commits that there were. A fault that finds nothing to strike (no
snapshot to flip a bit in) is not counted.
"""

from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

import trio
from attrs import define, field, frozen

from simulation.coverage import Coverage, kind_of
from simulation.plan import Fault
from simulation.view import SimulatedHome
from simulation.witnesses import proven_beside_log, proven_by_log
from statehouse.storage.simdisk import SimulatedDisk

__all__ = ["COPIED", "LOG", "SNAPSHOTS", "Machine"]

LOG: Final = "log"
SNAPSHOTS: Final = "snapshots"
COPIED: Final = {"older segment comes back": "segment", "older snapshot comes back": "snapshot"}
"""Which kind of file they are about: a copy of one, made in the life before, replaces it."""


@frozen
class _Rot:
    path: str
    offset: int
    rotten: int
    """The byte as it is now, which tells whether it is still there."""
    bit: int


@define
class Machine:
    """Disk and view, and what has happened to them since the last time that the store was found exact."""

    disk: SimulatedDisk
    home: SimulatedHome
    coverage: Coverage
    rng: Random
    copies: dict[int, tuple[str, bytes]] = field(factory=dict)
    """By the number of the fault that will bring it back: path and content."""
    rot: list[_Rot] = field(factory=list)
    replaced: dict[str, bytes | None] = field(factory=dict)
    """Files that an older copy has replaced, as they were."""
    power_lost: bool = False
    durable_ts: int = 0
    """Up to here, no power loss may take commits, without fsync either."""
    witness_ts: int = 0
    """Up to here, something on the disk says which commits there must be, whatever was done to the log."""
    was_cut: bool = False
    """Whether a start that was crashed has begun to cut the log at a flipped bit: that part cannot be brought back."""
    full_until_s: float | None = None
    _log_proves_ts: int = 0
    _newest_ts: int = 0
    """The newest commit that clients knew of when the process began."""

    def strike_while_down(self, faults: Iterable[Fault], newest_ts: int) -> None:
        """What happens to the machine between two lives, when up to `newest_ts` clients know of commits."""
        # Bits flip last: what they are then part of is what the log's own testimony is taken from.
        for fault in sorted(faults, key=lambda fault: fault.kind == "bit flips in the log"):
            if fault.kind == "bit flips in the log":
                self._log_proves_ts = proven_by_log(self.disk, LOG)  # two bad places can hide what one could not
            if self._struck_while_down(fault):
                self.coverage.struck[fault.kind] += 1
        self._newest_ts = newest_ts
        self.look_for_witnesses()

    def look_for_witnesses(self) -> None:
        """Find `witness_ts`, after something was done to log, view or snapshots."""
        beside_log = proven_beside_log(self.disk, SNAPSHOTS, self.home.rows(), self._newest_ts)
        self.witness_ts = max(self._log_proves_ts, beside_log)

    @property
    def is_hurt(self) -> bool:
        """Whether the log is not what was written to it."""
        return bool(self.rot or self.replaced)

    def named_rightly(self, details: Mapping[str, str]) -> bool:
        """Whether a refusal names a segment that was hurt, or one beside it, with an offset and a commit_ts."""
        hurt = {rot.path for rot in self.rot} | self.replaced.keys()
        segments = sorted({*self.paths("segment"), *hurt})
        may_be_named: set[str] = set()
        for index, path in enumerate(segments):
            if path in hurt:
                may_be_named.update(segments[max(index - 1, 0) : index + 2])
        if "format" in details:  # a bit of a header's version: a newer format, as far as anybody can tell
            return details["file"] in hurt
        numbers = (details.get("offset", ""), details.get("commit_ts", ""))
        return details.get("file") in may_be_named and all(number.isdecimal() for number in numbers)

    def restore(self) -> None:
        """What an operator does whom the store has told that it is damaged: bring back what was there."""
        was_cut = self.was_cut
        for path, replaced in self.replaced.items():
            if replaced is None:
                self.disk.remove(path)
                self.disk.sync_dir(path.rpartition("/")[0])
            else:
                self._put(path, replaced)
        flipped_back = self._flip_back()
        was_cut |= any(rot not in flipped_back and rot.path not in self.replaced for rot in self.rot)
        self.forget()
        self.was_cut = was_cut

    def forget(self) -> None:
        """The store was found exact, or has been restored."""
        self.was_cut = False
        self.rot.clear()
        self.replaced.clear()
        self.power_lost = False
        self._log_proves_ts = 0

    def lose_power(self) -> None:
        """What was not synced may be gone, and with it what it testified to."""
        # A full segment is synced before the next one has its name, without fsync too.
        starts = [int(path[-24:-4]) for path in self.paths("segment")]
        self.durable_ts = max(self.durable_ts, *(first_ts - 1 for first_ts in starts), 0)
        proven_ts = self._proven_but_for_rot()
        self.disk = self.disk.crash(self.rng)
        self.home.after_power_loss(self.rng)
        self.power_lost = True
        left_ts = self._proven_but_for_rot()
        if left_ts < proven_ts:  # a record after the hurt one was written, and not synced
            self._log_proves_ts = min(self._log_proves_ts, left_ts)

    def free_when_due(self) -> None:
        """A disk that was filled has room again after its time."""
        if self.full_until_s is not None and trio.current_time() >= self.full_until_s:
            self.free()

    def free(self) -> None:
        """There is room again."""
        self.disk.capacity_bytes = None
        self.full_until_s = None

    def paths(self, kind: str) -> list[str]:
        """All files of a kind, in the order of their names."""
        return [
            f"{directory}/{name}"
            for directory in (LOG, SNAPSHOTS)
            if self.disk.exists(directory)
            for name in sorted(self.disk.list_dir(directory))
            if kind_of(name) == kind
        ]

    def _struck_while_down(self, fault: Fault) -> bool:
        medium, rng = self.home.medium, self.rng
        match fault.kind:
            case "view missing":
                self.home.medium = None
                return medium is not None
            case "view damaged" if medium is not None:
                medium.damaged = True
                return True
            case "older view comes back" if medium is not None and medium.batches:
                del medium.batches[rng.randrange(len(medium.batches)) :]
                return True
            case "bit flips in the log":
                return self._flip("segment")
            case "bit flips in a snapshot":
                return self._flip("snapshot")
            case "older segment comes back" | "older snapshot comes back":
                return self._bring_back(fault)
        return False

    def _flip(self, kind: str) -> bool:
        paths = self.paths(kind)
        if not paths:
            return False
        path = self.rng.choice((paths[-1], self.rng.choice(paths)))
        content = self.disk.content(path)
        written = len(content.rstrip(b"\0"))
        offset = self.rng.randrange(self.rng.choice((written, written, written, len(content))))
        bit = self.rng.randrange(8)
        self.disk.flip_bit(path, offset, bit)
        if kind == "segment":
            self.rot.append(_Rot(path, offset, content[offset] ^ 1 << bit, bit))
        return True

    def _flip_back(self) -> list[_Rot]:
        """Undo every flip that is still there, the newest first; they are given back."""
        undone = []
        for rot in reversed(self.rot):  # two may have struck one byte; what was replaced since may have them in it
            content = self.disk.content(rot.path) if self.disk.exists(rot.path) else b""
            if rot.offset < len(content) and content[rot.offset] == rot.rotten:
                self.disk.flip_bit(rot.path, rot.offset, rot.bit)
                undone.append(rot)
        return undone

    def _proven_but_for_rot(self) -> int:
        """What the log would say was synced, had no bit flipped."""
        undone = self._flip_back()
        proven_ts = proven_by_log(self.disk, LOG)
        for rot in reversed(undone):
            self.disk.flip_bit(rot.path, rot.offset, rot.bit)
        return proven_ts

    def _bring_back(self, fault: Fault) -> bool:
        if fault.number not in self.copies:
            return False
        path, content = self.copies.pop(fault.number)
        now = self.disk.content(path) if self.disk.exists(path) else None
        if now == content:
            return False
        self._put(path, content)
        if COPIED[fault.kind] == "segment":
            self.replaced.setdefault(path, now)
        return True

    def _put(self, path: str, content: bytes) -> None:
        self.free()
        file = self.disk.open(path, create=True)
        file.write_at(0, content)
        file.sync()
        file.close()
        self.disk.sync_dir(path.rpartition("/")[0])
