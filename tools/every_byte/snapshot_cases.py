"""What may happen to snapshots: gone, cut, flipped, stale, foreign. They are passed over; the rows are a rebuild's.

The view is gone in every case, so that a snapshot that is whole is used. What a damaged one must not do is to change a
row, or to keep the store from opening.
"""

from random import Random
from typing import Final

from attrs import frozen

from every_byte.byte_disk import ByteDisk
from every_byte.found import Found
from every_byte.writing import SNAPSHOTS, KeptHome, Writer, open_at, rows_of
from statehouse.storage.recovery import OpenedStore

__all__ = ["run_snapshot_cases"]

_SEGMENT_BYTES: Final = 2_048
_COMMITS: Final = 6
"""Between two snapshots: they are small, because every byte of one is flipped."""
_CUT_STEP: Final = 16
"""Of the older one, which is only read once the newest is out of the way."""


@frozen
class _Stores:
    """A store with two snapshots and commits behind them, its rows; and the files of others."""

    files: dict[str, bytes]
    rows: dict[bytes, bytes]
    snapshots: list[str]
    """Newest first."""
    foreign: dict[str, bytes]
    """Snapshots of another store: at the same commits, and at one that this store does not have."""
    branch: dict[str, bytes]
    """Snapshots of a store that went another way from the first snapshot on."""


def run_snapshot_cases(seed: int, found: Found, *, step: int = 1) -> None:
    """All of them; of the snapshots' bytes, every `step`-th is flipped."""
    stores = _write(seed)
    rng = Random(f"bits {seed}")
    files, (newest, oldest) = stores.files, stores.snapshots
    _try(stores, "untouched", "nothing done", files, found, source="snapshot")
    for path in stores.snapshots:
        content = files[path]
        rest = {name: kept for name, kept in files.items() if name != path}
        _try(stores, "missing", f"{path} missing", rest, found)
        for offset in range(0, len(content), step):
            bits = content[:offset] + bytes((content[offset] ^ 1 << rng.randrange(8),)) + content[offset + 1 :]
            _try(stores, "flipped", f"{path} flipped at {offset}", files | {path: bits}, found)
            if path == newest or offset % _CUT_STEP == 0:
                _try(stores, "cut", f"{path} cut at {offset}", files | {path: content[:offset]}, found)
        _try(stores, "longer", f"{path} longer", files | {path: content + b"\0"}, found)
        _try(stores, "unfinished", f"{path} unfinished", rest | {path + ".tmp": content[: len(content) // 2]}, found)
    both = {name: kept for name, kept in files.items() if name not in stores.snapshots}
    _try(stores, "missing", "both missing", both, found, source="log")
    _try(stores, "damaged", "both damaged", both | {newest: files[newest][:-1], oldest: files[oldest][:-1]}, found)
    _try(stores, "swapped", "swapped", both | {newest: files[oldest], oldest: files[newest]}, found)
    _try(stores, "stale", "the newest with the content of the oldest", files | {newest: files[oldest]}, found)
    for path, content in stores.foreign.items():
        _try(stores, "of another store", f"{path} of another store", files | {path: content}, found)
        _try(stores, "of another store", f"only {path} of another store", both | {path: content}, found)
    for path, content in stores.branch.items():
        _try(stores, "of another history", f"{path} of another history", files | {path: content}, found)
    renamed = f"{SNAPSHOTS}/{10**6:020d}.snap"
    _try(stores, "renamed", f"{newest} doubled as {renamed}", files | {renamed: files[newest]}, found)
    _try(stores, "odd name", "a snapshot by an odd name", files | {f"{SNAPSHOTS}/1.snap": files[newest]}, found)


def _try(
    stores: _Stores, kind: str, what: str, files: dict[str, bytes], found: Found, *, source: str | None = None
) -> None:
    try:
        wrong = _open(stores, files, source)
    except Exception as error:  # noqa: BLE001 - whatever an engine that is broken raises is a finding
        wrong = f"raised {type(error).__name__}: {error}"
    found.tried[f"snapshot: {kind}"] += 1
    if wrong is not None:
        found.violation(f"snapshots, {what}: {wrong}")


def _open(stores: _Stores, files: dict[str, bytes], source: str | None) -> str | None:
    opened = open_at(ByteDisk(files, ("store", SNAPSHOTS)), KeptHome(), segment_bytes=_SEGMENT_BYTES)
    try:
        if rows_of(opened.store) != stores.rows:
            return f"the rows are not those of a rebuild (up to {opened.store.head_ts}, from {opened.recovery.source})"
        if source is not None and opened.recovery.source != source:
            return f"brought up from the {opened.recovery.source}, not from the {source}"
    finally:
        opened.store.close()
    return None


def _write(seed: int) -> _Stores:
    disk, rows = _store(seed, b"0123456789abcdef", 2)
    files = disk.content()
    snapshots = sorted((path for path in files if path.endswith(".snap")), reverse=True)
    foreign = _snapshots_of(_store(seed, b"another store 16", 4)[0])
    branch = _snapshots_of(_store(seed, b"0123456789abcdef", 2, branches=True)[0])
    return _Stores(files, rows, snapshots, foreign, branch)


def _snapshots_of(disk: ByteDisk) -> dict[str, bytes]:
    return {path: content for path, content in disk.content().items() if path.endswith(".snap")}


def _store(
    seed: int, store_id: bytes, snapshots: int, *, branches: bool = False
) -> tuple[ByteDisk, dict[bytes, bytes]]:
    """A closed store of so many snapshots, commits behind the last, and its rows."""
    disk = ByteDisk({}, ("store",))
    opened = open_at(disk, KeptHome(), segment_bytes=_SEGMENT_BYTES, store_id=store_id)
    writer = Writer(Random(f"snapshots {seed}"), keys=(b"a", b"b", b"c"), value_characters=(1, 8, 40, 300))
    for _ in range(snapshots):
        _commit(opened, writer)
        opened.snapshots.write()
        if branches:
            writer.rng.seed(f"branch {seed}")
    _commit(opened, writer)
    rows = rows_of(opened.store)
    opened.store.close()
    return disk, rows


def _commit(opened: OpenedStore, writer: Writer) -> None:
    for _ in range(_COMMITS):
        writer.commit(opened.store, 1)
