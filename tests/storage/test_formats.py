"""docs/formats.md is what the code writes, byte for byte: sections, the view's rows, snapshots.

(The event log's own example is looked at in test_log_format.py.)
"""

import struct
from contextlib import closing
from hashlib import sha256
from zlib import crc32

import pytest
from google.protobuf.struct_pb2 import Struct
from storage.fix_formats import PAGE, worked_examples

from statehouse.limits import OUTCOME_BUCKET_COMMITS, OUTCOME_BUCKETS, VALUE_INLINE_BYTES
from statehouse.storage import commit, keys, record_notes, snapshot_format
from statehouse.storage.expiry_keys import agent_expiry_key, expiry_key, fork_expiry_key, swept_key
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.note_rows import END_ROW, child_row, commit_row, fork_row, idempotency_row, lease_row, swept_row
from statehouse.storage.record_notes import ForkNote, Inherited, Notes, encode_notes
from statehouse.storage.section import (
    agent_fields,
    encode_operation,
    metadata_fields,
    section_body,
    stamp,
    walk_section,
)
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.snapshot_format import MAGIC
from statehouse.storage.snapshots import load_snapshot, write_snapshot
from statehouse.storage.stored_value import ValuePointer, event_row, expiring, inline_value, outcome
from statehouse.storage.v1.log_pb2 import AgentMeta, Fork, LeaseChange, LogRecord, SnapshotHeader, Watermark
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateResponse, Operation, ReplayEvent

AGENT = AgentId("default", "a\0b")
PREFIX = keys.agent_prefix(AGENT)
TIME_NS = 1_700_000_000_500_000_000
EXPIRES_NS = TIME_NS + 3_600 * 10**9
STRUCT = Struct()
STRUCT.update({"a": True})
VALUE = STRUCT.SerializeToString()

IDEMPOTENCY = record_notes.Idempotency(b"job-7", sha256(b"plan").digest())
LEASE = record_notes.LeaseChange(AGENT, 3, "w1", TIME_NS)
FORKED = AgentId("default", "b")
FORK = ForkNote(FORKED, AGENT, 7, Inherited(5, 7, 2, 5, 1))

SECTIONS = worked_examples("Sections")
VIEW = worked_examples("Keys and the view")
SNAPSHOTS = worked_examples("Snapshots")


def test_the_section_is_what_the_code_encodes():
    body = section_body(agent_fields(AGENT), "5f0c", [(b"plan", VALUE, 2), (b"old", None, 3)])
    assert {
        "Section": body.encoded + stamp(7, TIME_NS),
        "Metadata": metadata_fields({"run": "r1"}),
        "Idempotency": encode_notes(Notes(IDEMPOTENCY)),
        "Lease": encode_notes(Notes(lease=LEASE)),
        "Fork": encode_notes(Notes(fork=FORK)),
        "End": encode_notes(Notes(end=AGENT)),
        "Swept": encode_notes(Notes(swept_until_ns=EXPIRES_NS)),
        "Operation with a TTL": encode_operation(b"plan", VALUE, 2, 3_600),
        "Operation that deletes what expired": encode_operation(b"plan", None, 3, expired=True),
    } == SECTIONS
    assert walk_section(SECTIONS["Section"]).operations == body.operations
    assert body.operations[0].value_offset == 10


def test_the_section_is_the_event_that_protobuf_reads():
    event = ReplayEvent(txn_id="5f0c", commit_ts=7, namespace=AGENT.namespace, agent_id=AGENT.agent_id)
    event.committed_at.FromNanoseconds(TIME_NS)
    event.operations.add(key="plan", value=STRUCT, version=2)
    event.operations.add(key="old", version=3)
    assert ReplayEvent.FromString(SECTIONS["Section"]) == event
    lasting = ReplayEvent.FromString(SECTIONS["Operation with a TTL"])
    assert lasting.operations[0] == Operation(key="plan", value=STRUCT, version=2, ttl_s=3_600)
    expired = ReplayEvent.FromString(SECTIONS["Operation that deletes what expired"])
    assert expired.operations[0] == Operation(key="plan", version=3, expired=True)
    assert ReplayEvent.FromString(SECTIONS["Metadata"]) == ReplayEvent(metadata={"run": "r1"})


