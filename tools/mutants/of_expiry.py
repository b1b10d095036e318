"""Defects of values that expire: how reads take them, and how they become tombstones."""

from typing import Final

from mutants.defect import SIMULATION, Edit, Mutant, mutant

__all__ = ["OF_EXPIRY"]

_PARTITION: Final = "actors/partition.py"
_SWEEPING: Final = "actors/sweeping.py"
_EXPIRIES: Final = "storage/expiries.py"
_LATEST: Final = "actors/latest.py"
_STORED: Final = "storage/stored_value.py"

OF_EXPIRY: Final = (
    # Reads
    mutant(
        "a read shows what has expired",
        _STORED,
        '    if stored[:1] != b"\\x01" or expiry_of(stored) > now_ns:\n        return stored\n',
        "    if now_ns:\n        return stored\n",
    ),
    mutant(
        "a listing shows what has expired",
        _STORED,
        "    return kind != _TOMBSTONE and (kind != _EXPIRING or expiry_of(stored) > now_ns)\n",
        "    return kind != _TOMBSTONE\n",
    ),
    mutant(
        "what has expired comes back when the clock is set back",
        "actors/engine.py",
        "    store.now_ns = clock.now_ns\n",
        "    store.now_ns = now_ns\n",
    ),
    mutant(
        "a condition takes what has expired for there",
        _LATEST,
        "        return self.exists and (not self.expires_at_ns or self.expires_at_ns > now_ns())\n",
        "        return self.exists\n",
    ),
    # When a value expires
    mutant(
        "a TTL counts from the whole second",
        _STORED,
        "    return min(committed_at_ns + ttl_s * _NS_PER_S, _TIME_MOST_NS)\n",
        "    return min((committed_at_ns // _NS_PER_S + ttl_s) * _NS_PER_S, _TIME_MOST_NS)\n",
    ),
    mutant(
        "a rebuilt view forgets when values expire",
        "storage/folding.py",
        "            section_writes(self._writes, tally.prefix, section, operations, tally.counters(), place)\n",
        "            operations = [each._replace(ttl_s=0) for each in operations]\n"
        "            section_writes(self._writes, tally.prefix, section, operations, tally.counters(), place)\n",
    ),
    # Tombstones
    Mutant(
        "what expires soon is deleted with what has expired",
        (
            Edit(_SWEEPING, "        now_ns = self._now_ns()\n", "        now_ns = self._now_ns() + _NS_PER_S\n"),
            Edit(_LATEST, "0 < self.expires_at_ns <= now_ns", "0 < self.expires_at_ns"),
        ),
        (SIMULATION,),
    ),
    mutant(
        "what was written over a value that expired is deleted for it",
        _PARTITION,
        "if each.version == version and each.is_due(now_ns)}",
        "if each.exists}",
    ),
    mutant(
        "a tombstone does not say that the value had expired",
        _PARTITION,
        "            expired=bool(leg.expire),\n",
        "            expired=False,\n",
    ),
    mutant(
        "the note of a sweep is ahead of its tombstones",
        _SWEEPING,
        "        steps = self._store.sweep(self._swept_ns, now_ns)\n",
        "        steps = self._store.sweep(self._swept_ns, now_ns)\n        await self._note(now_ns).wait()\n",
    ),
    mutant(
        "a sweep is taken to be further than it is",
        _EXPIRIES,
        "    yield Swept(until_ns, len(rows))\n",
        "    yield Swept(until_ns + 1_000_000_000, len(rows))\n",
    ),
    # Forks
    mutant(
        "what a fork has inherited is not deleted when it expires",
        _EXPIRIES,
        "    while forks := children(view, agent, _CHILDREN, before_ts):\n",
        "    while forks := children(view, agent, _CHILDREN, before_ts)[:0]:\n",
    ),
    mutant(
        "what had expired when a fork was made is not deleted in it",
        _EXPIRIES,
        "swept_until(view, level.until_ts) + 1, at_ns)",
        "swept_until(view) + 1, at_ns)",
    ),
)
