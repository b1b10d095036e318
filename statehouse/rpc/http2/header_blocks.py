"""Header blocks: HPACK (RFC 7541) by jh2's coder in Rust, with what it needs to stand before strangers.

jh2's decoder is fast and trusts its input more than we may: a block that is cut short makes it panic, which
prints a stack trace and raises what no `except Exception` catches; and it takes padding that the RFC forbids.
So each block is walked through once before it is decoded, field by field and without decoding anything: every
length must lie inside the block, every size update at its beginning and within what we allow.

Most calls of a client have the very same block as the call before, because all its fields stand in the table.
A block that changes no table means the same as long as no other block changes it; what it meant is kept.
"""

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from jh2._hazmat import Decoder, Encoder, HPACKError, OversizedHeaderListError

__all__ = [
    "BLOCK_BYTES",
    "LIST_BYTES",
    "Fields",
    "HeaderBlockError",
    "HeaderDecoder",
    "HeaderEncoder",
    "literal_block",
]

T = TypeVar("T")

Fields: TypeAlias = "list[tuple[bytes, bytes, bool]]"
"""Name, value, and whether the sender wants it never to be indexed, in the order of the block."""

BLOCK_BYTES: Final = 64 * 1024
"""The longest header block that is decoded, over all its frames."""
LIST_BYTES: Final = 128 * 1024
"""The largest header list that is decoded, counted as in RFC 9113, 6.5.2. A list that is larger than a call may
have is an answer to that call; past this one the connection ends."""
BLOCK_FIELDS: Final = 2_048
TABLE_BYTES: Final = 4_096
"""HPACK's dynamic table, in each direction: the default of RFC 9113."""
KEPT_BLOCKS: Final = 64
KEPT_BLOCK_BYTES: Final = 512
KEPT_LIST_BYTES: Final = 2 * 1024
"""Whose meaning is kept; a block of table entries alone has a dozen bytes, but each may stand for a long field."""
TABLE_SIZE_UPDATES: Final = 2
"""That a block may begin with: the smallest size since the last block, and the present one (RFC 7541, 4.2)."""

_INTEGER_BYTES: Final = 5
_PAST_THE_NAME: Final = 3
"""Of a literal with the name `~`: what stands before its value."""


class HeaderBlockError(Exception):
    """A block that cannot be decoded. The two tables no longer agree: the connection must end."""


class HeaderDecoder(Generic[T]):
    """Decodes a connection's header blocks, in the order in which they came; `read` says what a list of fields is."""

    def __init__(self, read: Callable[[Fields], T]) -> None:
        self._read = read
        self._decoder = Decoder(LIST_BYTES)
        self._huffman = Encoder()
        self._kept: dict[bytes, T] = {}

    def decode(self, block: bytes) -> T:
        """What `read` makes of the block. Raises HeaderBlockError; what `read` raises passes."""
        kept = self._kept.get(block)
        if kept is not None:
            return kept
        changes_table, strings = _walk(block)
        try:
            fields = self._decoder.decode(block, True)  # noqa: FBT003 - as bytes
        except (HPACKError, OversizedHeaderListError) as error:
            raise HeaderBlockError(str(error)) from error
        for index, part, start, end in strings:
            self._check_padding(fields[index][part], block[start:end])
        if changes_table:
            self._kept.clear()
        meaning = self._read(fields)
        if not changes_table and len(block) <= KEPT_BLOCK_BYTES and _list_bytes(fields) <= KEPT_LIST_BYTES:
            if len(self._kept) >= KEPT_BLOCKS:
                self._kept.clear()
            self._kept[block] = meaning
        return meaning

    def _check_padding(self, text: bytes, encoded: bytes) -> None:
        """A text has one Huffman code, padding included (RFC 7541, 5.2): so compare with ours."""
        if self._huffman.add((b"~", text), True, True)[_PAST_THE_NAME:] != encoded:  # noqa: FBT003 - never indexed, coded
            raise HeaderBlockError("a Huffman code with padding that is none")


class HeaderEncoder:
    """Encodes a connection's header blocks with a table, in the order in which they are sent."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._smallest_table = self._table = TABLE_BYTES  # since the last block, and now

    def limit_table(self, size_bytes: int) -> None:
        """The peer's HEADER_TABLE_SIZE. The next block tells of the smallest since the last one, and of the latest."""
        self._table = min(size_bytes, TABLE_BYTES)
        self._smallest_table = min(self._smallest_table, self._table)

    def encode(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The block of these fields."""
        if self._smallest_table != self._encoder.header_table_size:
            # Only here: jh2 would remember each change until the next block, and a peer can change without end.
            self._encoder.header_table_size = self._smallest_table
        if self._table != self._smallest_table:
            self._encoder.header_table_size = self._smallest_table = self._table
        block: bytes = self._encoder.encode([(name, value, False) for name, value in fields])
        return block


def literal_block(fields: Iterable[tuple[bytes, bytes]], *, never_indexed: bool = False) -> bytes:
    """A block that uses no dynamic table (RFC 7541, 6.2.2): the same bytes on every connection, so encoded once.

    Secrets are `never_indexed` (6.2.3): nobody on the way may put them into a table either.
    """
    kind = b"\x10" if never_indexed else b"\x00"
    return b"".join(
        b"\x88" if (name, value) == (b":status", b"200") else kind + _string(name) + _string(value)
        for name, value in fields
    )


def _list_bytes(fields: Fields) -> int:
    return sum(len(name) + len(value) for name, value, _ in fields)


def _string(text: bytes) -> bytes:
    """A string literal without Huffman code (RFC 7541, 5.2)."""
    size = len(text)
    if size < 0x7F:
        return bytes((size,)) + text
    length = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + text


def _walk(block: bytes) -> tuple[bool, list[tuple[int, int, int, int]]]:
    """Whether a block changes the table, and its Huffman strings: field, name or value, begin and end in the block.

    Raises HeaderBlockError for a block that does not end where its last field does.
    """
    at = index = updates = 0
    changes_table = False
    strings: list[tuple[int, int, int, int]] = []
    try:
        while at < len(block):
            first = block[at]
            if first >= 0x80:  # 6.1: an indexed field
                at += 1
                if first == 0xFF:
                    _, at = _integer(block, at - 1, 0x7F)
            elif first >= 0x40 or first < 0x20:  # 6.2: a literal field
                changes_table = changes_table or first >= 0x40
                name, at = _integer(block, at, 0x3F if first >= 0x40 else 0x0F)
                for part in (1,) if name else (0, 1):
                    size, start = _integer(block, at, 0x7F)
                    if block[at] >= 0x80:
                        strings.append((index, part, at, start + size))
                    at = start + size
            else:  # 6.3: a size update
                size, at = _integer(block, at, 0x1F)
                changes_table = True
                updates += 1
                if index or size > TABLE_BYTES or updates > TABLE_SIZE_UPDATES:
                    raise HeaderBlockError("a table size that is too large, behind a field, or one too many")
                continue
            index += 1
            if index > BLOCK_FIELDS:
                raise HeaderBlockError(f"more than {BLOCK_FIELDS} fields")
    except IndexError:
        raise HeaderBlockError("a header block that is cut short") from None
    if at != len(block):
        raise HeaderBlockError("a header block that is cut short")
    return changes_table, strings


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer (RFC 7541, 5.1) whose first byte has the bits `prefix` for it, and where it ends."""
    number = block[at] & prefix
    at += 1
    if number < prefix:
        return number, at
    for shift in range(0, 7 * _INTEGER_BYTES, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HeaderBlockError("an integer that is too long")