def test_the_notes_are_what_protobuf_reads():
    record = LogRecord.FromString(b"".join(SECTIONS[note] for note in ("Idempotency", "Lease", "Fork", "End", "Swept")))
    assert (record.idempotency.key, record.idempotency.fingerprint) == ("job-7", sha256(b"plan").digest())
    lease = record.lease
    assert (lease.namespace, lease.agent_id, lease.epoch, lease.holder) == (*AGENT, 3, "w1")
    assert lease.expires_at_ns == TIME_NS
    fork = record.fork
    assert (fork.namespace, fork.agent_id, fork.parent_id, fork.at_ts) == (*FORKED, AGENT.agent_id, 7)
    assert fork.inherited == AgentMeta(first_commit_ts=5, last_commit_ts=7, commits=2, operations=5, live_keys=1)
    assert (record.end.namespace, record.end.agent_id) == AGENT
    assert record.swept_until_ns == EXPIRES_NS


def test_the_rows_are_what_the_code_packs():
    section = SECTIONS["Section"]
    assert {
        "State key": keys.state_key(PREFIX, b"plan"),
        "Version key": keys.version_key(PREFIX, b"plan", 2),
        "Event key": keys.event_key(PREFIX, 7),
        "Idempotency key": keys.idempotency_key(PREFIX, b"job-7", 7),
        "Idempotency row": idempotency_row(TIME_NS, IDEMPOTENCY.fingerprint),
        "Lease key": keys.lease_key(PREFIX, 7),
        "Lease row": lease_row(LEASE),
        "Meta key": keys.meta_key(PREFIX),
        "Fork key": keys.fork_key(keys.agent_prefix(FORKED)),
        "Fork row": fork_row(FORK, 8),
        "Child key": keys.child_key(PREFIX, 8),
        "Child row": child_row(FORK),
        "End key": keys.end_key(PREFIX, 9),
        "End row": END_ROW,
        "Outcome key": keys.outcome_key(keys.outcome_bucket(50_000), "5f0c"),
        "Outcome": outcome(50_000),
        "Live value, inline": inline_value(VALUE, 2, 7),
        "Tombstone": inline_value(None, 3, 8),
        "Live value that expires": expiring(inline_value(VALUE, 2, 7), EXPIRES_NS),
        "Expiry key": expiry_key(EXPIRES_NS, PREFIX, b"plan", 2),
        "Expiry row": commit_row(7),
        "Fork expiry key": fork_expiry_key(TIME_NS, keys.agent_prefix(FORKED)),
        "Agent expiry key": agent_expiry_key(PREFIX, EXPIRES_NS, b"plan", 2),
        "Swept key": swept_key(9),
        "Swept row": swept_row(EXPIRES_NS),
        "Live value in the log": ValuePointer(7, 2, 120, len(VALUE), crc32(VALUE)).pack(),
        "Event row": event_row(110, len(section), crc32(section), 2, 5, 1),
    } == VIEW


