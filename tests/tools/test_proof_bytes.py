"""The proof of every byte: a small slice of each part passes, and an engine that is broken on purpose is caught."""

import copy
import json
import random

import proof_bytes
import pytest
from every_byte import view_cases
from every_byte import view_subject as module
from every_byte.expectation import Proof, has_a_zero_sector, proof_of
from every_byte.found import Found
from every_byte.segment_cases import run_segment_cases
from every_byte.shares import Size, shares
from every_byte.snapshot_cases import run_snapshot_cases
from every_byte.tail_trials import LogTrial, StoreTrial, tail_subject
from every_byte.view_cases import run_view_cases
from every_byte.view_subject import Shape, view_subject

from statehouse.errors import StorageError, StoreDamagedError
from statehouse.storage import (
    leveldb_log,
    leveldb_view,
    log_at_rest,
    log_damage,
    log_fetch,
    log_judging,
    log_opening,
    log_reader,
    recovery,
)
from statehouse.storage.log_at_rest import LogAtRest
from statehouse.storage.snapshots import list_snapshots, snapshot_commit_ts
from statehouse.storage.store import Store

SEED = 5
TAIL_BYTES = 2_000


def test_a_short_tail_passes_and_is_counted(tmp_path, capsys):
    wanted = ["--seed", "5", "--tail-bytes", "1", "--store-trials", "8", "--processes", "1", "--only", "tail"]
    assert proof_bytes.main([*wanted, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["violations"] == []
    assert min(found["tried"][kind] for kind in ("log: cut", "log: flip", "whole store: opened", "log: swapped")) > 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("passed")


def test_some_bytes_of_snapshots_pass():
    found = Found()
    run_snapshot_cases(SEED, found, step=97)
    assert found.violations == []
    assert found.tried["snapshot: of another store"] > 0


@pytest.mark.parametrize("shape", Shape)
def test_some_cases_of_a_view_pass(shape):
    found = Found()
    run_view_cases(SEED, shape, 1, 150, 1, found)
    assert found.violations == []
    assert sum(found.tried.values()) > 2


def test_long_is_every_bit_and_shares_are_for_processes():
    work = shares(SEED, Size(TAIL_BYTES, long=True), ("tail", "segments", "snapshots", "view"))
    assert len(work) > len(shares(SEED, Size(TAIL_BYTES), ("tail", "segments", "snapshots", "view")))


# The judge


def test_what_proves_that_a_bad_record_had_been_synced():
    tail = tail_subject(SEED, TAIL_BYTES, fsync=True).tail
    flagged = [index for index, record in enumerate(tail.records) if record.after_sync]
    last = flagged[-1]
    assert proof_of(tail, [None, last - 1, last]) is Proof.CERTAIN
    assert proof_of(tail, [None, last]) is Proof.UNSURE
    assert proof_of(tail, [None, None]) is Proof.NONE
    assert proof_of(tail, [last]) is Proof.UNSURE
    unflagged = [index for index, record in enumerate(tail.records) if not record.after_sync]
    assert proof_of(tail, [None, *unflagged[:1]]) is Proof.NONE


def test_a_zero_sector_is_a_part_that_is_more_than_a_lengths_first_bytes():
    assert has_a_zero_sector(b"x" * 510 + bytes(2) + b"y" * 20, 510, 532) is False
    assert has_a_zero_sector(b"x" * 500 + bytes(12) + b"y" * 20, 500, 532) is True
    assert has_a_zero_sector(b"x" * 512 + bytes(512) + b"y", 100, 1025) is True
    assert has_a_zero_sector(b"x" * 600, 100, 600) is False


# Broken engines


def violations_of_a_tail(step=37) -> list[str]:
    """What cuts and flips of every so manieth byte find."""
    found = Found()
    subject = tail_subject(SEED, TAIL_BYTES, fsync=True)
    trial, rng = LogTrial(subject, found), random.Random(1)
    for offset in range(0, trial.changes.stop, step):
        for view in (None, subject.head_ts):
            trial.run(trial.changes.cut(offset), view)
            trial.run(trial.changes.flip(offset, rng.randrange(8)), view, goes_on=True)
    return found.violations


class EqualToAll(bytes):
    def __ne__(self, other) -> bool:
        return False

    __hash__ = bytes.__hash__


class HashOfAnything:
    def digest(self) -> bytes:
        return EqualToAll()


@pytest.fixture
def written():
    """Subjects that were written before anything is broken."""
    tail_subject(SEED, TAIL_BYTES, fsync=True)


@pytest.mark.usefixtures("written")
def test_the_whole_engine_has_no_violations():
    assert violations_of_a_tail() == []


@pytest.mark.usefixtures("written")
def test_an_engine_that_skips_the_chain_check_is_caught(monkeypatch):
    monkeypatch.setattr(log_reader, "sha256", lambda _: HashOfAnything())
    assert any("recovered, and should have been refused" in violation for violation in violations_of_a_tail())


@pytest.mark.usefixtures("written")
def test_an_engine_that_cuts_instead_of_refusing_is_caught(monkeypatch):
    monkeypatch.setattr(LogAtRest, "why_not_torn", lambda *_: None)
    assert any("recovered, and should have been refused" in violation for violation in violations_of_a_tail())


@pytest.mark.usefixtures("written")
def test_an_engine_that_believes_no_later_record_is_caught(monkeypatch):
    monkeypatch.setattr(log_at_rest, "evidence_of_sync", lambda *_: None)
    assert any("recovered, and should have been refused" in violation for violation in violations_of_a_tail())


@pytest.mark.usefixtures("written")
def test_an_engine_that_cuts_before_it_refuses_is_caught(monkeypatch):
    why_not_torn = LogAtRest.why_not_torn

    def cut_and_refuse(at_rest, file, scan, fault):
        why = why_not_torn(at_rest, file, scan, fault)
        if why is not None:
            log_opening.zero_range(file, fault.offset, scan.size)
        return why

    monkeypatch.setattr(LogAtRest, "why_not_torn", cut_and_refuse)
    assert any("not as they should be" in violation for violation in violations_of_a_tail())


@pytest.mark.usefixtures("written")
def test_an_engine_that_leaves_the_torn_tail_is_caught(monkeypatch):
    monkeypatch.setattr(log_opening, "_cut", lambda *_: None)
    assert any("the cut was reported as []" in violation for violation in violations_of_a_tail())


@pytest.mark.usefixtures("written")
def test_a_whole_store_whose_engine_names_the_wrong_prefix_is_caught(monkeypatch):
    found = Found()
    trial = StoreTrial(tail_subject(SEED, TAIL_BYTES, fsync=True), found)
    monkeypatch.setattr(LogAtRest, "why_not_torn", lambda *_: None)
    trial.run(trial.changes.flip(100, 1), None)
    assert "should have been refused" in found.violations[0]


def test_segments_that_need_not_join_are_caught(monkeypatch):
    run_segment_cases(SEED, Found(), bytewise=False)
    monkeypatch.setattr(log_judging, "_check_joins", lambda *_: None)
    found = Found()
    run_segment_cases(SEED, found, bytewise=False)
    assert any("missing" in violation and "opened" in violation for violation in found.violations)


@pytest.mark.parametrize("seed", range(3))
def test_segments_that_only_the_chain_tells_apart_are_caught_with_any_seed(monkeypatch, seed):
    check_joins = log_judging._check_joins

    def looks_at_numbers_only(scan, following):
        if scan.fault is not None or scan.commit_ts + 1 < following.first_ts:
            check_joins(scan, following)

    monkeypatch.setattr(log_judging, "_check_joins", looks_at_numbers_only)
    found = Found()
    run_segment_cases(seed, found, bytewise=False)
    assert any("of a twin" in violation and "opened" in violation for violation in found.violations)


def test_a_snapshot_that_is_believed_by_its_name_is_caught(monkeypatch):
    def by_name(disk, directory, _):
        return max((snapshot_commit_ts(path) for path in list_snapshots(disk, directory)), default=0)

    monkeypatch.setattr(recovery, "witnessed_ts", by_name)
    found = Found()
    run_snapshot_cases(SEED, found, step=10_000)
    assert any("doubled as" in violation for violation in found.violations)


def test_a_view_whose_logs_are_not_looked_at_is_caught(monkeypatch, tmp_path):
    subject = view_subject(SEED, Shape.FLUSHED)
    (manifest,) = (name for name in subject.view if name.startswith("MANIFEST"))
    cut = view_cases._Case("manifest cut", manifest, subject.view | {manifest: subject.view[manifest][:-1]})
    found = Found()
    view_cases._run(subject, cut, tmp_path / "state", found)
    assert found.violations == []
    monkeypatch.setattr(leveldb_log, "_replay", lambda _: None)
    monkeypatch.setattr(leveldb_view, "sequence_gap", leveldb_log.sequence_gap)
    view_cases._run(subject, cut, tmp_path / "state", found)
    assert "a read gave another answer" in found.violations[0]


def test_an_engine_that_blames_the_log_for_what_its_view_says_is_caught(monkeypatch, tmp_path):
    subject, found = view_subject(SEED, Shape.FLUSHED), Found()
    cases = view_cases._cases(subject, random.Random(SEED), 1)
    changed = next(case for case in cases if case.kind == "pointer changed")
    view_cases._run(subject, changed, tmp_path / "state", found)
    assert found.violations == []
    assert found.tried["view: damage found by a read"] == 1

    def blame_the_log(fetch, commit_ts, offset):
        return log_damage.damaged(fetch._directory, log_damage.Fault(offset, commit_ts, "not what was written"))

    monkeypatch.setattr(log_fetch.LogFetch, "_mismatch", blame_the_log)
    view_cases._run(subject, changed, tmp_path / "state", found)
    assert "not said to be mended by a restart" in found.violations[0]


def test_an_engine_without_fsync_that_takes_any_cut_for_a_hole_is_caught(monkeypatch):
    subject, found = tail_subject(SEED, TAIL_BYTES, fsync=False), Found()
    trial, record = LogTrial(subject, found), subject.tail.records[-1]
    trial.run(trial.changes.cut(record.stop - 1), subject.head_ts)
    assert found.violations == []
    monkeypatch.setattr(log_damage.is_a_hole, "__code__", (lambda tail, fault: True).__code__)  # whoever imported it
    trial.run(trial.changes.cut(record.stop - 1), subject.head_ts)
    assert len(found.violations) == 1


@pytest.mark.parametrize(
    ("case", "error", "wrong"),
    [
        ("untouched", StorageError("the view is damaged: restart"), "nothing that it reads was damaged"),
        ("current deleted", StorageError("the view cannot be read at the moment"), "not said to be mended"),
        ("current deleted", StoreDamagedError("the log is damaged: restart"), "not said to be mended"),
        ("current deleted", StorageError("the view is damaged: restart"), None),
    ],
)
def test_a_read_that_fails_without_damage_or_without_advice_is_caught(monkeypatch, tmp_path, case, error, wrong):
    # A copy: one that was raised holds the store by its traceback, and a parameter lives until the interpreter ends.
    subject, errors, get_state = view_subject(SEED, Shape.TWO_LOGS), [copy.copy(error)], Store.get_state

    def fail_once(store, agent, key):
        if errors:
            raise errors.pop()
        return get_state(store, agent, key)

    monkeypatch.setattr(Store, "get_state", fail_once)
    (case,) = (each for each in view_cases._cases(subject, random.Random(1), 1) if each.kind == case)
    found = Found()
    view_cases._run(subject, case, tmp_path / "state", found)
    assert [wrong in violation for violation in found.violations] == ([] if wrong is None else [True])


def test_a_folder_that_is_not_of_its_shape_is_no_subject(monkeypatch):
    assert not module._is(Shape.TWO_LOGS, ["000003.log", "000005.ldb"])
    monkeypatch.setattr(module, "_is", lambda *_: False)
    monkeypatch.setattr(module, "_TRIES", 2)
    with pytest.raises(RuntimeError, match="left no folder with a log whose table is not written yet"):
        view_subject(SEED + 1, Shape.TWO_LOGS)


def test_an_engine_that_cannot_write_is_a_violation_too(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr("every_byte.shares.tail_subject", broken)
    assert proof_bytes.main(["--seed", "6", "--processes", "1", "--only", "tail"]) == 1
    assert "VIOLATION no store could be written" in capsys.readouterr().out
