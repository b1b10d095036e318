"""The disk as one world has it: a SimulatedDisk whose every operation comes by the world first, and ends with it."""

from collections.abc import Callable
from typing import TypeVar

from simulation.world import World
from statehouse.storage.simdisk import SimulatedDisk, SimulatedFile

__all__ = ["WorldDisk", "WorldFile"]

T = TypeVar("T")


class WorldFile:
    """An open file of a WorldDisk: the `File` protocol."""

    __slots__ = ("_file", "_path", "_world")

    def __init__(self, world: World, file: SimulatedFile, path: str) -> None:
        self._world = world
        self._file = file
        self._path = path

    def write_at(self, offset: int, chunk: bytes) -> None:
        crash = self._world.at("write", self._path)
        if crash is not None:
            self._world.carry_out(crash, lambda: self._file.write_at(offset, chunk[: int(crash.place * len(chunk))]))
        self._file.write_at(offset, chunk)

    def read_at(self, offset: int, size: int) -> bytes:
        crash = self._world.at("read", self._path)
        if crash is not None:
            self._world.end(crash)
        return self._file.read_at(offset, size)

    def size(self) -> int:
        return self._file.size()

    def truncate(self, size: int) -> None:
        crash = self._world.at("truncate", self._path)
        if crash is not None:
            self._world.carry_out(crash, lambda: self._file.truncate(size))
        self._file.truncate(size)

    def sync(self) -> None:
        crash = self._world.at("sync", self._path)
        if crash is not None:
            self._world.carry_out(crash, self._file.sync)
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class WorldDisk:
    """The `Disk` protocol."""

    def __init__(self, world: World, disk: SimulatedDisk) -> None:
        self._world = world
        self._disk = disk

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> WorldFile:
        file = self._do("open", path, lambda: self._disk.open(path, create=create, read_only=read_only))
        return WorldFile(self._world, file, path)

    def list_dir(self, path: str) -> list[str]:
        return self._do("list_dir", path, lambda: self._disk.list_dir(path))

    def make_dir(self, path: str) -> None:
        self._do("make_dir", path, lambda: self._disk.make_dir(path))

    def rename(self, old: str, new: str) -> None:
        self._do("rename", old, lambda: self._disk.rename(old, new))
        self._world.coverage.renamed(old, new)

    def remove(self, path: str) -> None:
        self._do("remove", path, lambda: self._disk.remove(path))
        if path.endswith(".snap"):
            self._world.coverage.counts["snapshots pruned"] += 1

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def sync_dir(self, path: str) -> None:
        self._do("sync_dir", path, lambda: self._disk.sync_dir(path))

    def free_bytes(self, path: str) -> int:
        self._world.striker.look_at_clock()
        return self._disk.free_bytes(path)

    def _do(self, operation: str, path: str, call: Callable[[], T]) -> T:
        crash = self._world.at(operation, path)
        if crash is not None:
            self._world.carry_out(crash, call)
        return call()
