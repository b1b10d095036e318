"""What may happen to a LevelDB view: files gone, cut, flipped, zeroed, stale, foreign; rows that point elsewhere.

Each case is a folder that the store is opened on. Everything that can be read is read: an answer is right, or it is a
StorageError that says to restart; after that restart everything is right, and every row is that of a view which was
rebuilt from the log. A commit and one more start are part of the case.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Final

from attrs import define, frozen

from every_byte.byte_disk import ByteDisk
from every_byte.found import Found
from every_byte.view_files import TRAILER_BYTES, record_heads, table_trailers
from every_byte.view_subject import SEGMENT_BYTES, Shape, ViewSubject, answers_of, commit_one_more, view_subject
from every_byte.writing import AGENTS, open_at, rows_of
from statehouse.errors import StorageError, StoreDamagedError
from statehouse.storage.keys import EVENT, STATE, VERSION, agent_prefix
from statehouse.storage.leveldb_view import LevelDBView
from statehouse.storage.stored_value import SECTION_POINTER_BYTES, expiry_of, is_in_log
from statehouse.storage.view import Row
from statehouse.storage.view_home import LevelDBHome

__all__ = ["run_view_cases"]

_SMALL_BYTES: Final = 300
"""Of a file that is cut at every length and flipped in every byte."""
_CUTS: Final = 24
_FLIPS: Final = 48
"""Of a larger file, drawn; its records and blocks are hit besides."""
_ENDS: Final = 16
"""Of a larger file's records or blocks, hit in every byte of the head or trailer."""
_POINTERS: Final = 24
"""Rows, drawn, whose pointer is changed."""
_SECTOR_BYTES: Final = (512, 4_096)
_STARTS: Final = 2
"""After damage was found by a read: the restart that it asks for has to do."""

_NEVER_FAILS_A_READ: Final = frozenset(
    {"untouched", "lock deleted", "log.old deleted", "older folder", "branch folder", "foreign folder"}
)
"""Kinds of cases whose views are whole: the store's own, or one that the start sets aside."""

_MEMORY: Final = Path("/dev/shm")
"""LevelDB syncs its MANIFEST at every start; no power is lost here, and a disk would take most of the time."""

Files = dict[str, bytes]


@frozen
class _Case:
    """A view's folder. `may_be_refused`: it says to have commits that the log does not have."""

    kind: str
    what: str
    files: Files
    may_be_refused: bool = False
    row: Row | None = None
    """A row that is written over the files' own: what no checksum of LevelDB finds."""

    @property
    def may_fail_a_read(self) -> bool:
        """Whether a file was hurt or replaced, or a row changed, that only a read looks into."""
        return self.kind not in _NEVER_FAILS_A_READ


def run_view_cases(seed: int, shape: Shape, share: int, shares: int, density: int, found: Found) -> None:
    """Every `shares`-th case, from `share` on. `density` multiplies how much of large files is tried."""
    subject = view_subject(seed, shape)
    with tempfile.TemporaryDirectory(prefix="statehouse-every-byte-", dir=_memory()) as name:
        for number, case in enumerate(_cases(subject, Random(f"view cases {seed}"), density)):
            if number % shares == share:
                _run(subject, case, Path(name) / "state", found)


def _cases(subject: ViewSubject, rng: Random, density: int) -> Iterator[_Case]:
    yield _Case("untouched", "nothing done", subject.view)
    for name in sorted(subject.view):
        yield from _hurt(subject.view, name, rng, density)
    yield from _mixed(subject)
    pointers = _pointers(subject)
    for key, place in rng.sample(pointers, min(_POINTERS * density, len(pointers))):
        changed = bytearray(subject.rows[key])
        offset, bit = rng.randrange(place.start, place.stop), rng.randrange(8)
        changed[offset] ^= 1 << bit
        what = f"a row that points elsewhere: {key.hex()}, bit {bit} of the byte at {offset} of its value"
        yield _Case("pointer changed", what, subject.view, row=(key, bytes(changed)))


def _pointers(subject: ViewSubject) -> list[tuple[bytes, slice]]:
    """The rows of events and of values in the log, and where in them is the offset, length and CRC-32.

    Not of a newest value that may have expired: then nothing reads what it points at.
    """
    found: list[tuple[bytes, slice]] = []
    for key, stored in subject.rows.items():
        columns = [key[len(prefix) :][:1] for prefix in map(agent_prefix, AGENTS) if key.startswith(prefix)]
        if columns == [EVENT]:
            found.append((key, slice(0, SECTION_POINTER_BYTES)))
        elif columns in ([STATE], [VERSION]) and is_in_log(stored) and not (columns == [STATE] and expiry_of(stored)):
            found.append((key, slice(len(stored) - SECTION_POINTER_BYTES, len(stored))))
    return found