def test_the_rows_follow_the_grammar():
    """Put together by hand, so that code and page cannot be wrong together."""
    agent = b"\x02default\x00\x01a\x00\xffb\x00\x01"
    assert VIEW["State key"] == agent + b"splan"
    assert VIEW["Version key"] == agent + b"vplan\x00\x01" + struct.pack(">Q", 2)
    assert VIEW["Event key"] == agent + b"e" + struct.pack(">Q", 7)
    assert VIEW["Idempotency key"] == agent + b"ijob-7\x00\x01" + struct.pack(">Q", 7)
    assert VIEW["Idempotency row"] == struct.pack(">Q", TIME_NS) + sha256(b"plan").digest()
    assert VIEW["Lease key"] == agent + b"l" + struct.pack(">Q", 7)
    row = LeaseChange(epoch=3, holder="w1", expires_at_ns=TIME_NS)
    assert VIEW["Lease row"] == row.SerializeToString()
    assert VIEW["Meta key"] == agent + b"m"
    assert VIEW["Fork key"] == b"\x02default\x00\x01b\x00\x01f"
    assert VIEW["Fork row"] == Fork(parent_id=AGENT.agent_id, at_ts=7, commit_ts=8).SerializeToString()
    assert VIEW["Child key"] == agent + b"c" + struct.pack(">Q", 8)
    assert VIEW["Child row"] == Fork(agent_id="b", at_ts=7).SerializeToString()
    assert VIEW["End key"] == agent + b"d" + struct.pack(">Q", 9)
    assert VIEW["End row"] == b"\x01"
    assert VIEW["Outcome key"] == b"\x01t" + struct.pack(">Q", 50_000 // 16_384) + b"5f0c"
    live = GetStateResponse(value=STRUCT, version=2, commit_ts=7, exists=True)
    assert VIEW["Live value, inline"] == live.SerializeToString()
    assert VIEW["Tombstone"] == GetStateResponse(version=3, commit_ts=8).SerializeToString()
    time = struct.pack(">Q", EXPIRES_NS)
    assert VIEW["Live value that expires"] == b"\x01" + time + VIEW["Live value, inline"]
    assert VIEW["Expiry key"] == b"\x01x" + time + agent[1:] + b"plan\x00\x01" + struct.pack(">Q", 2)
    assert VIEW["Expiry row"] == struct.pack(">Q", 7)
    assert VIEW["Fork expiry key"] == b"\x01x" + struct.pack(">Q", TIME_NS + 1) + b"default\x00\x01b\x00\x01"
    assert VIEW["Agent expiry key"] == agent + b"x" + time + b"plan\x00\x01" + struct.pack(">Q", 2)
    assert VIEW["Swept key"] == b"\x01s" + struct.pack(">Q", 9)
    assert VIEW["Swept row"] == time
    assert VIEW["Live value in the log"] == struct.pack(">BQQIII", 0, 7, 2, 120, 9, crc32(VALUE))
    assert VIEW["Event row"] == struct.pack(">IIIQQQ", 110, 69, crc32(SECTIONS["Section"]), 2, 5, 1)
    assert keys.WATERMARK_KEY == b"\x01w"


WATERMARK = Watermark(commit_ts=7, chain=bytes(range(32)), format_version=2, committed_at_ns=TIME_NS)
HEADER = SnapshotHeader(format_version=2, store_id=bytes(range(16)), watermark=WATERMARK)
ROWS = [(b"\x01w", WATERMARK.SerializeToString()), (VIEW["State key"], VIEW["Live value, inline"])]
SNAPSHOT_PATH = f"/snapshots/{7:020d}.snap"


@pytest.fixture
def disk():
    disk = SimulatedDisk()
    disk.make_dir("/snapshots")
    return disk


def test_the_snapshot_is_what_the_code_writes(disk):
    with closing(MemoryView()) as view:
        view.apply(ROWS)
        with closing(view.snapshot()) as snapshot:
            written = write_snapshot(disk, "/snapshots", snapshot, HEADER, lambda rows, size: None)
    assert written.path == SNAPSHOT_PATH
    with closing(disk.open(written.path)) as file:
        assert {"Snapshot": file.read_at(0, file.size())} == SNAPSHOTS


def test_the_snapshot_loads(disk):
    with closing(disk.open(SNAPSHOT_PATH, create=True)) as file:
        file.write_at(0, SNAPSHOTS["Snapshot"])
    applied = []
    assert load_snapshot(disk, SNAPSHOT_PATH, applied.extend) == HEADER
    assert sorted(applied) == ROWS


def test_the_snapshot_follows_the_grammar():
    def framed(content):
        return struct.pack(">I", len(content)) + content

    def block(content):
        return struct.pack(">II", len(content), crc32(content)) + content

    rows = b"".join(framed(key) + framed(value) for key, value in ROWS)
    content = b"SHSNAP\r\n" + block(HEADER.SerializeToString()) + block(rows) + bytes(8) + struct.pack(">Q", 2)
    assert SNAPSHOTS["Snapshot"] == content + sha256(content).digest()


def test_the_pages_numbers_are_the_codes():
    text = PAGE.read_text(encoding="utf-8")
    assert f"This is format {commit.FORMAT_VERSION}" in text
    assert f"SnapshotHeader (protobuf)          format_version {snapshot_format.FORMAT_VERSION}\n" in text
    assert " ".join(f"{byte:02X}" for byte in MAGIC) in text
    assert f"commit_ts divided by {OUTCOME_BUCKET_COMMITS}\n" in text
    assert f"A value of up to {VALUE_INLINE_BYTES} bytes stands in its `state` row" in text
    assert f"The outcomes of the last {OUTCOME_BUCKETS} buckets are kept." in text
