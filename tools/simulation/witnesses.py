"""What a data directory says of itself, read without the engine's code for it: up to where there must be commits.

Somebody who damages a log can take commits from its end that nothing else testifies to: a hash chain finds an edit, and
not a cut tail. This is how far there is something that testifies: the view's watermark, the name of the newest
snapshot, a later segment, and in the last segment the mark AFTER_SYNC that a record bears when everything before it had
been synced.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from statehouse.storage.keys import WATERMARK_KEY
from statehouse.storage.log_format import HEADER_BYTES
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.v1.log_pb2 import Watermark

__all__ = ["AFTER_SYNC", "proven_beside_log", "proven_by_log"]

AFTER_SYNC: Final = 1 << 31
CHAIN_AT: Final = slice(36, 68)
"""Of the chain value in a segment's header."""


def proven_beside_log(disk: SimulatedDisk, snapshots: str, view: Mapping[bytes, bytes] | None, newest_ts: int) -> int:
    """The newest commit_ts that view or snapshots testify to.

    A view with commits after `newest_ts`, of which nobody was told, may have a group that failed: it is a witness of
    those before.
    """
    proven = [0]
    if view is not None and WATERMARK_KEY in view:
        view_ts = Watermark.FromString(view[WATERMARK_KEY]).commit_ts
        proven.append(min(view_ts, newest_ts))
    if disk.exists(snapshots):
        proven += [int(name[:20]) for name in disk.list_dir(snapshots) if name.endswith(".snap")]
    return max(proven)


def proven_by_log(disk: SimulatedDisk, log: str) -> int:
    """The newest commit_ts that the log itself says was synced."""
    segments = sorted(name for name in disk.list_dir(log) if name.endswith(".log")) if disk.exists(log) else []
    return _proven_by(disk.content(f"{log}/{segments[-1]}"), int(segments[-1][:20])) if segments else 0


def _proven_by(segment: bytes, first_ts: int) -> int:
    proven, commit_ts, at = first_ts - 1, first_ts - 1, HEADER_BYTES
    chain = segment[CHAIN_AT]
    while at + 36 <= len(segment):
        length = int.from_bytes(segment[at : at + 4])
        stop = at + 36 + (length & ~AFTER_SYNC)
        stored = segment[at + 4 : at + 36]
        if not length or sha256(chain + segment[at : at + 4] + segment[at + 36 : stop]).digest() != stored:
            break
        if length & AFTER_SYNC:
            proven = commit_ts
        chain, at, commit_ts = stored, stop, commit_ts + 1
    return proven
