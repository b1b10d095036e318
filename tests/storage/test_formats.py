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
from statehouse.storage import keys
from statehouse.storage.memory_view import MemoryView
from statehouse.storage.section import agent_fields, section_body, stamp, walk_section
from statehouse.storage.simdisk import SimulatedDisk
from statehouse.storage.snapshot_format import MAGIC
from statehouse.storage.snapshots import load_snapshot, write_snapshot
from statehouse.storage.stored_value import ValuePointer, inline_value, outcome, section_pointer
from statehouse.storage.v1.log_pb2 import SnapshotHeader, Watermark
from statehouse.types import AgentId
from statehouse.v1.statehouse_pb2 import GetStateResponse, ReplayEvent

AGENT = AgentId("default", "a\0b")
PREFIX = keys.agent_prefix(AGENT)
TIME_NS = 1_700_000_000_500_000_000
STRUCT = Struct()
STRUCT.update({"a": True})
VALUE = STRUCT.SerializeToString()

SECTIONS = worked_examples("Sections")
VIEW = worked_examples("Keys and the view")
SNAPSHOTS = worked_examples("Snapshots")


def test_the_section_is_what_the_code_encodes():
    body = section_body(agent_fields(AGENT), "5f0c", [(b"plan", VALUE, 2), (b"old", None, 3)])
    assert {"Section": body.encoded + stamp(7, TIME_NS)} == SECTIONS
    assert walk_section(SECTIONS["Section"]).operations == body.operations
    assert body.operations[0].value_offset == 10


def test_the_section_is_the_event_that_protobuf_reads():
    event = ReplayEvent(txn_id="5f0c", commit_ts=7, namespace=AGENT.namespace, agent_id=AGENT.agent_id)
    event.committed_at.FromNanoseconds(TIME_NS)
    event.operations.add(key="plan", value=STRUCT, version=2)
    event.operations.add(key="old", version=3)
    assert ReplayEvent.FromString(SECTIONS["Section"]) == event


def test_the_rows_are_what_the_code_packs():
    section = SECTIONS["Section"]
    assert {
        "State key": keys.state_key(PREFIX, b"plan"),
        "Version key": keys.version_key(PREFIX, b"plan", 2),
        "Event key": keys.event_key(PREFIX, 7),
        "Meta key": keys.meta_key(PREFIX),
        "Outcome key": keys.outcome_key(keys.outcome_bucket(50_000), "5f0c"),
        "Outcome": outcome(50_000),
        "Live value, inline": inline_value(VALUE, 2, 7),
        "Tombstone": inline_value(None, 3, 8),
        "Live value in the log": ValuePointer(7, 2, 120, len(VALUE), crc32(VALUE)).pack(),
        "Section pointer": section_pointer(110, len(section), crc32(section)),
    } == VIEW


def test_the_rows_follow_the_grammar():
    """Put together by hand, so that code and page cannot be wrong together."""
    agent = b"\x02default\x00\x01a\x00\xffb\x00\x01"
    assert VIEW["State key"] == agent + b"splan"
    assert VIEW["Version key"] == agent + b"vplan\x00\x01" + struct.pack(">Q", 2)
    assert VIEW["Event key"] == agent + b"e" + struct.pack(">Q", 7)
    assert VIEW["Meta key"] == agent + b"m"
    assert VIEW["Outcome key"] == b"\x01t" + struct.pack(">Q", 50_000 // 16_384) + b"5f0c"
    live = GetStateResponse(value=STRUCT, version=2, commit_ts=7, exists=True)
    assert VIEW["Live value, inline"] == live.SerializeToString()
    assert VIEW["Tombstone"] == GetStateResponse(version=3, commit_ts=8).SerializeToString()
    assert VIEW["Live value in the log"] == struct.pack(">BQQIII", 0, 7, 2, 120, 9, crc32(VALUE))
    assert VIEW["Section pointer"] == struct.pack(">III", 110, 69, crc32(SECTIONS["Section"]))
    assert keys.WATERMARK_KEY == b"\x01w"


WATERMARK = Watermark(commit_ts=7, chain=bytes(range(32)), format_version=1, committed_at_ns=TIME_NS)
HEADER = SnapshotHeader(format_version=1, store_id=bytes(range(16)), watermark=WATERMARK)
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
    assert " ".join(f"{byte:02X}" for byte in MAGIC) in text
    assert f"commit_ts divided by {OUTCOME_BUCKET_COMMITS}\n" in text
    assert f"A value of up to {VALUE_INLINE_BYTES} bytes stands in its `state` row" in text
    assert f"The outcomes of the last {OUTCOME_BUCKETS} buckets are kept." in text
