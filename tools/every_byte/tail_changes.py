"""What may happen to the last segment of a log: the cases of the first part, each with what of it still stands.

Every change is made from the segment's records as the judge read them, so that it knows which of them it left whole.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from every_byte.expectation import SECTOR_BYTES, Change, Proof, has_a_zero_sector, proof_of
from every_byte.format_reader import HEADER_BYTES, LogFile

__all__ = ["ZEROS_BEHIND_BYTES", "TailChanges"]

ZEROS_BEHIND_BYTES: Final = 512
"""How far into the zeros behind the last record bits are flipped and files are cut."""
_PAGE_BYTES: Final = 4096
_GARBAGE_BYTES_MAX: Final = 2048


class TailChanges:
    """Makes the changes of one last segment. Cheap enough to be asked for each byte of it."""

    def __init__(self, tail: LogFile) -> None:
        self.tail = tail
        self._starts = [record.start for record in tail.records]
        flags = [record.after_sync for record in tail.records]
        last_flagged = max((index for index, flagged in enumerate(flags) if flagged), default=-1)
        self._last_flagged = last_flagged
        self._zero_sectors = [has_a_zero_sector(tail.content, record.start, record.stop) for record in tail.records]

    @property
    def stop(self) -> int:
        """The offset behind the last byte that is worth changing."""
        return min(self.tail.end + ZEROS_BEHIND_BYTES, len(self.tail.content))

    def cut(self, offset: int) -> Change:
        """The file ends at `offset`."""
        what = f"cut at {offset}"
        content = self.tail.content[:offset]
        if offset < HEADER_BYTES:
            return Change("cut", what, content, 0, is_header=True)
        good = self._whole_before(offset)
        begins = self.tail.records[good].start if good < len(self.tail.records) else self.tail.end
        # A file that is shorter than what was written is no hole: its bytes were there, as zeros, before it had a name.
        return Change("cut", what, content, good, fault=any(content[begins:]), is_hole=False)

    def flip(self, offset: int, bit: int) -> Change:
        """One bit of one byte is another."""
        content, tail = self.tail.content, self.tail
        changed = b"".join((content[:offset], bytes((content[offset] ^ 1 << bit,)), content[offset + 1 :]))
        what = f"bit {bit} of the byte at {offset} flipped"
        if offset < HEADER_BYTES:
            return Change("flip", what, changed, 0, is_header=True)
        good = bisect_right(self._starts, offset) - 1 if offset < tail.end else len(tail.records)
        # One field of one record was hit: whatever is behind it can be found by the others, and is whole.
        proof = Proof.CERTAIN if self._last_flagged > good else Proof.NONE
        is_hole = None if good < len(tail.records) and self._zero_sectors[good] else False
        return Change("flip", what, changed, good, proof=proof, is_hole=is_hole)

    def garbage(self, offset: int, rng: Random) -> Change:
        """The file ends at `offset`, and noise follows."""
        noise = rng.randbytes(rng.randint(1, _GARBAGE_BYTES_MAX))
        what = f"cut at {offset} and {len(noise)} bytes of noise"
        return Change("garbage", what, self.tail.content[:offset] + noise, self._whole_before(offset), is_hole=None)

    def zeroed(self, sector: int, size: int) -> Change | None:
        """One sector of `size` bytes reads as zeros; None when it was zeros or holds the header."""
        start, stop = sector * size, (sector + 1) * size
        tail = self.tail
        start = max(start, HEADER_BYTES)
        if not tail.content[start:stop].strip(b"\0"):
            return None
        content = tail.content[:start] + bytes(len(tail.content[start:stop])) + tail.content[stop:]
        whole = [content[record.start : record.stop] == tail.raw(index) for index, record in enumerate(tail.records)]
        good = whole.index(False)
        items = [index if whole[index] else None for index in range(good, len(tail.records))]
        fault = bool(content[tail.records[good].start :].strip(b"\0"))
        proof = proof_of(tail, items)
        return Change(
            f"zeroed {size}", f"{size} bytes at {start} zeroed", content, good, fault=fault, proof=proof, is_hole=None
        )

    def doubled(self, index: int) -> Change:
        """A record stands there twice, and what followed it stands later."""
        return self._rearranged("doubled", f"record {index} doubled", [*range(index + 1), *range(index, self._count)])

    def removed(self, index: int) -> Change:
        """A record is left out, and what followed it stands earlier."""
        rest = [*range(index), *range(index + 1, self._count)]
        return self._rearranged("removed", f"record {index} removed", rest)

    def swapped(self, index: int, other: int) -> Change:
        """Two records have changed places."""
        order = list(range(self._count))
        order[index], order[other] = other, index
        return self._rearranged("swapped", f"records {index} and {other} swapped", order)

    def sectors(self) -> Iterator[Change]:
        """Every sector and every page zeroed."""
        for size in (SECTOR_BYTES, _PAGE_BYTES):
            for sector in range(self.tail.end // size + 1):
                change = self.zeroed(sector, size)
                if change is not None:
                    yield change

    def rearrangements(self, rng: Random) -> Iterator[Change]:
        """Every record doubled, removed, swapped with the next, and swapped with a drawn one."""
        for index in range(self._count):
            yield self.doubled(index)
            yield self.removed(index)
            if index + 1 < self._count:
                yield self.swapped(index, index + 1)
                yield self.swapped(index, rng.randrange(index + 1, self._count))

    @property
    def _count(self) -> int:
        return len(self.tail.records)

    def _whole_before(self, offset: int) -> int:
        """How many records end at or before `offset`."""
        records = self.tail.records
        at = bisect_right(self._starts, offset) - 1
        return at + (at >= 0 and records[at].stop <= offset)

    def _rearranged(self, kind: str, what: str, order: Sequence[int]) -> Change:
        tail = self.tail
        good = next((place for place, index in enumerate(order) if place != index), len(order))
        content = tail.content[:HEADER_BYTES] + b"".join(tail.raw(index) for index in order)
        content += bytes(max(len(tail.content) - len(content), 0))
        behind = order[good:]
        return Change(kind, what, content, good, fault=bool(behind), proof=proof_of(tail, behind), is_hole=None)
