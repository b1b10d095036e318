"""Verification: every kind of damage is planted, found, and nothing else is."""

import random

import pytest
from attrs import evolve
from storage.fix_store import ALICE, BOB, CAROL, STORE_ID, UNWRITTEN, FailingHome, StoreBench, Writer, rows_of, value
from storage.fix_verification import kinds, moment_of, verified

from statehouse.findings import FindingKind, Head, VerifyFinding, VerifyProgress, VerifyVerdict
from statehouse.storage import commit, commit_ranges, keys, row_names, snapshot_keeper, verification, view_walk
from statehouse.storage.commit import AgentCounters, GroupCommit, PreparedCommit, prepare_section, watermark
from statehouse.storage.event_log import EventLog
from statehouse.storage.expected_rows import read_record
from statehouse.storage.keys import agent_prefix
from statehouse.storage.log_format import encode_header, genesis_chain, segment_name
from statehouse.storage.record_notes import Idempotency, LeaseChange, Notes
from statehouse.storage.section import agent_fields
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.verification import Verification
from statehouse.storage.wire import WireError

P = agent_prefix(ALICE)
NOBODY = agent_prefix(UNWRITTEN)


@pytest.fixture
def history(store_bench):
    """A store on the simulated disk with several segments, and its writer."""
    writer = Writer(store_bench.store())
    writer.commit_randomly(random.Random(3), 120)
    return writer


# Sound


@pytest.mark.parametrize("seed", range(5))
def test_a_sound_store_is_sound(any_bench, seed):
    opened = any_bench.open(snapshot_interval=1)
    writer = Writer(opened.store)
    writer.commit_randomly(random.Random(seed), 60)
    opened.snapshots.write()
    writer.commit_randomly(random.Random(seed + 100), 60)
    head = Head(120, opened.store.head.chain)
    for store in (opened.store, None):
        findings, verdict = verified(any_bench, store, [head, Head(0, genesis_chain(STORE_ID))])
        assert findings == []
        assert (verdict.records, verdict.snapshots, verdict.heads, verdict.head) == (120, 1, 2, head)
        assert verdict.rows == len(rows_of(opened.store)) if store else verdict.rows > 0
        assert verdict.head.store_id == STORE_ID
        assert 0 < verdict.log_bytes <= sum(map(len, any_bench.log_content().values())) if store else True
        any_bench.close()


def test_an_empty_store_is_sound(any_bench):
    store = any_bench.store()
    findings, verdict = verified(any_bench, store, [Head(0, genesis_chain(STORE_ID))])
    assert (findings, verdict.records, verdict.head.commit_ts) == ([], 0, 0)
    any_bench.close()
    assert verified(any_bench)[0] == []


def test_outcomes_that_are_forgotten_are_not_missed(any_bench, monkeypatch):
    monkeypatch.setattr(keys, "OUTCOME_BUCKET_COMMITS", 8)
    monkeypatch.setattr(keys, "OUTCOME_BUCKETS", 3)
    store = any_bench.store()
    Writer(store).commit_randomly(random.Random(1), 100)
    assert verified(any_bench, store)[0] == []
    store._view.apply([(keys.outcome_key(0, "late"), bytes(8))])  # one that is not forgotten yet
    assert verified(any_bench, store)[0] == []


def test_commits_meanwhile_are_no_matter(any_bench):
    store = any_bench.store()
    writer = Writer(store)
    writer.commit_randomly(random.Random(1), 80)
    found = []
    for step in Verification(moment_of(any_bench, store)).events():
        if step is None and len(writer.history) < 400:
            writer.commit_randomly(random.Random(len(writer.history)), 4)
        elif isinstance(step, VerifyFinding | VerifyVerdict):
            found.append(step)
    assert [each.sound for each in found] == [True]
    assert found[0].head.commit_ts == 80
    assert len(writer.history) > 84


def test_progress_counts_up_to_the_whole(history, store_bench):
    now_s = [0.0]

    def clock():
        now_s[0] += 1.0
        return now_s[0]

    events = Verification(moment_of(store_bench, history.store), clock=clock).events()
    told = [event for event in events if isinstance(event, VerifyProgress)]
    assert {event.stage for event in told} == {"log", "view"}
    for stage in ("log", "view"):
        shares = [(event.done, event.total) for event in told if event.stage == stage]
        assert shares == sorted(shares)
        assert all(0 <= done <= total for done, total in shares)
    assert told[-1].done == told[-1].total
    assert told[-1].records == 120


