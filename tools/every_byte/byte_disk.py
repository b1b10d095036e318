"""A disk of plain bytes: the cheapest thing that is a `Disk`, because hundreds of thousands of them are opened.

A file is immutable bytes until something is written to it, so that a case shares the bytes of all files that it does
not touch with every other case. No promise about durability is kept or checked here: a case is what power loss or time
have left, and nothing is lost after that.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["ByteDisk", "ByteFile"]

_FREE_BYTES: Final = 1 << 40


class _Node:
    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content: bytes | bytearray = content


class ByteDisk:
    """The `Disk` protocol over a dict of paths; there are the directories of the files, and those that are named."""

    def __init__(self, files: Mapping[str, bytes], directories: Iterable[str] = ()) -> None:
        self._nodes = {path: _Node(content) for path, content in files.items()}
        self._directories = {path.rpartition("/")[0] for path in files} | set(directories)

    def content(self) -> dict[str, bytes]:
        """Every file as it is now."""
        return {path: bytes(node.content) for path, node in self._nodes.items()}

    def changed_from(self, before: Mapping[str, bytes]) -> list[str]:
        """The paths of files that are not as they were: changed, new or gone."""
        nodes = self._nodes
        changed = [path for path, was in before.items() if path not in nodes or nodes[path].content != was]
        return changed + [path for path in nodes if path not in before]

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> "ByteFile":
        if path in self._directories:
            raise _error(errno.EISDIR, path)
        node = self._nodes.get(path)
        if node is None:
            if not create:
                raise _error(errno.ENOENT, path)
            node = self._nodes[path] = _Node(b"")
        elif create:
            node.content = b""
        return ByteFile(node, path, read_only=read_only)

    def list_dir(self, path: str) -> list[str]:
        if path not in self._directories:
            raise _error(errno.ENOENT, path)
        found = (name.rpartition("/") for name in (*self._nodes, *self._directories))
        return [name for parent, _, name in found if parent == path]

    def make_dir(self, path: str) -> None:
        if self.exists(path):
            raise _error(errno.EEXIST, path)
        self._directories.add(path)

    def rename(self, old: str, new: str) -> None:
        if old not in self._nodes:
            raise _error(errno.ENOENT, old)
        self._nodes[new] = self._nodes.pop(old)

    def remove(self, path: str) -> None:
        if path not in self._nodes:
            raise _error(errno.ENOENT, path)
        del self._nodes[path]

    def exists(self, path: str) -> bool:
        return path in self._nodes or path in self._directories

    def sync_dir(self, path: str) -> None:
        """Everything is durable already."""

    def free_bytes(self, path: str) -> int:  # noqa: ARG002 - the protocol's
        return _FREE_BYTES


class ByteFile:
    """The `File` protocol over one file of a ByteDisk."""

    __slots__ = ("_node", "_path", "_read_only")

    def __init__(self, node: _Node, path: str, *, read_only: bool) -> None:
        self._node = node
        self._path = path
        self._read_only = read_only

    def write_at(self, offset: int, chunk: bytes) -> None:
        end = offset + len(chunk)
        if self._node.content[offset:end] == chunk:
            return  # what is written once more as it is must not cost a copy of the file
        content = self._writable()
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset:end] = chunk

    def read_at(self, offset: int, size: int) -> bytes:
        content = self._node.content
        return content[offset : offset + size] if isinstance(content, bytes) else bytes(content[offset : offset + size])

    def size(self) -> int:
        return len(self._node.content)

    def truncate(self, size: int) -> None:
        if size != len(self._node.content):
            content = self._writable()
            del content[size:]
            content.extend(bytes(size - len(content)))

    def sync(self) -> None:
        """Everything is durable already."""

    def close(self) -> None:
        """Nothing is held."""

    def _writable(self) -> bytearray:
        if self._read_only:
            raise _error(errno.EBADF, self._path)
        node = self._node
        if isinstance(node.content, bytes):
            node.content = bytearray(node.content)
        return node.content


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
