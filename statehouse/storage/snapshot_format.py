"""The format of a snapshot file, written and read.

    file     magic | block (header) | block (rows) ... | end block | trailer
    block    length u32 | crc32 u32 of the bytes | bytes
    header   SnapshotHeader (protobuf)
    rows     (key length u32 | key | value length u32 | value)*, about 64 KiB, in key order
    end      a block of length 0
    trailer  row count u64 | SHA-256 of everything before it, 32 bytes

The reader hands over nothing whose checksum it has not compared, and compares the whole file's at the end.
Memory is one block, whatever the size of the file. docs/formats.md has a worked example.
"""

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is an exception, and named like one
from typing import Final
from zlib import crc32

from google.protobuf.message import DecodeError

from statehouse.limits import KIB, MIB
from statehouse.storage.disk import File
from statehouse.storage.keys import EVERYTHING
from statehouse.storage.v1.log_pb2 import SnapshotHeader
from statehouse.storage.view import Row, ViewSnapshot

__all__ = [
    "FORMAT_VERSION",
    "MAGIC",
    "SnapshotDamagedError",
    "SnapshotOutdatedError",
    "SnapshotReader",
    "SnapshotWriter",
    "row_blocks",
]

MAGIC: Final = b"SHSNAP\r\n"
FORMAT_VERSION: Final = 2
"""Of the rows in the file. The file itself is as it was in format 1, so that an older one can still be checked."""

_BLOCK_HEAD: Final = Struct(">II")
_LENGTH: Final = Struct(">I")
_COUNT: Final = Struct(">Q")
_DIGEST_BYTES: Final = 32

_BLOCK_BYTES: Final = 64 * KIB
_BLOCK_BYTES_MAX: Final = 16 * MIB
"""A longer block is a damaged length: no row comes near it, and reading must not take what memory there is."""
_SYNC_BYTES: Final = 8 * MIB
"""Written bytes are synced this often: one sync of a large file at its end would hold up the log's own syncs."""


class SnapshotDamagedError(Exception):
    """The file is not a whole snapshot that this version reads. Internal to storage: use an older one, or the log."""

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(f"snapshot {path} is damaged at offset {offset}: {what}")
        self.path = path
        self.offset = offset
        self.what = what


class SnapshotOutdatedError(Exception):
    """The rows are of an older format: no view is made of them. Internal to storage: use another one, or the log."""

    def __init__(self, path: str, version: int) -> None:
        super().__init__(f"snapshot {path} is of format {version}, and this version uses {FORMAT_VERSION}")
        self.path = path