# The view: each kind of row, changed, missing, and one too many


def planting(any_bench):
    store = any_bench.store()
    writer = Writer(store)
    writer.commit((ALICE, b"small", value(20)), (BOB, b"k", value(20)))
    writer.commit((ALICE, b"small", value(30)), (ALICE, b"large", value(700)))
    writer.commit((ALICE, b"gone", value(20)))
    writer.commit((ALICE, b"gone", None), (CAROL, b"k", value(20)))
    assert verified(any_bench, store)[0] == []
    return writer


def planted(any_bench):
    return planting(any_bench).store


def planted_with_notes(any_bench):
    writer = planting(any_bench)
    writer.commit_group(
        evolve(writer.txn((ALICE, b"noted", value(20))), notes=Notes(Idempotency(b"job", b"f" * 32))),
        evolve(writer.txn(), notes=Notes(lease=LeaseChange(ALICE, 1, "worker", 2**62))),
        evolve(writer.txn(), notes=Notes(lease=LeaseChange(UNWRITTEN, 1, "worker", 2**62))),
    )
    assert verified(any_bench, writer.store)[0] == []
    return writer.store


ROWS = {
    "event": (keys.event_key(P, 2), {"commit_ts": 2}),
    "old version": (keys.version_key(P, b"small", 1), {"key": "small", "version": 1}),
    "newest version": (keys.version_key(P, b"small", 2), {"key": "small", "version": 2}),
    "tombstone version": (keys.version_key(P, b"gone", 2), {"key": "gone", "version": 2}),
    "idempotency key": (keys.idempotency_key(P, b"job", 5), {"key": "job", "commit_ts": 5}),
    "lease": (keys.lease_key(P, 6), {"commit_ts": 6}),
    "inline state": (keys.state_key(P, b"small"), {"key": "small"}),
    "pointing state": (keys.state_key(P, b"large"), {"key": "large"}),
    "tombstone state": (keys.state_key(P, b"gone"), {"key": "gone"}),
    "counters": (keys.meta_key(P), {}),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("at", [0, -1])
def test_a_row_that_changed(any_bench, row, at):
    store = planted_with_notes(any_bench)
    key, place = ROWS[row]
    content = bytearray(store._view.get(key))
    content[at] ^= 0x04
    store._view.apply([(key, bytes(content))])
    (finding,), _ = verified(any_bench, store)
    assert finding.kind == FindingKind.ROW_WRONG
    assert (finding.namespace, finding.agent_id, finding.file) == (*ALICE, "state")
    for name, expected in place.items():
        assert getattr(finding, name) == expected


@pytest.mark.parametrize("row", ROWS)
def test_a_row_that_is_missing(any_bench, row):
    store = planted_with_notes(any_bench)
    key, place = ROWS[row]
    store._view.apply([(key, None)])
    (finding,), _ = verified(any_bench, store)
    assert finding.kind == FindingKind.ROW_MISSING
    assert (finding.namespace, finding.agent_id) == ALICE
    for name, expected in place.items():
        assert getattr(finding, name) == expected


EXTRA = {
    "event": keys.event_key(P, 3_000),
    "version": keys.version_key(P, b"small", 3),
    "idempotency key": keys.idempotency_key(P, b"job", 4),
    "idempotency key without an end": P + b"i" + bytes(8),
    "idempotency key of an agent that has only a lease": keys.idempotency_key(NOBODY, b"job", 7),
    "lease": keys.lease_key(P, 5),
    "lease of an agent that is not there": keys.lease_key(agent_prefix(ALICE._replace(agent_id="nobody")), 5),
    "lease that is cut": keys.lease_key(P, 6)[:-1],
    "counters of an agent that has only a lease": keys.meta_key(NOBODY),
    "no counters of an agent that has only a lease": keys.meta_key(NOBODY),
    "version of a key that is not there": keys.version_key(P, b"none", 1),
    "state": keys.state_key(P, b"none"),
    "state behind all others": keys.state_key(P, b"zzz"),
    "counters of nobody": keys.meta_key(agent_prefix(evolve_agent := ALICE._replace(agent_id="nobody"))),
    "of no column": P + b"x",
    "of no agent": b"\x02\x00",
    "of no table": b"\x03",
}


@pytest.mark.parametrize("row", EXTRA)
def test_a_row_too_many(any_bench, row):
    store = planted_with_notes(any_bench)
    content = AgentCounters(1, 1, 1, 1, 1).pack() if "counters" in row else store._view.get(ROWS["inline state"][0])
    if row.startswith("no counters"):
        content = AgentCounters().pack()
    store._view.apply([(EXTRA[row], content)])
    findings, _ = verified(any_bench, store)
    assert kinds(findings) == ["row-extra"]


def test_outcomes(any_bench):
    store = planted(any_bench)
    rows = dict(rows_of(store))
    first, second = [key for key in rows if key[:2] == b"\x01t"][:2]
    store._view.apply([(first, None), (second, (99).to_bytes(8)), (keys.outcome_key(0, "new"), (1).to_bytes(8))])
    findings, _ = verified(any_bench, store)
    assert sorted(kinds(findings)) == ["row-extra", "row-missing", "row-wrong"]
    assert {finding.key for finding in findings} == {first[10:].decode(), second[10:].decode(), "new"}


def test_values_of_two_keys_that_are_swapped(any_bench):
    store = planted(any_bench)
    one, two = keys.version_key(P, b"small", 1), keys.version_key(agent_prefix(BOB), b"k", 1)
    store._view.apply([(one, store._view.get(two)), (two, store._view.get(one))])
    assert kinds(verified(any_bench, store)[0]) == ["row-wrong", "row-wrong"]


def test_an_inline_value_that_is_not_the_log_s(any_bench):
    store = planted(any_bench)
    key = keys.state_key(P, b"small")
    state = store._view.get(key)
    assert b"xx" in state
    store._view.apply([(key, state.replace(b"x", b"y", 1))])
    assert kinds(verified(any_bench, store)[0]) == ["row-wrong"]


@pytest.mark.parametrize("kept", [0, 1, 4_096])
def test_agents_of_many_states_are_read_twice(any_bench, monkeypatch, kept):
    monkeypatch.setattr(view_walk, "STATES_KEPT", kept)
    store = planted(any_bench)
    store._view.apply([(keys.state_key(P, b"gone"), None), (keys.state_key(P, b"none"), b"\x10\x01\x18\x01")])
    assert kinds(verified(any_bench, store)[0]) == ["row-missing", "row-extra"]


def test_every_row_of_another_view(any_bench, monkeypatch):
    store = planted_with_notes(any_bench)
    batch = [(key, content + b"!") for key, content in rows_of(store) if key != keys.WATERMARK_KEY]
    store._view.apply(batch)
    findings, verdict = verified(any_bench, store)
    assert set(kinds(findings)) == {"row-wrong"}
    # A state that was changed as its newest version was is as good as that: it is not accused beside it.
    assert verdict.findings == len(batch) - 2
    monkeypatch.setattr(verification, "FINDINGS_AT_MOST", 3)
    findings, fewer = verified(any_bench, store)
    assert (len(findings), fewer.findings) == (3, verdict.findings)
    monkeypatch.setattr(verification, "FINDINGS_AT_MOST", 1_000)
    monkeypatch.setattr(row_names, "ROWS_AT_MOST", 2)
    monkeypatch.setattr(view_walk, "SUSPECTS_AT_MOST", 1)
    findings, _ = verified(any_bench, store)
    assert 1 <= kinds(findings).count("row-wrong") <= 6
    assert kinds(findings).count("rows-not-named") == 2


def test_counters_of_agents_with_very_many_keys_are_told_as_what_they_are(any_bench, monkeypatch):
    monkeypatch.setattr(row_names, "LIVE_KEYS_AT_MOST", 1)
    store = planted(any_bench)
    store._view.apply([(keys.meta_key(P), AgentCounters(1, 4, 9, 9, 9).pack())])
    (finding,), _ = verified(any_bench, store)
    assert (finding.kind, finding.agent_id) == ("row-wrong", "alice")


def test_the_largest_parts_that_differ_are_left_out(any_bench, monkeypatch):
    monkeypatch.setattr(row_names, "ROWS_AT_MOST", 5)
    walk = view_walk.ViewWalk(None, None, oldest_outcomes=0, is_unread=None)
    names = row_names.RowNames(
        None, walk, [(1, 6), (2, 3), (3, 4), (4, 2)], watermark_ts=9, oldest_outcomes=0, is_unread=None
    )
    assert names._parts == {2, 4}
    store = planted(any_bench)
    store._view.apply([(key, content + b"!") for key, content in rows_of(store) if key[-10:-8] == b"\0\1"])
    monkeypatch.setattr(row_names, "ROWS_AT_MOST", 0)
    findings, verdict = verified(any_bench, store)
    assert kinds(findings)[-1] == "rows-not-named"
    assert "were not compared" in findings[-1].message
    assert not verdict.sound


def test_the_live_keys_of_all_agents_together_are_few(store_bench, monkeypatch):
    monkeypatch.setattr(row_names, "LIVE_KEYS_AT_MOST", 10)
    agents = [BOB, CAROL, ALICE]
    writer = Writer(store_bench.store())
    for agent, count in zip(agents, (4, 8, 5), strict=True):
        for number in range(count):
            writer.commit((agent, b"k%d" % number, value(20)))
    most = []
    on_record = row_names.RowNames.on_record

    def counted(self, record):
        on_record(self, record)
        live = sum(recount.keys_kept for recount in self._counters.values())
        assert live == self._kept
        most.append(live)

    monkeypatch.setattr(row_names.RowNames, "on_record", counted)
    wrong = AgentCounters(1, 1, 1, 1, 1).pack()
    writer.store._view.apply([(keys.meta_key(agent_prefix(agent)), wrong) for agent in agents])
    findings, _ = verified(store_bench, writer.store)
    assert max(most) == 10
    assert {(finding.agent_id, "by the log" in finding.message) for finding in findings} == {
        (BOB.agent_id, True), (CAROL.agent_id, False), (ALICE.agent_id, True)
    }  # fmt: skip


# The watermark


def test_watermarks(any_bench):
    store = planted(any_bench)
    chain, time_ns = store.head.chain, store.head_time_ns

    def found(row):
        store._view.apply([(keys.WATERMARK_KEY, row)])
        return verified(any_bench, store)[0]

    assert found(watermark(4, chain, time_ns)) == []
    (wrong_time,) = found(watermark(4, chain, time_ns + 1))
    assert (wrong_time.kind, wrong_time.commit_ts) == ("watermark", 4)
    (wrong_chain,) = found(watermark(4, bytes(32), time_ns))
    assert "another commit 4" in wrong_chain.message
    assert kinds(found(b"\xff")) == ["watermark"]
    assert kinds(found(None)) == ["watermark"]
    ahead = found(watermark(9, chain, time_ns))
    assert kinds(ahead)[0] == "log-short"
    behind = found(watermark(3, verified(any_bench, store)[1].head.chain, 0))
    assert "4 was answered" in "".join(finding.message for finding in behind)


def test_a_view_that_is_behind_is_a_note_at_rest(store_bench):
    planted(store_bench)
    store_bench.close()
    del store_bench.home.batches[-1]
    findings, verdict = verified(store_bench)
    assert (kinds(findings), verdict.sound, verdict.records) == (["view-behind"], True, 4)


def test_a_view_that_is_ahead(store_bench):
    store = planted(store_bench)
    head = store.head
    store_bench.close()
    path = f"{store_bench.place.log_directory}/{segment_name(1)}"
    content = store_bench.disk.content(path)
    last = content.rstrip(b"\0").rfind(head.chain)
    overwrite(store_bench.disk, path, content[: last - 4] + bytes(len(content) - last + 4))
    (short, note), _ = verified(store_bench)
    assert note.kind == "not-compared"
    assert (short.kind, short.commit_ts, short.file) == ("log-short", 4, f"log/{segment_name(1)}")
    findings, verdict = verified(store_bench, fsync=False)
    assert (kinds(findings), verdict.sound) == (["view-ahead", "not-compared"], True)


# The log


def overwrite(disk, path, content):
    file = disk.open(path, create=True)
    file.write_at(0, content)
    file.sync()
    file.close()


def segments(bench):
    directory = bench.place.log_directory
    return [f"{directory}/{name}" for name in sorted(bench.disk.list_dir(directory)) if name.endswith(".log")]


def at_rest(history, bench):
    """The segments of the closed store, by path."""
    bench.close()
    return segments(bench)


def test_a_damaged_record_and_what_is_behind_it(history, store_bench):
    paths = at_rest(history, store_bench)
    assert len(paths) > 3
    content = bytearray(store_bench.disk.content(paths[1]))
    content[200] ^= 1
    overwrite(store_bench.disk, paths[1], content)
    findings, verdict = verified(store_bench)
    assert kinds(findings) == ["record-damaged", "not-compared"]
    damage = findings[0]
    assert damage.file == f"log/{paths[1].rpartition('/')[2]}"
    assert 72 <= damage.offset <= 200
    assert damage.commit_ts >= int(damage.file[4:24])
    assert verdict.records < 120
    assert verdict.head.commit_ts == 120  # the segments behind it were read all the same


def test_damage_to_a_log_that_is_served(history, store_bench):
    paths = segments(store_bench)
    file = store_bench.disk.open(paths[0])
    file.write_at(120, b"\xff" * 8)
    findings, _ = verified(store_bench, history.store)
    assert kinds(findings) == ["record-damaged", "not-compared"]


def test_a_log_that_is_served_and_lost_its_end(history, store_bench):
    store = history.store
    paths = segments(store_bench)
    file = store_bench.disk.open(paths[-1])
    file.write_at(72, bytes(file.size() - 72))
    findings, _ = verified(store_bench, store, [Head(120, store.head.chain)])
    assert kinds(findings)[0] == "log-short"
    assert "head-unread" in kinds(findings)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_damaged_header(history, store_bench, number):
    paths = at_rest(history, store_bench)
    content = bytearray(store_bench.disk.content(paths[number]))
    content[30] ^= 1
    overwrite(store_bench.disk, paths[number], content)
    findings, verdict = verified(store_bench)
    assert kinds(findings)[0] == "segment-header"
    assert (findings[0].offset, verdict.head.commit_ts) == (0, 120)
    if number:  # what it must have said is known from the one before it
        assert (len(findings), verdict.records) == (1, 120)


def test_a_header_of_a_newer_format(history, store_bench):
    paths = at_rest(history, store_bench)
    content = bytearray(store_bench.disk.content(paths[1]))
    content[11] = 2
    content[68:72] = bytes(4)
    overwrite(store_bench.disk, paths[1], content)
    assert kinds(verified(store_bench)[0]) == ["newer-format", "not-compared"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_segment(history, store_bench, number):
    paths = at_rest(history, store_bench)
    store_bench.disk.remove(paths[number])
    findings, _ = verified(store_bench)
    assert kinds(findings)[:1] == ["segment-missing"]
    assert set(kinds(findings)) <= {"segment-missing", "not-compared"}
    assert findings[0].commit_ts == int(paths[number][-24:-4])


def test_a_segment_that_is_there_twice(history, store_bench):
    paths = at_rest(history, store_bench)
    again = f"{store_bench.place.log_directory}/{segment_name(int(paths[1][-24:-4]) + 1)}"
    overwrite(store_bench.disk, again, store_bench.disk.content(paths[1]))
    findings, _ = verified(store_bench)
    assert kinds(findings)[0] == "segment-header"
    assert f"its name says {int(again[-24:-4])}" in findings[0].message


def test_a_segment_of_another_store(history, store_bench):
    paths = at_rest(history, store_bench)
    other = bytearray(store_bench.disk.content(paths[1]))
    first_ts = int(paths[1][-24:-4])
    header = verification_header(other, first_ts, store_id=b"x" * 16)
    overwrite(store_bench.disk, paths[1], header + other[72:])
    findings, _ = verified(store_bench)
    assert kinds(findings)[0] == "segment-foreign"
    assert "another store" in findings[0].message


def verification_header(content, first_ts, **changes):
    from statehouse.storage.log_format import decode_header

    assert decode_header(bytes(content[:72])).first_ts == first_ts
    return encode_header(evolve(decode_header(bytes(content[:72])), **changes))


def test_a_segment_of_another_history(history, store_bench):
    paths = at_rest(history, store_bench)
    content = bytearray(store_bench.disk.content(paths[-1]))
    first_ts = int(paths[-1][-24:-4])
    overwrite(
        store_bench.disk, paths[-1], verification_header(content, first_ts, chain_before=bytes(32)) + content[72:]
    )
    findings, _ = verified(store_bench)
    assert kinds(findings)[:2] == ["segment-foreign", "record-damaged"]


def test_a_log_file_that_is_no_segment_and_other_names(history, store_bench):
    at_rest(history, store_bench)
    directory = store_bench.place.log_directory
    for name in ("notes.log", "next.tmp", "README"):
        overwrite(store_bench.disk, f"{directory}/{name}", b"x")
    findings, _ = verified(store_bench)
    assert [(str(finding.kind), finding.file) for finding in findings] == [
        ("foreign-file", "log/README"),
        ("leftover", "log/next.tmp"),
        ("segment-foreign", "log/notes.log"),
    ]


def test_no_log(history, store_bench):
    for path in at_rest(history, store_bench):
        store_bench.disk.remove(path)
    assert "log-missing" in kinds(verified(store_bench)[0])


def test_a_segment_that_cannot_be_read(history, store_bench):
    paths = at_rest(history, store_bench)
    store_bench.disk.fail_next("read", OSError(5, "input/output error"), path=paths[1], after=1)
    findings, _ = verified(store_bench)
    assert kinds(findings) == ["unreadable", "not-compared"]
    assert "input/output error" in findings[0].message


def test_a_torn_tail_is_a_note_at_rest(history, store_bench):
    paths = at_rest(history, store_bench)
    content = store_bench.disk.content(paths[-1])
    end = len(content.rstrip(b"\0"))
    torn = b"\x00\x00\x00\x40" + b"\x01" * 50
    overwrite(store_bench.disk, paths[-1], content[:end] + torn + content[end + len(torn) :])
    (note,), verdict = verified(store_bench)
    assert (note.kind, note.offset, note.commit_ts, verdict.sound) == ("torn-tail", end, 121, True)
    assert note.message.startswith(f"{len(torn)} bytes")


def test_damage_at_the_end_that_the_view_bears_witness_of(history, store_bench):
    paths = at_rest(history, store_bench)
    content = bytearray(store_bench.disk.content(paths[-1]))
    content[len(content.rstrip(b"\0")) - 3] ^= 1
    overwrite(store_bench.disk, paths[-1], content)
    findings, _ = verified(store_bench)
    assert kinds(findings) == ["record-damaged", "not-compared"]
    assert "the view has all commits up to 120" in findings[0].message
    store_bench.home = FailingHome()  # without the view nothing tells it from a torn tail
    assert kinds(verified(store_bench)[0]) == ["torn-tail"]


def log_of(bench, *payloads):
    """A store at rest whose log has these payloads."""
    if not bench.disk.exists("log"):
        bench.disk.make_dir("log")
    log = EventLog.open(
        bench.disk,
        "log",
        segment_bytes=4096,
        max_bytes=0,
        known_good=None,
        verify_all=True,
        fsync=True,
        report=lambda _: None,
        new_store_id=lambda: STORE_ID,
        on_record=lambda _: None,
    )
    log.append(list(payloads))
    log.sync()
    log.close()


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"\x0a\xff", "ends"),
        (b"\x0a\x02\x10\x09", "a section says commit_ts 9"),
        (b"\x0a\x02\x10\x01", "no transaction id"),
        (b"\x0a\x05\x0a\x01a\x10\x01\x0a\x05\x0a\x01b\x10\x01", "two transactions"),
        (b"\x0a\x0a\x1a\x03\x0a\x01k\x0a\x01a\x10\x01", "operations and no agent"),
        (b"\x0a\x05\x0a\x01a\x10\x01\x12\x03\x0a\x01k", "fingerprint of another length"),
        (b"\x0a\x05\x0a\x01a\x10\x01\x1a\x02\x18\x01", "lease has no agent"),
    ],
)
def test_a_whole_record_that_is_no_transaction(payload, what):
    bench = StoreBench(SimulatedDisk())
    log_of(bench, payload)
    (finding,), verdict = verified(bench)
    assert (finding.kind, finding.commit_ts, verdict.records) == ("record-malformed", 1, 1)
    assert what in finding.message


