"""What a SimulatedDisk holds: files and directories that tell written from synced, and what power loss leaves of them.

A disk reorders and tears: sectors, of 512 bytes or of 4,096, reach the medium one by one, in the order in which they
were written or in none; a file's size and its name are not durable because its bytes are; a sync that fails leaves
pages that the next sync takes for clean, so that it succeeds and the bytes are gone all the same. Each of these has
lost somebody's data, and each is modelled here. The lock, the paths and the faults are `statehouse.storage.simdisk`'s.
"""

from random import Random
from typing import Final, TypeAlias

from attrs import define, field

__all__ = ["SECTOR_BYTES", "TEARS_BYTES", "DirectoryOnMedium", "FileOnMedium", "used_bytes"]

SECTOR_BYTES: Final = 512
TEARS_BYTES: Final = (512, 4096)
"""What disks write whole or not at all: one of these, for a whole disk."""

Node: TypeAlias = "FileOnMedium | DirectoryOnMedium"


@define(eq=False)
class FileOnMedium:
    """A file: its bytes as written, and what the medium has where that may differ."""

    content: bytearray = field(factory=bytearray)
    synced_size: int = 0
    before: dict[int, bytes] = field(factory=dict)
    """Sector number -> what the medium has of it, for every sector that may differ from `content`."""
    taken_for_clean: set[int] = field(factory=set)
    """Sectors whose sync failed: the next sync passes them over."""

    def write(self, offset: int, chunk: bytes) -> None:
        self.touch(min(offset, len(self.content)), offset + len(chunk))
        if offset > len(self.content):
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(chunk)] = chunk

    def resize(self, size: int) -> None:
        self.touch(min(size, len(self.content)), max(size, len(self.content)))
        if size < len(self.content):
            del self.content[size:]
        else:
            self.content.extend(bytes(size - len(self.content)))

    def touch(self, start: int, stop: int) -> None:
        """Keep what the sectors of [start, stop) hold on the medium, before they change."""
        for sector in range(start // SECTOR_BYTES, -(-stop // SECTOR_BYTES)):
            if sector not in self.before:
                self.before[sector] = bytes(self.content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
            self.taken_for_clean.discard(sector)

    def sync(self) -> None:
        self.before = {sector: self.before[sector] for sector in self.taken_for_clean}
        self.synced_size = len(self.content)

    def sync_failed(self) -> None:
        self.taken_for_clean.update(self.before)

    def flip_bit(self, offset: int, bit: int) -> None:
        self.content[offset] ^= 1 << bit
        sector, at = divmod(offset, SECTOR_BYTES)
        held = bytearray(self.before.get(sector, b""))
        if at < len(held):
            held[at] ^= 1 << bit
            self.before[sector] = bytes(held)

    def after_crash(self, rng: Random, tear_bytes: int) -> "FileOnMedium":
        written = len(self.content)
        size = rng.choice((self.synced_size, written, rng.randint(*sorted((self.synced_size, written)))))
        found = bytearray(self.content[:size])
        found.extend(bytes(size - len(found)))
        lost = self._lost(rng, tear_bytes // SECTOR_BYTES)
        for sector, held in self.before.items():
            start = sector * SECTOR_BYTES
            if start // tear_bytes in lost and start < size:
                found[start : start + SECTOR_BYTES] = held.ljust(SECTOR_BYTES, b"\0")[: size - start]
        return FileOnMedium(found, len(found))

    def _lost(self, rng: Random, tear_sectors: int) -> set[int]:
        """What the medium did not get of the tears that were written, each of so many sectors."""
        tears = list(dict.fromkeys(sector // tear_sectors for sector in self.before))
        kept = _share(rng)
        if rng.random() < 0.5:
            return {tear for tear in tears if rng.random() >= kept}
        return set(tears[round(kept * len(tears)) :])  # they were first touched in this order


@define(eq=False)
class DirectoryOnMedium:
    """A directory: its entries as they are seen, and as the medium has them."""

    entries: dict[str, Node] = field(factory=dict)
    synced: dict[str, Node] = field(factory=dict)
    changes: list[tuple[str | None, str | None, "Node | None"]] = field(factory=list)
    """Since the last sync, in order: the name that went, the name that came, and what it names."""

    def change(self, gone: str | None, come: str | None, node: "Node | None") -> None:
        self.changes.append((gone, come, node))
        _apply(self.entries, gone, come, node)

    def sync(self) -> None:
        self.synced = dict(self.entries)
        self.changes.clear()

    def after_crash(self, rng: Random, tear_bytes: int, found: dict[int, Node]) -> "DirectoryOnMedium":
        entries = dict(self.synced)
        kept = _share(rng)
        for gone, come, node in self.changes:
            if rng.random() < kept:
                _apply(entries, gone, come, node)
        for name, node in entries.items():
            # One file that is found under two names is one file: both names of a rename may have been kept.
            if id(node) not in found:
                found[id(node)] = (
                    node.after_crash(rng, tear_bytes)
                    if isinstance(node, FileOnMedium)
                    else node.after_crash(rng, tear_bytes, found)
                )
            entries[name] = found[id(node)]
        return DirectoryOnMedium(entries, dict(entries))


def _apply(entries: dict[str, Node], gone: str | None, come: str | None, node: "Node | None") -> None:
    if gone is not None:
        entries.pop(gone, None)
    if come is not None and node is not None:
        entries[come] = node


def _share(rng: Random) -> float:
    """How much of what was not synced survives: all, nothing, or some of it."""
    return rng.choice((0.0, 1.0, rng.random(), rng.random()))


def used_bytes(directory: DirectoryOnMedium) -> int:
    """The sizes of all files below a directory."""
    return sum(
        len(node.content) if isinstance(node, FileOnMedium) else used_bytes(node) for node in directory.entries.values()
    )
