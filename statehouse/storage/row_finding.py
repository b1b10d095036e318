"""What is told of a row of the view that is not what the log says: whose it is, and where in the log it comes from."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

from statehouse.findings import FindingKind, VerifyFinding
from statehouse.storage import keys
from statehouse.storage.expected_rows import EVENT, POINTER, POINTER_BYTES
from statehouse.storage.expiry_keys import (
    AGENT_EXPIRY,
    EXPIRY,
    SWEPT,
    unpack_agent_expiry_key,
    unpack_expiry_key,
)
from statehouse.storage.log_format import segment_name
from statehouse.storage.view import ViewDamagedError
from statehouse.storage.view_walk import commit_ts_of, prefix_of, unwrapped

__all__ = ["VIEW_REMEDY", "column_of", "judged", "row_finding"]

VIEW_REMEDY: Final = (
    "stop the daemon, copy `log`, move `state` and `snapshots` aside and start again: both are made anew from the log"
)
_EVENT_OFFSET: Final = slice(0, 4)
_EVENT_SIZES: Final = (12, EVENT.size)
"""What the log gives of an event row, and the row."""


def judged(key: bytes, found: bytes | None, due: bytes | None, starts: Sequence[int]) -> VerifyFinding:
    """A finding about a row that is `found` where the log gives `due`; None: no row."""
    if found is None:
        return row_finding(FindingKind.ROW_MISSING, key, due, "the view does not have this row", starts)
    if due is None:
        return row_finding(FindingKind.ROW_EXTRA, key, found, "the log does not give this row", starts)
    message = f"the row is {found[:40].hex()}, and by the log it is {due[:40].hex()}"
    return row_finding(FindingKind.ROW_WRONG, key, due, message, starts)


def column_of(key: bytes) -> bytes:
    """The column of an agent's row; empty for other rows."""
    if key[:1] != keys.AGENT:
        return b""
    prefix = prefix_of(key)
    return b"" if prefix is None else key[len(prefix) :][:1]


def row_finding(
    kind: FindingKind, key: bytes, value: bytes | None, message: str, starts: Sequence[int]
) -> VerifyFinding:
    """A finding about a row of the view: whose it is, and where in the log it comes from, as `value` says."""
    what, place = _described(key)
    commit_ts = place.pop("commit_ts", None)
    offset = None
    if value is not None and what in ("version", "state"):
        commit_ts = commit_ts_of(value)
        pointer = unwrapped(value)
        if len(pointer) == POINTER_BYTES and pointer[0] == 0:
            offset = POINTER.unpack(pointer)[3]
    elif value is not None and what == "event" and len(value) in _EVENT_SIZES:
        offset = int.from_bytes(value[_EVENT_OFFSET])
    elif value is not None and what in ("outcome", "expiry") and len(value) == 8:
        commit_ts = int.from_bytes(value)
    source = ""
    index = bisect_right(starts, commit_ts or 0)
    if offset is not None and index and kind is not FindingKind.ROW_EXTRA:
        source = f" (log/{segment_name(starts[index - 1])}, offset {offset})"
    return VerifyFinding(
        kind=kind,
        message=f"{what}: {message}{source}",
        remedy=VIEW_REMEDY,
        file="state",
        commit_ts=commit_ts,
        **place,
    )


def _described(key: bytes) -> tuple[str, dict[str, Any]]:
    """What a row is, and the fields of a finding that say whose."""
    place: dict[str, Any]
    if key[:2] == b"\x01t":
        return "outcome", {"key": key[10:].decode(errors="replace")}
    if key.startswith(SWEPT):
        return "time up to which was swept", {"commit_ts": int.from_bytes(key[2:])}
    prefix, column = prefix_of(key) or b"", column_of(key)
    try:
        if key.startswith(EXPIRY):
            found = unpack_expiry_key(key)
            agent = keys.unpack_agent(found.prefix)
            place = {"namespace": agent.namespace, "agent_id": agent.agent_id}
            if found.key is not None:
                place |= {"key": found.key.decode(errors="replace"), "version": found.version}
            return "expiry", place
        agent = keys.unpack_agent(prefix)
        place = {"namespace": agent.namespace, "agent_id": agent.agent_id}
        if column == keys.EVENT:
            return "event", place | {"commit_ts": keys.unpack_event_key(prefix, key)}
        if column == keys.IDEMPOTENCY:
            name, commit_ts = keys.unpack_idempotency_key(prefix, key)
            return "idempotency key", place | {"key": name.decode(errors="replace"), "commit_ts": commit_ts}
        if column == keys.LEASE:
            return "lease", place | {"commit_ts": keys.unpack_lease_key(prefix, key)}
        if column == keys.CHILD:
            return "fork of it", place | {"commit_ts": keys.unpack_child_key(prefix, key)}
        if column == keys.END:
            return "end", place | {"commit_ts": keys.unpack_end_key(prefix, key)}
        if column == keys.VERSION:
            name, version = keys.unpack_version_key(prefix, key)
            return "version", place | {"key": name.decode(errors="replace"), "version": version}
        if column == AGENT_EXPIRY:
            _, name, version = unpack_agent_expiry_key(prefix, key)
            return "expiry", place | {"key": name.decode(errors="replace"), "version": version}
        if column == keys.STATE:
            return "state", place | {"key": keys.unpack_state_key(prefix, key).decode(errors="replace")}
        if key == keys.meta_key(prefix):
            return "counters", place
        if key == keys.fork_key(prefix):
            return "fork", place
    except ViewDamagedError:
        pass
    return f"row {key[:64].hex()}", {}
