"""The event log's bytes: golden, from the worked example in docs/formats.md."""

import re
import struct
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import pytest
from storage.fix_log import FIRST, STORE_ID

from statehouse.storage import log_format
from statehouse.storage.log_format import (
    AFTER_SYNC,
    HEADER_BYTES,
    HeaderError,
    NewerHeaderError,
    SegmentHeader,
    decode_header,
    encode_header,
    encode_record,
    genesis_chain,
    segment_first_ts,
    segment_name,
)

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
LINE = re.compile(r"([0-9a-f]{8})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  +\S.*)?")

HEADER = SegmentHeader(STORE_ID, 1, genesis_chain(STORE_ID))


@pytest.fixture(scope="module")
def golden() -> bytes:
    """The worked example of the section on the event log."""
    section = FORMATS.read_text(encoding="utf-8").split("\n## The event log\n")[1].split("\n## ")[0]
    block = section.split("### Worked example")[1].split("```\n")[1]
    content = b""
    for line in block.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        assert int(match[1], 16) == len(content), line
        content += bytes.fromhex(match[2])
    return content


def test_the_worked_example_is_what_the_code_encodes(golden):
    one = encode_record(HEADER.chain_before, b"\n\x03one", after_sync=True)
    two = encode_record(one[4:36], b"\n\x03two", after_sync=False)
    assert encode_header(HEADER) + one + two + bytes(4) == golden


def test_the_worked_example_is_what_the_log_writes(golden, bench):
    log = bench.open()
    log.append([b"\n\x03one", b"\n\x03two"])
    log.sync()
    assert bench.content() == golden.ljust(4096, b"\0")
    assert log.head.chain == golden[0x75:0x95]


def test_the_worked_example_follows_the_grammar(golden):
    """Decoded by hand, so that code and page cannot be wrong together."""
    magic, version, store_id, first_ts, chain_before, crc = struct.unpack_from(">8sI16sQ32sI", golden)
    assert (magic, version, store_id, first_ts) == (b"SHLOG\r\n\x1a", 1, bytes(range(16)), 1)
    assert chain_before == sha256(store_id).digest()
    assert crc == crc32(golden[:68])
    assert golden[72:76] == struct.pack(">I", 5 | 0x80000000)
    assert golden[76:108] == sha256(chain_before + golden[72:76] + golden[108:113]).digest()
    assert golden[113:117] == struct.pack(">I", 5)
    assert golden[117:149] == sha256(golden[76:108] + golden[113:117] + golden[149:154]).digest()
    assert golden[154:] == bytes(4)


def test_constants_are_those_of_the_page():
    text = FORMATS.read_text(encoding="utf-8")
    assert " ".join(f"{byte:02X}" for byte in log_format.MAGIC) in text
    assert (HEADER_BYTES, log_format.RECORD_OVERHEAD_BYTES, AFTER_SYNC) == (72, 36, 1 << 31)


def test_a_header_comes_back():
    header = SegmentHeader(b"s" * 16, 2**64 - 1, b"c" * 32)
    assert decode_header(encode_header(header) + b"more") == header


@pytest.mark.parametrize("offset", range(HEADER_BYTES))
def test_a_flipped_bit_in_a_header_is_damage_and_not_a_newer_format(offset):
    for bit in range(8):
        chunk = bytearray(encode_header(HEADER))
        chunk[offset] ^= 1 << bit
        with pytest.raises(HeaderError) as caught:
            decode_header(bytes(chunk))
        assert not isinstance(caught.value, NewerHeaderError)


def test_a_cut_header_is_damage():
    for size in range(HEADER_BYTES):
        with pytest.raises(HeaderError, match=f"{size} of 72"):
            decode_header(encode_header(HEADER)[:size])


def test_a_newer_format_is_called_so_whatever_its_layout():
    fields = encode_header(HEADER)[:8] + struct.pack(">I", 2) + bytes(60)
    for chunk in (fields + struct.pack(">I", crc32(fields)), fields.ljust(100, b"?")[:72]):
        with pytest.raises(NewerHeaderError, match="written by a newer Statehouse: format 2, this one reads 1"):
            decode_header(chunk)


def test_segment_names():
    assert FIRST.endswith("/" + segment_name(1))
    assert segment_first_ts(segment_name(2**64 - 1)) == 2**64 - 1
    for name in (
        "next.tmp",
        "1.log",
        "00000000000000000001.log~",
        "x00000000000000000001.log",
        "0000000000000000000٣.log",
    ):
        assert segment_first_ts(name) is None
