"""A sum of many rows, whatever their order: whether the rows that the log gives are the rows that the view has.

A row's hash is SHA-256 of a secret of this one comparison, the key's length, the key and the value. Hashes are added
modulo 2^256. Two collections of rows that are the same, repetitions counted, have the same sum in any order; two that
are not have the same sum only when the differences of their hashes cancel out, which for rows that were not chosen with
the secret in hand happens once in 2^256. (An XOR would miss a row that is there twice. The secret, drawn anew each
time, keeps whoever writes the view from choosing rows that cancel out.)

The rows are spread over parts by the CRC-32 of their keys, each with a sum of its own. When two collections differ,
the parts that differ are known, and only these rows have to be looked at again, one by one.
"""

from hashlib import sha256
from struct import Struct
from typing import Final
from zlib import crc32

__all__ = ["PARTS", "RowSums", "part_of"]

PARTS: Final = 4_096
"""A power of two."""
_MASK: Final = PARTS - 1
_SUM_MASK: Final = 2**256 - 1
_LENGTH: Final = Struct(">I")
SECRET_BYTES: Final = 32


def part_of(key: bytes) -> int:
    """The part that a row with this key is in."""
    return crc32(key) & _MASK


class RowSums:
    """The sums and counts of one collection of rows. Only those of the same `secret` can be compared."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.sums = [0] * PARTS
        """Of each part; only their last 256 bits count."""
        self.counts = [0] * PARTS
        self.rows = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Count a row."""
        part = crc32(key) & _MASK
        self.sums[part] += int.from_bytes(sha256(self._secret + _LENGTH.pack(len(key)) + key + value).digest())
        self.counts[part] += 1
        self.rows += 1

    def differing(self, other: "RowSums") -> list[tuple[int, int]]:
        """The parts that differ from another collection's, each with the most rows that either has in it."""
        return [
            (part, max(self.counts[part], other.counts[part]))
            for part in range(PARTS)
            if self.counts[part] != other.counts[part] or (self.sums[part] ^ other.sums[part]) & _SUM_MASK
        ]