class SnapshotWriter:
    """Writes a snapshot into an empty file, in the order: `begin`, `rows` any number of times, `end`."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._synced = 0
        self.row_count = 0
        self.size_bytes = 0

    def begin(self, header: SnapshotHeader) -> None:
        self._append(MAGIC)
        self._block(header.SerializeToString())

    def rows(self, block: bytes, count: int) -> None:
        """Write what `row_blocks` made. OSError when the disk refuses; ValueError for a block that is too long."""
        if len(block) > _BLOCK_BYTES_MAX:
            raise ValueError(f"a block of {len(block)} bytes: a row of the view is too large for a snapshot")
        self._block(block)
        self.row_count += count
        if self.size_bytes - self._synced >= _SYNC_BYTES:
            self._file.sync()
            self._synced = self.size_bytes

    def end(self) -> None:
        """Write the trailer and sync the file."""
        self._block(b"")
        self._append(_COUNT.pack(self.row_count))
        self._append(self._hash.digest())
        self._file.sync()

    def _block(self, block: bytes) -> None:
        self._append(_BLOCK_HEAD.pack(len(block), crc32(block)) + block)

    def _append(self, piece: bytes) -> None:
        self._file.write_at(self.size_bytes, piece)
        self._hash.update(piece)
        self.size_bytes += len(piece)


def row_blocks(view: ViewSnapshot) -> Generator[tuple[bytes, int], None, None]:
    """Every row of a view in blocks, with the number of rows in each."""
    pack = _LENGTH.pack
    pieces: list[bytes] = []
    size = 0
    with closing(view.scan(*EVERYTHING)) as rows:
        for key, value in rows:
            pieces += (pack(len(key)), key, pack(len(value)), value)
            size += len(key) + len(value)
            if size >= _BLOCK_BYTES:
                yield b"".join(pieces), len(pieces) // 4
                pieces.clear()
                size = 0
    if pieces:
        yield b"".join(pieces), len(pieces) // 4


class SnapshotReader:
    """Reads a snapshot in the order in which it was written: `header`, then `rows` to its end.

    Everything raises `SnapshotDamagedError` where the file is not as it was written, and OSError when it cannot
    be read.
    """

    def __init__(self, file: File, path: str) -> None:
        self._file = file
        self._path = path
        self._hash = hashlib.sha256()
        self._offset = 0

    def header(self) -> SnapshotHeader:
        """The header, which may be of an older format; SnapshotDamagedError also for a format not known here."""
        if self._take(len(MAGIC)) != MAGIC:
            raise SnapshotDamagedError(self._path, 0, "it does not begin as a snapshot does")
        offset = self._offset
        try:
            header = SnapshotHeader.FromString(self._block())
        except DecodeError as error:
            raise SnapshotDamagedError(self._path, offset, "its header is not a SnapshotHeader") from error
        if not 0 < header.format_version <= FORMAT_VERSION:
            versions = f"it has format {header.format_version}, and this version reads {FORMAT_VERSION}"
            raise SnapshotDamagedError(self._path, offset, versions)
        return header

    def rows(self) -> Iterator[list[Row]]:
        """The rows, a block at a time; the trailer is compared before this ends."""
        count = 0
        offset = self._offset
        while block := self._block():
            rows = self._parse(block, offset)
            count += len(rows)
            yield rows
            offset = self._offset
        offset = self._offset
        counted: int = _COUNT.unpack(self._take(_COUNT.size))[0]
        digest = self._hash.digest()
        if self._take(_DIGEST_BYTES) != digest:
            raise SnapshotDamagedError(self._path, offset, "the SHA-256 of the file is another")
        if counted != count:
            raise SnapshotDamagedError(self._path, offset, f"it has {count} rows, and its trailer counts {counted}")
        if self._file.size() != self._offset:
            raise SnapshotDamagedError(self._path, self._offset, "it goes on behind its end")

    def _block(self) -> bytes:
        offset = self._offset
        length, checksum = _BLOCK_HEAD.unpack(self._take(_BLOCK_HEAD.size))
        if length > _BLOCK_BYTES_MAX:
            raise SnapshotDamagedError(self._path, offset, f"a block of {length} bytes")
        block = self._take(length, offset)
        if crc32(block) != checksum:
            raise SnapshotDamagedError(self._path, offset, f"the checksum of a block of {length} bytes is another")
        return block

    def _take(self, size: int, begin: int | None = None) -> bytes:
        """The next bytes; `begin` is where the block begins that they belong to, whose length may be what is wrong."""
        piece = self._file.read_at(self._offset, size)
        if len(piece) != size:
            offset = self._offset if begin is None else begin
            raise SnapshotDamagedError(self._path, offset, f"it ends {size - len(piece)} bytes too early")
        self._hash.update(piece)
        self._offset += size
        return piece

    def _parse(self, block: bytes, offset: int) -> list[Row]:
        """The rows of a block, whose checksum was right: what is wrong here was written wrong."""
        read = _LENGTH.unpack_from
        rows: list[Row] = []
        position, end = 0, len(block)
        try:
            while position < end:
                key_end = position + 4 + read(block, position)[0]
                value_end = key_end + 4 + read(block, key_end)[0]
                rows.append((block[position + 4 : key_end], block[key_end + 4 : value_end]))
                position = value_end
        except StructError:
            position = -1
        if position != end:
            raise SnapshotDamagedError(self._path, offset, "a block that is not a sequence of rows")
        return rows
