"""LevelDB's files, as far as this adversary must know them to hit what matters: where blocks and records end.

A table is blocks, each with a trailer of 5 bytes (type, checksum); its index, which the footer points at, has a handle
of every data block. A log, which a MANIFEST is too, is records with a head of 7 bytes, in blocks of 32 KiB; a log's are
batches, which begin with the sequence number of their first row and the number of rows.
"""

import struct
from typing import Final

__all__ = ["last_sequence", "record_heads", "table_trailers"]

BLOCK_BYTES: Final = 32 * 1024
RECORD_HEAD: Final = struct.Struct("<IHB")
TRAILER_BYTES: Final = 5
_BATCH_HEAD: Final = struct.Struct("<QI")
_BEGINS: Final = (1, 2)
"""Of the kinds of records: a whole batch, and the first of its fragments."""
_ENDS: Final = (1, 4)
"""A whole batch, and the last of its fragments."""
_FOOTER_BYTES: Final = 48
_MAGIC_BYTES: Final = 8


def record_heads(log: bytes) -> list[int]:
    """Where each record of a log or MANIFEST begins; the log is whole."""
    heads: list[int] = []
    at = 0
    while at + RECORD_HEAD.size <= len(log):
        if BLOCK_BYTES - at % BLOCK_BYTES < RECORD_HEAD.size:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        _, length, kind = RECORD_HEAD.unpack_from(log, at)
        if not kind:
            break
        heads.append(at)
        at += RECORD_HEAD.size + length
    return heads


def last_sequence(log: bytes) -> int:
    """The sequence number of the last row of a log; 0: it has none. The log is whole."""
    last = 0
    batch = b""
    for head in record_heads(log):
        _, length, kind = RECORD_HEAD.unpack_from(log, head)
        begin = head + RECORD_HEAD.size
        batch = (b"" if kind in _BEGINS else batch) + log[begin : begin + min(length, _BATCH_HEAD.size)]
        if kind in _ENDS:
            first, rows = _BATCH_HEAD.unpack_from(batch)
            last = first + rows - 1
    return last


def table_trailers(table: bytes) -> list[int]:
    """Where the trailer of each block of a table begins: data, filters, metaindex, index; the table is whole."""
    footer = table[-_FOOTER_BYTES:-_MAGIC_BYTES]
    (meta_offset, meta_size, index_offset, index_size), _ = _varints(footer, 0, 4)
    trailers = [meta_offset + meta_size, index_offset + index_size]
    for offset, size in ((meta_offset, meta_size), (index_offset, index_size)):
        for value in _values(table[offset : offset + size]):
            (block_offset, block_size), _ = _varints(value, 0, 2)
            trailers.append(block_offset + block_size)
    return sorted(trailers)


def _values(block: bytes) -> list[bytes]:
    """The values of a block's entries."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    found: list[bytes] = []
    at = 0
    while at < end:
        (_, key_bytes, value_bytes), at = _varints(block, at, 3)
        at += key_bytes + value_bytes
        found.append(block[at - value_bytes : at])
    return found


def _varints(content: bytes, at: int, count: int) -> tuple[list[int], int]:
    numbers: list[int] = []
    for _ in range(count):
        number = shift = 0
        while True:
            byte = content[at]
            number |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        numbers.append(number)
    return numbers, at
