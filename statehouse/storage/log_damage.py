"""A bad record in the event log: torn tail, or damage?

The torn tail of a write that power loss cut was never synced, so nobody was told of it, and it must be dropped. A
record that had been synced may have been answered, so its damage must be refused. Both look alike at the record itself.
What follows tells them apart: a group of records is written only when the one before it is synced, and its first record
says so (AFTER_SYNC). One later record that verifies and has the flag proves that the bad record had been synced once.

Later records are found though the bad one may have lost its length, its chain value or both: see `_Tail`. All of the
judgement lives here; nothing here reads or writes a file.
"""

from itertools import pairwise
from typing import Final

from attrs import frozen

from statehouse.errors import StoreDamagedError
from statehouse.limits import MIB
from statehouse.storage.log_format import (
    AFTER_SYNC,
    CHAIN_BYTES,
    LENGTH,
    LENGTH_BYTES,
    MAX_PAYLOAD_BYTES,
    PAYLOAD_START,
    RECORD_OVERHEAD_BYTES,
    next_chain,
)

__all__ = ["ADVICE", "Fault", "damaged", "evidence_of_sync", "is_a_hole"]

_TRAILING_ZEROS: Final = 64
"""How many zero bytes at its end a payload may have for the search behind a bad record still to find it when it is the
last one. LogRecords end in a varint, which ends in no zero byte; without a bound, any number that happens to point into
the preallocated zeros would be a length worth hashing megabytes for."""

_SEARCH_HASH_FACTOR: Final = 16
"""The search behind a bad record hashes at most this many times the bytes there, however a
client arranged them."""

_SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all."""

ADVICE: Final = "nothing was changed; keep a copy of the data directory and restore it from a backup"


@frozen
class Fault:
    """A record that is not what was written: where it begins, which commit it would be, what is wrong with it.

    `chain_before` is the chain value before it, where that is known.
    """

    offset: int
    commit_ts: int
    reason: str
    chain_before: bytes = b""


def damaged(path: str, fault: Fault, why: str = "") -> StoreDamagedError:
    """The refusal of a fault, with file, offset, commit_ts and what to do."""
    because = f" ({why})" if why else ""
    return StoreDamagedError(
        f"{path}: damaged at offset {fault.offset}, commit_ts {fault.commit_ts}: {fault.reason}{because}; {ADVICE}",
        details={"file": path, "offset": str(fault.offset), "commit_ts": str(fault.commit_ts)},
    )


def evidence_of_sync(tail: bytes, chain_before: bytes, offset: int) -> str | None:
    """Why a bad record must have been synced when it was still good, or None when nothing shows it.

    `tail` is the segment from the bad record to its end, `chain_before` the chain value before the bad record, `offset`
    where it stands in the segment. Takes time near linear in the size of the tail.
    """
    return _Tail(tail, chain_before, offset).evidence()


def is_a_hole(tail: bytes, fault: Fault) -> bool:
    """Whether a bad record looks as if part of it had never reached the disk, and not as if it had been changed.

    `tail` is the segment from the bad record on. Segments are preallocated with zeros, so a sector whose write power
    loss took has zeros where the record should be. Flipped bits leave none.
    """
    stop = RECORD_OVERHEAD_BYTES + (int.from_bytes(tail[:LENGTH_BYTES]) & MAX_PAYLOAD_BYTES)
    if stop > len(tail):
        return False
    first_border = _SECTOR_BYTES - fault.offset % _SECTOR_BYTES
    borders = [0, *range(first_border, stop, _SECTOR_BYTES), stop]
    if first_border < LENGTH_BYTES and _may_go_on(tail, stop):
        # The part in the first sector is high bytes of the length, which are zeros as a rule; and the length is right.
        del borders[0]
    if all(tail[start:end].strip(b"\0") for start, end in pairwise(borders)):
        return False
    return not _verifies_with_another_length(tail, fault.chain_before)


def _verifies_with_another_length(tail: bytes, chain_before: bytes) -> bool:
    """Whether one bit of the length makes the record whole: it then only seems to reach into the zeros at the end."""
    stored = tail[LENGTH_BYTES:RECORD_OVERHEAD_BYTES]
    (length,) = LENGTH.unpack_from(tail)
    for bit in range(LENGTH.size * 8):
        field = LENGTH.pack(length ^ 1 << bit)
        stop = RECORD_OVERHEAD_BYTES + ((length ^ 1 << bit) & MAX_PAYLOAD_BYTES)
        if stop <= len(tail) and next_chain(chain_before, field, tail[RECORD_OVERHEAD_BYTES:stop]) == stored:
            return True
    return False


def _may_go_on(tail: bytes, at: int) -> bool:
    """Whether a record may begin there, or the end."""
    return tail.startswith(PAYLOAD_START, at + RECORD_OVERHEAD_BYTES) or not any(tail[at : at + RECORD_OVERHEAD_BYTES])


class _SearchExhaustedError(Exception):
    """The search has hashed as much as it may."""


class _Tail:
    """The bytes from a bad record on, in which later records are looked for."""

    def __init__(self, tail: bytes, chain_before: bytes, offset: int) -> None:
        self._tail = tail
        self._written = len(tail.rstrip(b"\0"))
        self._limit = min(len(tail), self._written + _TRAILING_ZEROS)
        self._chain_before = chain_before
        self._offset = offset
        self._hash_budget = _SEARCH_HASH_FACTOR * max(self._written, MIB)

    def evidence(self) -> str | None:
        try:
            at = self._after_sound_bounds()
            if at is None:
                at = self._after_resynchronising()
        except _SearchExhaustedError:
            return "what follows it is too much like records to tell whether it had been synced"
        return None if at is None else f"the record at offset {self._offset + at} was written after it had been synced"

    def _after_sound_bounds(self) -> int | None:
        # If its length is sound, the next record is where it says; and either its chain value or its payload is sound.
        stop = self._stop_of(0)
        if stop is None:
            return None
        length_field, stored, payload = self._split(0, stop)
        self._spend(len(payload))
        for chain in (stored, next_chain(self._chain_before, length_field, payload)):
            flagged, _ = self._follow(chain, stop)
            if flagged is not None:
                return flagged
        return None

    def _after_resynchronising(self) -> int | None:
        # Any later offset may be a record: the one behind the bad record, when it verifies against the chain value
        # there (only the length was hit), or any other, when the record behind it verifies against it.
        bad_chain = self._tail[LENGTH_BYTES:RECORD_OVERHEAD_BYTES]
        at = self._next_candidate(1)
        while at is not None:
            stop = self._stop_of(at) or self._stop_of_flagged(at)
            passed = at
            if stop is not None:
                flagged, passed = self._follow(bad_chain, at)
                if flagged is None and passed == at:
                    _, chain, _ = self._split(at, stop)
                    flagged, passed = self._follow(chain, stop)
                    if passed == stop:
                        passed = at
                    elif flagged is None and self._is_flagged(at):
                        flagged = at
                if flagged is not None:
                    return flagged
            at = self._next_candidate(max(passed, at + 1))
        return None

    def _follow(self, chain: bytes, at: int) -> tuple[int | None, int]:
        """Walk the records that verify from `at` on: the first with AFTER_SYNC, and where the walk stopped."""
        # What is behind a record is not looked at: power loss may have torn it, and this one verifies or does not.
        while (stop := self._plausible_stop(at)) is not None:
            length_field, stored, payload = self._split(at, stop)
            self._spend(len(payload))
            if next_chain(chain, length_field, payload) != stored:
                break
            if self._is_flagged(at):
                return at, stop
            chain, at = stored, stop
        return None, at

    def _stop_of(self, at: int) -> int | None:
        """Where the record at `at` would end, if its first bytes and those behind its end look like records."""
        stop = self._plausible_stop(at)
        if stop is None:
            return None
        goes_on = stop >= self._written or self._plausible_stop(stop) is not None or self._is_torn(stop)
        return stop if goes_on else None

    def _is_torn(self, at: int) -> bool:
        """Whether the first bytes of a record at `at` look as if power loss had taken a sector that they are in."""
        border = at + _SECTOR_BYTES - (self._offset + at) % _SECTOR_BYTES
        stop = at + RECORD_OVERHEAD_BYTES + len(PAYLOAD_START)
        return not any(self._tail[at:border]) or (border < stop and not any(self._tail[border:stop]))

    def _stop_of_flagged(self, at: int) -> int | None:
        """The same for a record that has AFTER_SYNC, whatever is behind it: a torn group leaves more than holes.

        Not for long ones: four bytes that happen to read as such a length must be rare enough to be hashed for.
        """
        stop = self._plausible_stop(at)
        return stop if stop is not None and self._is_flagged(at) and stop - at <= MIB else None

    def _plausible_stop(self, at: int) -> int | None:
        payload_at = at + RECORD_OVERHEAD_BYTES
        if not self._tail.startswith(PAYLOAD_START, payload_at):
            return None
        stop = payload_at + (LENGTH.unpack_from(self._tail, at)[0] & MAX_PAYLOAD_BYTES)
        return stop if payload_at < stop <= self._limit else None

    def _next_candidate(self, at: int) -> int | None:
        found = self._tail.find(PAYLOAD_START, at + RECORD_OVERHEAD_BYTES, self._limit)
        return None if found < 0 else found - RECORD_OVERHEAD_BYTES

    def _split(self, at: int, stop: int) -> tuple[bytes, bytes, bytes]:
        length_stop, chain_stop = at + LENGTH_BYTES, at + LENGTH_BYTES + CHAIN_BYTES
        return self._tail[at:length_stop], self._tail[length_stop:chain_stop], self._tail[chain_stop:stop]

    def _is_flagged(self, at: int) -> bool:
        return bool(LENGTH.unpack_from(self._tail, at)[0] & AFTER_SYNC)

    def _spend(self, hashed: int) -> None:
        self._hash_budget -= hashed
        if self._hash_budget < 0:
            raise _SearchExhaustedError
