"""The group that was last taken back from the log, in a file beside it: a view may have it nevertheless.

When a batch of the view fails, its group is taken back from the log, and the view may have the batch all the same.
Whoever opens it then finds a view that is ahead of its log, as after the loss of commits that were answered; only this
file tells the two apart, by the group's last commit_ts and chain value, which no other group ever has. It also has the
head that the log was taken back to: that one was answered, and such a view goes on bearing witness to it.

The note is written and synced before the group is taken back, and may stay for ever: whoever reads it looks whether the
log has the group after all. A full disk is why most groups are taken back, so the file is made when the log is opened,
and written in place.

    taken-back = head head crc      the group's end, the head before it; or zeros
    head       = commit_ts u64 BE | chain 32 bytes
    crc        = crc32 u32 BE, of both heads
"""

import posixpath
import struct
from contextlib import closing
from typing import Final
from zlib import crc32

from statehouse.storage.disk import Disk
from statehouse.storage.log_format import CHAIN_BYTES, LogHead

__all__ = ["TAKEN_BACK_NAME", "TakenBackNote", "taken_back_to"]

TAKEN_BACK_NAME: Final = "taken-back"

_HEAD: Final = struct.Struct(f">Q{CHAIN_BYTES}s")
_CRC: Final = struct.Struct(">I")
_NOTE_BYTES: Final = 2 * _HEAD.size + _CRC.size


class TakenBackNote:
    """The note of one log, for whoever appends to it."""

    def __init__(self, disk: Disk, log_directory: str) -> None:
        self._disk = disk
        self._log_directory = log_directory
        self._path = posixpath.join(log_directory, TAKEN_BACK_NAME)

    def prepare(self) -> None:
        """Make the file, unless it is there. Raises OSError."""
        if self._disk.exists(self._path):
            with closing(self._disk.open(self._path, read_only=True)) as file:
                if file.size() >= _NOTE_BYTES:
                    return
        with closing(self._disk.open(self._path, create=True)) as file:
            file.write_at(0, bytes(_NOTE_BYTES))
            file.sync()
        self._disk.sync_dir(self._log_directory)

    def write(self, group_end: LogHead, back_to: LogHead) -> None:
        """Note durably that the group between these heads is about to be taken back. Raises OSError."""
        packed = _HEAD.pack(group_end.commit_ts, group_end.chain) + _HEAD.pack(back_to.commit_ts, back_to.chain)
        with closing(self._disk.open(self._path)) as file:
            file.write_at(0, packed + _CRC.pack(crc32(packed)))
            # failpoint: taken_back.written
            file.sync()


def taken_back_to(disk: Disk, log_directory: str, head: LogHead) -> LogHead | None:
    """The head that the log was to be taken back to when the last group of those that were taken back ended at `head`.

    None when it ended elsewhere, or none ever was. Raises OSError.
    """
    try:
        file = disk.open(posixpath.join(log_directory, TAKEN_BACK_NAME), read_only=True)
    except FileNotFoundError:
        return None
    with closing(file):
        found = file.read_at(0, _NOTE_BYTES)
    packed = found[: -_CRC.size]
    if len(found) < _NOTE_BYTES or found[-_CRC.size :] != _CRC.pack(crc32(packed)):
        return None
    group_end, back_to = (LogHead(*_HEAD.unpack_from(packed, at)) for at in (0, _HEAD.size))
    return back_to if group_end == head else None