def _hurt(files: Files, name: str, rng: Random, density: int) -> Iterator[_Case]:
    """One file gone, cut, flipped, zeroed in parts."""
    content = files[name]
    kind = "table" if name.endswith(".ldb") else "log" if name.endswith(".log") else name.partition("-")[0].lower()
    yield _Case(f"{kind} deleted", f"{name} deleted", {other: kept for other, kept in files.items() if other != name})
    if kind.startswith("log.") or name == "LOG":
        return  # what LevelDB writes for people
    ends = record_heads(content) if kind in ("log", "manifest") else table_trailers(content) if kind == "table" else []
    if density == 1 and len(ends) > _ENDS:
        ends = rng.sample(ends, _ENDS)
    if len(content) <= _SMALL_BYTES:
        cuts, flips = list(range(len(content))), list(range(len(content)))
    else:
        drawn = rng.sample(range(len(content)), _CUTS * density)
        cuts = sorted({*drawn, *ends, *(end + TRAILER_BYTES for end in ends if kind == "table")})
        flips = [*rng.sample(range(len(content)), _FLIPS * density)]
        flips += [end + place for end in ends for place in range(TRAILER_BYTES if kind == "table" else 7)]
    for cut in cuts:
        yield _Case(f"{kind} cut", f"{name} cut at {cut}", files | {name: content[:cut]})
    for offset in flips:
        bit = rng.randrange(8)
        flipped = content[:offset] + bytes((content[offset] ^ 1 << bit,)) + content[offset + 1 :]
        yield _Case(f"{kind} flipped", f"{name}, bit {bit} of the byte at {offset}", files | {name: flipped})
    for size in _SECTOR_BYTES if density > 1 or len(content) <= _SMALL_BYTES else _SECTOR_BYTES[1:]:
        for start in range(0, len(content), size):
            zeroed = content[:start] + bytes(len(content[start : start + size])) + content[start + size :]
            yield _Case(f"{kind} zeroed", f"{name}, {size} bytes at {start} zeroed", files | {name: zeroed})


def _mixed(subject: ViewSubject) -> Iterator[_Case]:
    """Files of other views, in their place or beside the right ones."""
    view = subject.view
    for whose, other in (("older", subject.older), ("branch", subject.branch), ("foreign", subject.foreign)):
        # A view that went another way, or another store's, may be further than this log.
        ahead = whose != "older"
        yield _Case(f"{whose} folder", f"the folder is the {whose} one", other, ahead)
        yield _Case(f"{whose} beside", f"the {whose} files beside, where none was", other | view, ahead)
        yield _Case(f"{whose} over", f"the {whose} files over them", view | other, ahead)
        manifest = next(name for name in other if name.startswith("MANIFEST"))
        own = next(name for name in view if name.startswith("MANIFEST"))
        with_manifest = view | {manifest: other[manifest], "CURRENT": other["CURRENT"]}
        yield _Case(f"{whose} manifest", f"the {whose} MANIFEST, and CURRENT names it", with_manifest, ahead)
        yield _Case(
            f"{whose} manifest", f"the {whose} MANIFEST by the right name", view | {own: other[manifest]}, ahead
        )
        yield _Case(f"{whose} current", f"the {whose} CURRENT", view | {"CURRENT": other["CURRENT"]}, ahead)
        for name, content in other.items():
            if name.endswith((".ldb", ".log")):
                yield _Case(f"{whose} file", f"{name} of the {whose} view", view | {name: content}, ahead)
                for mine in view:
                    if mine.endswith(name[-4:]):
                        what = f"{mine} with the content of the {whose} {name}"
                        yield _Case(f"{whose} file", what, view | {mine: content}, ahead)


@define
class _Trial:
    """One case under way: opens, reads, commits, opens."""

    subject: ViewSubject
    case: _Case
    disk: ByteDisk
    directory: Path
    found_by_read: int = 0

    def run(self) -> str | None:
        """What is wrong, or None."""
        committed = False
        for start in range(1 + _STARTS):
            opened = open_at(self.disk, LevelDBHome(self.directory), segment_bytes=SEGMENT_BYTES)
            store = opened.store
            try:
                wanted = self.subject.rows_after if committed else self.subject.rows
                answers = answers_of(store, self.subject.questions)
                for answer, right in zip_longest(answers, self.subject.answers):  # those before one that fails, too
                    if answer != right:
                        return (
                            f"a read gave another answer, at start {start + 1}, the view from the "
                            f"{opened.recovery.source}: {answer!r:.200}, not {right!r:.200}"
                        )
                opened.snapshots.write()
                if rows_of(store) != wanted:
                    return f"the rows are not a rebuild's, at start {start + 1}, from the {opened.recovery.source}"
                if committed:
                    return None
                commit_one_more(store)
                committed = True
            except StorageError as error:
                if not self.case.may_fail_a_read:
                    return f"a read failed, and nothing that it reads was damaged: {error}"
                if isinstance(error, StoreDamagedError) or "restart" not in str(error):
                    return f"damage that a read found is not said to be mended by a restart: {error}"
                self.found_by_read += 1
                if self.found_by_read > 1:
                    return "a second start did not mend what a read had found"
            finally:
                store.close()
        return "starts did not come to an end"


def _run(subject: ViewSubject, case: _Case, directory: Path, found: Found) -> None:
    directory.mkdir()
    for name, content in case.files.items():
        (directory / name).write_bytes(content)
    trial = _Trial(subject, case, ByteDisk(subject.log), directory)
    try:
        if case.row is not None:
            with closing(LevelDBView.open(str(directory), create=False)) as view:
                view.apply([case.row])
        wrong = trial.run()
    except StoreDamagedError as error:
        wrong = None if case.may_be_refused and "the log ends at" in str(error) else f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - whatever an engine that is broken raises is a finding
        wrong = f"raised {type(error).__name__}: {error}"
    found.tried[f"view: {case.kind}"] += 1
    found.tried["view: damage found by a read"] += trial.found_by_read
    if wrong is not None:
        found.violation(f"the view, {case.what}: {wrong}")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(directory.with_name("state.set-aside"), ignore_errors=True)


def _memory() -> Path | None:
    return _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
