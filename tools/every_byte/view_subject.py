"""A store with a real LevelDB view: its log, the view's files, and what every read of it must answer.

The answers are those of a store whose view was rebuilt, in memory, from the log alone. Beside the view's files stand
those of an older moment, of a store that went another way from there, and of another store.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from enum import Enum
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import frozen

from every_byte.byte_disk import ByteDisk
from every_byte.format_reader import read_log, records_of
from every_byte.view_files import last_sequence
from every_byte.writing import AGENTS, IDEMPOTENCY_KEYS, KeptHome, Writer, open_at, rows_of
from statehouse.storage import leveldb_view
from statehouse.storage.commit import GroupCommit, empty_commit
from statehouse.storage.keys import agent_prefix
from statehouse.storage.section import sections_of, walk_section
from statehouse.storage.store import Store
from statehouse.storage.view_home import LevelDBHome

__all__ = ["SEGMENT_BYTES", "Shape", "ViewSubject", "answers_of", "commit_one_more", "view_subject"]

SEGMENT_BYTES: Final = 1 << 20
_BUFFER_BYTES: Final = 64 * 1024
"""LevelDB's memtable: the settings have 8 MiB. With little data it must be small, or there is but a log; this is the
least that LevelDB takes."""
_TABLE_WAITS: Final = 200
_TABLE_WAIT_S: Final = 0.01
_TRIES: Final = 12
"""On a machine that is busy with something else, one folder in ten does not come out as it should; and now and then two
logs end alike."""
_FLUSHED_GROUPS: Final = 60
"""As a rule enough for a table and something behind it."""
_MORE_NS: Final = 1_800_000_000_000_000_000

Files = dict[str, bytes]


@frozen(eq=False)
class ViewSubject:
    """The store, and the files of views that are not its own, or not any more."""

    log: Files
    view: Files
    older: Files
    branch: Files
    foreign: Files
    questions: "Questions"
    answers: list[Any]
    rows: dict[bytes, bytes]
    rows_after: dict[bytes, bytes]
    """Once `commit_one_more` has committed."""


@frozen
class Questions:
    """Everything that can be asked of the store: (agent, key, newest version), and the transactions' ids."""

    keys: list[tuple[int, bytes, int]]
    txn_ids: list[str]


class Shape(Enum):
    """What a view's folder is at the moment that its files are taken."""

    COMPACTED = "tables that were merged, and a log"
    FLUSHED = "a table written while a MANIFEST was in use, and the log after it"
    TWO_LOGS = "a log whose table is not written yet, and the one after it"


_GROUPS: Final = {Shape.COMPACTED: (12, 12, 12, 12, 12), Shape.FLUSHED: (10, 150), Shape.TWO_LOGS: (10, 150)}
"""At most, in each round: a start makes a table of LevelDB's log, and a new MANIFEST. Four tables are merged, two are
not."""


@cache
def view_subject(seed: int, shape: Shape) -> ViewSubject:
    """The store of a seed. What LevelDB's own thread does is not in the seed, so the files may differ a little."""
    with tempfile.TemporaryDirectory(prefix="statehouse-every-byte-") as name, _small_buffer():
        directory = Path(name)
        first, groups = Random(f"view {seed}"), _GROUPS[shape]
        older = _write(_Written.nothing(), directory / "older", first, groups[:-1], None)
        # Two ways to go on from there; what was committed is counted by whoever goes on.
        own = _shaped(older, directory / "view", f"own {seed}", groups[-1:], shape)
        for number in range(_TRIES):
            way = f"branch {seed} {number}"
            branch = _shaped(older, directory / f"branch-{number}", way, groups[-1:], shape)
            way = f"foreign {seed} {number}"
            foreign = _write(_Written.nothing(), directory / f"foreign-{number}", Random(way), groups[:-1], None)
            if _are_told_apart(own, older, branch, foreign):
                break
        else:
            raise RuntimeError(f"in {_TRIES} tries there were logs that end alike")
    store = open_at(ByteDisk(own.log), KeptHome(), segment_bytes=SEGMENT_BYTES).store
    questions = _questions(own.log)
    answers, rows = list(answers_of(store, questions)), rows_of(store)
    commit_one_more(store)
    rows_after = rows_of(store)
    store.close()
    return ViewSubject(own.log, own.view, older.view, branch.view, foreign.view, questions, answers, rows, rows_after)


def _are_told_apart(*views: "_Written") -> bool:
    """Whether no two logs end with the same sequence number: one then goes on for the other, and nothing shows it."""
    ends = [last_sequence(content) for each in views for name, content in each.view.items() if name.endswith(".log")]
    return len(set(ends)) == len(ends)


