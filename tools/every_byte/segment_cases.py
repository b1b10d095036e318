"""What may happen to whole segments: missing, swapped, doubled, foreign, stale, empty, renamed, a folder, hurt headers.

All of it is refused, and names a file and a commit_ts; nothing is changed by that. The exception is an end that nothing
remembers: a log without its last segment, or with an older copy of it, is a whole log that ends earlier, and only a
view (or a snapshot, or a head kept elsewhere) knows better.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

from attrs import frozen

from every_byte.byte_disk import ByteDisk
from every_byte.format_reader import HEADER_BYTES, LogFile, read_log, records_of, segment_path
from every_byte.found import Found
from every_byte.writing import LOG, KeptHome, Writer, open_at
from statehouse.errors import StoreDamagedError
from statehouse.storage.event_log import EventLog, LogHead, ViewDisagreesError

__all__ = ["run_segment_cases"]

_SEGMENT_BYTES: Final = 2_048
_SEGMENTS: Final = 5


@frozen
class _Case:
    """A log directory. `names` and `commit_tss` are what a refusal may name; `head_ts` is the head of a log that is
    whole as it stands, None when it is none.
    """

    kind: str
    what: str
    files: dict[str, bytes]
    names: frozenset[str] = frozenset()
    commit_tss: frozenset[int] = frozenset()
    head_ts: int | None = None
    folders: tuple[str, ...] = ()


@frozen
class _Logs:
    """The log, two that went another way from an older copy of it, and one of another store.

    The twin's records differ from the log's in nothing but their times: its segments begin and end at the same commits,
    and only the chain tells that one does not follow the other. Where the branch's segments end is luck.
    """

    files: dict[str, bytes]
    log: list[LogFile]
    branch: list[LogFile]
    twin: list[LogFile]
    foreign: list[LogFile]

    def heads(self) -> dict[int, LogHead]:
        """Every head of the log by its commit_ts."""
        return {record.commit_ts: LogHead(record.commit_ts, record.chain) for record in records_of(self.log)}


def run_segment_cases(seed: int, found: Found, *, bytewise: bool = True) -> None:
    """All of them, with and without a view and fsync; `bytewise`: every byte of headers and sealed segments, too."""
    for fsync in (True, False):
        logs = _write(seed, fsync=fsync)
        heads = logs.heads()
        head = heads[max(heads)]
        middle = heads[logs.log[2].records[0].commit_ts]
        for case in (*_whole_segments(logs), *_changed_segments(logs), *(_headers(logs) if bytewise else ())):
            for view, verify_all in ((None, False), (head, False), (head, True), (middle, False)):
                _run(case, view, found, verify_all=verify_all, fsync=fsync)
        for case in _sealed_bytes(logs, Random(f"bits {seed}")) if bytewise else ():
            _run(case, None, found, verify_all=False, fsync=fsync)
            _run(case, head, found, verify_all=True, fsync=fsync)


def _write(seed: int, *, fsync: bool) -> _Logs:
    older = _continue({}, Writer(Random(f"segments {seed}")), _SEGMENTS - 2, fsync=fsync)
    # The same beginning is written twice, because a writer that has gone on cannot go back.
    writer, other, like = (Writer(Random(f"segments {seed}")) for _ in range(3))
    for one in (writer, other, like):
        _continue({}, one, _SEGMENTS - 2, fsync=fsync)
    other.rng.seed(f"branch {seed}")
    like.began_ns += 1
    files = _continue(older, writer, _SEGMENTS, fsync=fsync)
    branch = _continue(older, other, _SEGMENTS, fsync=fsync)
    twin = _continue(older, like, _SEGMENTS, fsync=fsync)
    foreign = _continue({}, Writer(Random(f"segments {seed}")), _SEGMENTS, fsync=fsync, store_id=b"another store 16")
    return _Logs(files, read_log(files), read_log(branch), read_log(twin), read_log(foreign))


def _continue(
    files: dict[str, bytes], writer: Writer, segments: int, *, fsync: bool, store_id: bytes = bytes(range(16))
) -> dict[str, bytes]:
    disk = ByteDisk(files, ("store",))
    store = open_at(disk, KeptHome(), segment_bytes=_SEGMENT_BYTES, fsync=fsync, store_id=store_id).store
    while len([name for name in disk.list_dir(LOG) if name.endswith(".log")]) < segments:
        writer.commit_groups(store, 1)
    writer.commit(store, 1)  # so that the last one has a record
    store.close()
    return disk.content()


def _whole_segments(logs: _Logs) -> Iterator[_Case]:
    """Cases of files that are what they were, in other places."""
    files, log = logs.files, logs.log
    yield _Case("untouched", "nothing done", files, head_ts=log[-1].last_ts)
    for index, segment in enumerate(log):
        before, path = log[index - 1] if index else None, segment.path
        neighbours = _around(log, index)
        rest = {name: content for name, content in files.items() if name != path}
        # What is missing shows at the segment before it, or at the one that is now the first.
        gone = frozenset({1 if before is None else segment.first_ts})
        whole_ts = before.last_ts if before is not None and segment is log[-1] else None
        for kind, left in (
            ("missing", rest),
            ("renamed away", rest | {path + ".bak": segment.content}),
        ):
            yield _Case(kind, f"{path} {kind}", left, neighbours, gone, whole_ts)
        yield _Case("folder", f"{path} a folder", rest, frozenset({path}), frozenset({segment.first_ts}), None, (path,))
        wrong = segment_path(LOG, segment.first_ts + 1)
        named = neighbours | {wrong}
        yield _Case("renamed", f"{path} renamed", rest | {wrong: segment.content}, named, gone | {segment.first_ts + 1})
        for first_ts in (segment.first_ts + 1, log[-1].last_ts + 1, log[-1].last_ts + 1000):
            copy = segment_path(LOG, first_ts)
            if copy not in files:
                yield _Case(
                    "doubled",
                    f"{path} doubled as {copy}",
                    files | {copy: segment.content},
                    frozenset({copy}),
                    frozenset({first_ts}),
                )
        yield _Case("copy kept aside", f"{path} doubled as .bak", files | {path + ".bak": segment.content},
                    head_ts=log[-1].last_ts)  # fmt: skip
        odd = f"{LOG}/{segment.first_ts}.log"
        yield _Case("odd name", f"{path} doubled as {odd}", files | {odd: segment.content}, frozenset({odd}),
                    frozenset({0}))  # fmt: skip
        for other in log[index + 1 :]:
            swapped = files | {path: other.content, other.path: segment.content}
            yield _Case("swapped", f"{path} and {other.path} swapped", swapped, frozenset({path, other.path}),
                        frozenset({segment.first_ts, other.first_ts}))  # fmt: skip


def _changed_segments(logs: _Logs) -> Iterator[_Case]:
    """Cases of files with the content of others: of another store, of an older copy, of another history, of nothing."""
    files, log = logs.files, logs.log
    for index, segment in enumerate(log):
        is_last = segment is log[-1]
        path, following = segment.path, log[index + 1].first_ts if not is_last else segment.last_ts + 1
        named, near = _around(log, index), frozenset(range(segment.first_ts, following + 1))
        for kind, others in (
            ("of another store", logs.foreign),
            ("of another history", logs.branch),
            ("of a twin", logs.twin),
        ):
            other = others[min(index, len(others) - 1)]
            if other.path == path and other.content != segment.content and (kind == "of another store" or not is_last):
                # The first segment says which store it is: when that one is foreign, the second is named.
                yield _Case(kind, f"{path} {kind}", files | {path: other.content}, named, near | {1})
        for record in segment.records[1:]:
            # An older copy: as it was before this record, with the zeros that were allocated behind it.
            stale = segment.content[: record.start].ljust(_SEGMENT_BYTES, b"\0")
            whole_ts = record.commit_ts - 1 if is_last else None
            yield _Case("stale", f"{path} stale", files | {path: stale}, frozenset({path}),
                        frozenset({record.commit_ts}), whole_ts)  # fmt: skip
        for kind, content in (("empty", b""), ("zeros", bytes(len(segment.content)))):
            yield _Case(kind, f"{path} {kind}", files | {path: content}, frozenset({path}),
                        frozenset({segment.first_ts}))  # fmt: skip
        header = segment.content[:HEADER_BYTES]
        for kind, content in (
            ("header only", header),
            ("header and zeros", header + bytes(len(segment.content) - HEADER_BYTES)),
        ):
            whole_ts = segment.first_ts - 1 if is_last else None
            yield _Case(kind, f"{path} {kind}", files | {path: content}, frozenset({path}),
                        frozenset({segment.first_ts}), whole_ts)  # fmt: skip


def _headers(logs: _Logs) -> Iterator[_Case]:
    """Every bit of every header flipped, and every header cut at every byte."""
    for segment in logs.log:
        name, commit_ts = frozenset({segment.path}), frozenset({segment.first_ts})
        content = segment.content
        for offset in range(HEADER_BYTES):
            cut = logs.files | {segment.path: content[:offset]}
            yield _Case("header cut", f"{segment.path} cut at {offset}", cut, name, commit_ts)
            for bit in range(8):
                hurt = logs.files | {segment.path: _flipped(content, offset, bit)}
                what = f"{segment.path}, bit {bit} of the byte at {offset}"
                yield _Case("header flipped", what, hurt, name, commit_ts)


def _sealed_bytes(logs: _Logs, rng: Random) -> Iterator[_Case]:
    """One bit of every byte of every record in a sealed segment flipped, and every such segment cut at every offset."""
    for segment in logs.log[:-1]:
        for record in segment.records:
            name, commit_ts = frozenset({segment.path}), frozenset({record.commit_ts})
            for offset in range(record.start, record.stop):
                hurt = logs.files | {segment.path: _flipped(segment.content, offset, rng.randrange(8))}
                yield _Case("sealed flipped", f"{segment.path} flipped at {offset}", hurt, name, commit_ts)
                cut = logs.files | {segment.path: segment.content[:offset]}
                yield _Case("sealed cut", f"{segment.path} cut at {offset}", cut, name, commit_ts)


def _run(case: _Case, view: LogHead | None, found: Found, *, verify_all: bool, fsync: bool) -> None:
    try:
        wrong = _open(case, view, verify_all=verify_all, fsync=fsync)
    except Exception as error:  # noqa: BLE001 - whatever an engine that is broken raises is a finding
        wrong = f"raised {type(error).__name__}: {error}"
    found.tried[f"segment: {case.kind}"] += 1
    if wrong is not None:
        where = "no view" if view is None else f"a view at {view.commit_ts}"
        found.violation(f"{case.what}, {where}, {'fsync' if fsync else 'no fsync'}: {wrong}")


def _open(case: _Case, view: LogHead | None, *, verify_all: bool, fsync: bool) -> str | None:
    disk = ByteDisk(case.files, case.folders)
    is_ahead = view is not None and case.head_ts is not None and view.commit_ts > case.head_ts
    try:
        log = EventLog.open(
            disk,
            LOG,
            segment_bytes=_SEGMENT_BYTES,
            max_bytes=0,
            known_good=view,
            verify_all=verify_all,
            fsync=fsync,
            report=lambda _: None,
            new_store_id=bytes,
            on_record=lambda _: None,
        )
    except StoreDamagedError as error:
        if case.head_ts is not None and not is_ahead:
            return f"refused, though it is a whole log: {error}"
        return _misnamed(error, case.names, case.commit_tss) or _changed(disk, case)
    except ViewDisagreesError:
        if is_ahead and not fsync:
            return _changed(disk, case)
        return "found to disagree with its view, instead of being refused"
    head_ts = log.head.commit_ts
    log.close()
    if case.head_ts is None or is_ahead:
        return f"opened, up to commit_ts {head_ts}"
    return None if head_ts == case.head_ts else f"opened up to {head_ts} and not {case.head_ts}"


def _misnamed(error: StoreDamagedError, names: frozenset[str], commit_tss: frozenset[int]) -> str | None:
    details = error.details
    if details.get("file") in names and details.get("commit_ts") in set(map(str, commit_tss)) and "offset" in details:
        return None
    return f"refused, naming {details}, and not one of {sorted(names)} at one of {sorted(commit_tss)}"


def _changed(disk: ByteDisk, case: _Case) -> str | None:
    changed = disk.changed_from(case.files)
    return f"refused, and yet changed: {', '.join(changed)}" if changed else None


def _around(log: list[LogFile], index: int) -> frozenset[str]:
    return frozenset(segment.path for segment in log[max(index - 1, 0) : index + 2])


def _flipped(content: bytes, offset: int, bit: int) -> bytes:
    return content[:offset] + bytes((content[offset] ^ 1 << bit,)) + content[offset + 1 :]