@pytest.mark.parametrize("ranges", [2, 100])
def test_many_records_that_are_no_transactions(history, store_bench, monkeypatch, ranges):
    def read(record):
        if record.commit_ts % 3 == 0:
            raise WireError("it ends")
        return read_record(record)

    monkeypatch.setattr(verification, "read_record", read)
    monkeypatch.setattr(commit_ranges, "RANGES_AT_MOST", ranges)
    findings, verdict = verified(store_bench, history.store)
    assert kinds(findings) == ["record-malformed"] * 40 + ["not-compared"]
    assert ("no rows from 9 on" in findings[-1].message) is (ranges == 2)
    assert verdict.records == 120


def commit_versions(store, *versions):
    """Commit writes of one key, each as its own commit, with these versions."""
    for version in versions:
        ts = store.head_ts + 1
        counters = AgentCounters(1, ts, ts, ts, 1)
        section = prepare_section(P, agent_fields(ALICE), f"t{ts}", [(b"k", value(20), version)], counters)
        store.commit(GroupCommit(ts, ts, [PreparedCommit(f"t{ts}", (section,))]))


def test_a_history_that_does_not_count_right(any_bench):
    store = any_bench.store()
    commit_versions(store, 1, 3)
    (gap,), _ = verified(any_bench, store)
    assert (gap.kind, gap.key, gap.version) == ("history-inconsistent", "k", 3)
    assert "follows version 1" in gap.message