def answers_of(store: Store, questions: Questions) -> Iterator[Any]:
    """What the store answers to every question, one after the other. Raises what its reads raise."""
    for number, key, newest in questions.keys:
        agent = AGENTS[number]
        yield store.get_state(agent, key)
        for version in range(1, newest + 1):
            yield store.get_state_at_version(agent, key, version)
    for agent in AGENTS:
        prefix = agent_prefix(agent)
        yield store.list_keys(agent)
        yield store.scan_prefix(agent, b"")
        yield store.counters(prefix)
        yield store.lease(prefix)
        for key in IDEMPOTENCY_KEYS:
            yield store.idempotent(prefix, key)
        next_ts: int | None = 0
        while next_ts is not None:
            chunk = store.events(agent, next_ts, store.head_ts)
            yield chunk.events
            next_ts = chunk.next_ts
    for txn_id in questions.txn_ids:
        yield store.committed_ts(txn_id)


def commit_one_more(store: Store) -> None:
    """A commit that is the same whenever it is made."""
    store.commit(GroupCommit(store.head_ts + 1, _MORE_NS, [empty_commit("one more")]))


@frozen
class _Written:
    """A store as it was left: its log, its view's files, and the writer, who counts on from there."""

    log: Files
    view: Files
    writer: Writer

    @classmethod
    def nothing(cls) -> "_Written":
        return cls({}, {}, Writer(Random(0)))


def _write(before: _Written, directory: Path, rng: Random, rounds: Sequence[int], shape: Shape | None) -> _Written:
    """Go on with a store in `directory`: so many groups in each round, and a start before each."""
    if before.view:
        directory.mkdir()
    for name, content in before.view.items():
        (directory / name).write_bytes(content)
    disk = ByteDisk(before.log, ("store",))
    writer = deepcopy(before.writer)
    writer.rng = rng
    for groups in rounds:
        store = open_at(disk, LevelDBHome(directory), segment_bytes=SEGMENT_BYTES).store
        for number in range(groups):
            writer.commit_groups(store, 1)
            if shape is Shape.TWO_LOGS and _logs(directory) > 1:
                break  # closing stops LevelDB's thread, which is writing the table of the first one
            if shape is Shape.FLUSHED and number >= _FLUSHED_GROUPS and _is(shape, _names(directory)):
                break
        if shape in {Shape.FLUSHED, Shape.COMPACTED}:
            _wait_for(directory, shape)
        store.close()
    return _Written(disk.content(), {path.name: path.read_bytes() for path in directory.iterdir()}, writer)


def _shaped(before: _Written, directory: Path, rng: str, rounds: Sequence[int], shape: Shape) -> _Written:
    """Go on with a store until its folder has the shape, which takes LevelDB's thread being quick, or slow."""
    for number in range(_TRIES):
        written = _write(before, directory.with_name(f"{directory.name}-{number}"), Random(rng), rounds, shape)
        if _is(shape, written.view):
            return written
    raise RuntimeError(f"in {_TRIES} tries LevelDB left no folder with {shape.value}: {sorted(written.view)}")


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _logs(directory: Path) -> int:
    return len(list(directory.glob("*.log")))


def _wait_for(directory: Path, shape: Shape) -> None:
    """LevelDB deletes a log once its table is in the MANIFEST, and tables once they are merged."""
    for _ in range(_TABLE_WAITS):
        if _is(shape, _names(directory)):
            return
        time.sleep(_TABLE_WAIT_S)


def _is(shape: Shape, names: Iterable[str]) -> bool:
    """Whether the files are those of the shape that the cases are named after."""
    ends = Counter(name.rpartition(".")[2] for name in names)
    logs, tables = ends["log"], ends["ldb"]
    match shape:
        case Shape.COMPACTED:
            return (logs, tables) == (1, 1)
        case Shape.FLUSHED:
            return (logs, tables) == (1, 2)
        case Shape.TWO_LOGS:
            return logs == 2 and tables > 0


def _questions(log: Files) -> Questions:
    """From the log's own records: every key that was ever written, and every id."""
    newest: dict[tuple[int, bytes], int] = {}
    txn_ids: list[str] = []
    for record in records_of(read_log(log)):
        for first, last in sections_of(record.payload):
            section = walk_section(record.payload[first:last])
            for operation in section.operations:
                newest[AGENTS.index(section.agent), operation.key] = operation.version
        txn_ids.append(section.txn_id)
    return Questions([(agent, key, version) for (agent, key), version in newest.items()], txn_ids)


@contextmanager
def _small_buffer() -> Iterator[None]:
    kept = leveldb_view.SETTINGS["write_buffer_size"]
    leveldb_view.SETTINGS["write_buffer_size"] = _BUFFER_BYTES
    try:
        yield
    finally:
        leveldb_view.SETTINGS["write_buffer_size"] = kept