def test_a_version_that_is_given_twice(any_bench):
    store = any_bench.store()
    commit_versions(store, 1, 1)
    assert "history-inconsistent" in kinds(verified(any_bench, store)[0])


# Of an older format


def test_a_view_and_snapshots_of_an_older_format_are_notes(store_bench, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(snapshot_keeper, "FORMAT_VERSION", 1)
        before.setattr(commit, "FORMAT_VERSION", 1)
        opened = store_bench.open(snapshot_interval=1)
        Writer(opened.store).commit_randomly(random.Random(1), 20)
        opened.snapshots.write()
        store_bench.close()
    (of_snapshot, of_view), verdict = verified(store_bench)
    assert (of_snapshot.kind, of_snapshot.file) == ("leftover", f"snapshots/{20:020d}.snap")
    assert (of_view.kind, of_view.file) == ("view-unusable", "state")
    assert "format 1" in of_snapshot.message
    assert "is of format 1, and this version uses 2: a start makes it anew" in of_view.message
    assert (verdict.sound, verdict.records) == (True, 20)
    paths = segments(store_bench)  # both still bear witness
    content = bytearray(store_bench.disk.content(paths[-1]))
    content[len(content.rstrip(b"\0")) - 3] ^= 1
    overwrite(store_bench.disk, paths[-1], content)
    assert "record-damaged" in kinds(verified(store_bench)[0])


def test_a_view_of_a_newer_format_is_a_finding(store_bench, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(commit, "FORMAT_VERSION", 3)
        Writer(store_bench.store()).commit((ALICE, b"k", value()))
        store_bench.opened.clear()
    assert kinds(verified(store_bench)[0]) == ["watermark"]


# Snapshots


@pytest.fixture
def snapshotted(any_bench):
    opened = any_bench.open(snapshot_interval=1, snapshots_keep=3)
    writer = Writer(opened.store)
    for seed in (1, 2):
        writer.commit_randomly(random.Random(seed), 20)
        opened.snapshots.write()
    directory = any_bench.place.snapshot_directory
    paths = [f"{directory}/{name}" for name in sorted(any_bench.disk.list_dir(directory))]
    return any_bench, opened.store, paths


def read(disk, path):
    file = disk.open(path, read_only=True)
    content = file.read_at(0, file.size())
    file.close()
    return content


@pytest.mark.parametrize("offset", [0, 30, 400, -1])
def test_a_damaged_snapshot(snapshotted, offset):
    bench, store, paths = snapshotted
    content = bytearray(read(bench.disk, paths[1]))
    content[offset] ^= 1
    overwrite(bench.disk, paths[1], content)
    (finding,), verdict = verified(bench, store)
    assert (finding.kind, finding.commit_ts) == ("snapshot-damaged", 40)
    assert finding.file == f"snapshots/{paths[1].rpartition('/')[2]}"
    assert finding.offset is not None
    assert verdict.snapshots == 2


def test_a_snapshot_by_another_name(snapshotted):
    bench, store, paths = snapshotted
    bench.disk.rename(paths[1], paths[1].replace("40.snap", "39.snap"))
    assert kinds(verified(bench, store)[0]) == ["snapshot-damaged"]


def test_a_snapshot_of_another_store_and_one_of_another_history(snapshotted):
    bench, store, paths = snapshotted
    for store_id, what in ((b"y" * 16, "another store"), (STORE_ID, "another history")):
        other = StoreBench(SimulatedDisk())
        opened = other.open(snapshot_interval=1)
        object.__setattr__(opened.store._log, "_store_id", store_id)
        Writer(opened.store).commit_randomly(random.Random(99), 40)
        opened.snapshots.write()
        overwrite(bench.disk, paths[1], other.disk.content(paths[1][paths[1].index("snapshots") :]))
        (finding,), _ = verified(bench, store)
        assert finding.kind == "snapshot-foreign"
        assert what in finding.message


def test_other_files_beside_the_snapshots(snapshotted):
    bench, store, paths = snapshotted
    for name in ("00000000000000000041.snap.tmp", "x"):
        overwrite(bench.disk, f"{paths[0].rpartition('/')[0]}/{name}", b"x")
    assert kinds(verified(bench, store)[0]) == ["foreign-file"]
    bench.close()
    assert kinds(verified(bench)[0]) == ["leftover", "foreign-file"]


def test_a_snapshot_that_goes_meanwhile_is_no_finding(snapshotted):
    bench, store, paths = snapshotted
    going = Verification(moment_of(bench, store))
    bench.disk.remove(paths[0])
    verdict = [event for event in going.events() if event is not None][-1]
    assert (verdict.sound, verdict.snapshots) == (True, 1)


# Heads


def test_known_heads(history, store_bench):
    store = history.store
    _, verdict = verified(store_bench, store)
    chain_at_50 = Verification(evolve(moment_of(store_bench, store)))  # a walk that keeps the chain value at 50
    chain_at_50._heads = [Head(50, bytes(32))]
    list(chain_at_50.events())
    good = Head(50, chain_at_50._walk.chains[50])
    assert verified(store_bench, store, [good, verdict.head])[0] == []
    findings, _ = verified(store_bench, store, [Head(50, bytes(32)), Head(125, verdict.head.chain), good])
    assert [(str(finding.kind), finding.commit_ts) for finding in findings] == [
        ("head-rewritten", 50),
        ("head-cut", 125),
    ]
    assert "commits 121 to 125 are gone" in findings[1].message
    assert verified(store_bench, store, [Head(0, bytes(32))])[0][0].kind == "head-rewritten"


def test_a_head_in_what_cannot_be_read(history, store_bench):
    head = history.store.head
    paths = at_rest(history, store_bench)
    content = bytearray(store_bench.disk.content(paths[-1]))
    content[100] ^= 1
    overwrite(store_bench.disk, paths[-1], content)
    findings, _ = verified(store_bench, None, [Head(120, head.chain)])
    assert "head-unread" in kinds(findings)


def test_a_cut_tail_is_found_by_its_head_alone(store_bench):
    writer = Writer(store_bench.store())
    writer.commit_randomly(random.Random(3), 20)
    kept = Head(20, writer.store.head.chain)
    store_bench.close()
    path = segments(store_bench)[-1]
    content = store_bench.disk.content(path)
    last = content.rfind(kept.chain)
    overwrite(store_bench.disk, path, content[: last - 4] + bytes(len(content) - last + 4))
    store_bench.home = FailingHome()  # whoever cuts the log takes the view along
    assert verified(store_bench)[1].sound
    (cut,), _ = verified(store_bench, None, [kept])
    assert (cut.kind, cut.commit_ts) == ("head-cut", 20)


def test_a_history_that_was_written_anew_is_found_by_a_head_alone(store_bench):
    def written(content):
        bench = StoreBench(SimulatedDisk())
        writer = Writer(bench.store())
        for number in range(10):
            writer.commit((ALICE, b"k", value(20, content if number == 4 else number)))
        return bench, writer.store

    _, original = written("is")
    forged_bench, forged = written("was")
    kept = [Head(10, original.head.chain)]
    assert verified(forged_bench, forged)[1].sound
    (rewritten,), _ = verified(forged_bench, forged, kept)
    assert (rewritten.kind, rewritten.commit_ts) == ("head-rewritten", 10)
    assert original.head.chain.hex() in rewritten.message


def test_heads_that_are_none(history, store_bench):
    with pytest.raises(ValueError, match="32 bytes"):
        Verification(moment_of(store_bench, history.store), [Head(1, b"")])


def test_a_view_with_a_group_that_was_taken_back_is_a_note(store_bench):
    from statehouse.storage.log_format import LogHead
    from statehouse.storage.taken_back import TakenBackNote

    store = planted(store_bench)
    TakenBackNote(store_bench.disk, store_bench.place.log_directory).write(LogHead(5, b"5" * 32), LogHead(4, b"4" * 32))
    store._view.apply([(keys.WATERMARK_KEY, watermark(5, b"5" * 32, 1))])
    store_bench.close()
    findings, verdict = verified(store_bench)
    assert (set(kinds(findings)), verdict.sound) == ({"view-unusable", "not-compared"}, True)


def test_a_note_of_a_group_that_cannot_be_read_is_a_finding(store_bench):
    """Found by a newcomer: the check called a store sound that a start refused."""
    Writer(store_bench.store()).commit((ALICE, b"k", value()))
    store_bench.close()
    store_bench.disk.remove("log/taken-back")
    store_bench.disk.make_dir("log/taken-back")
    findings, _ = verified(store_bench)
    assert (FindingKind.UNREADABLE, "log/taken-back") in [(finding.kind, finding.file) for finding in findings]
