r"""Events for people, as lines, and for programs, as JSON. Pure functions; the clients and statehousectl use them.

A line is `HH:MM:SSZ  agent=<id>  <OP>  key=<key>  v=<version>  <summary>`, one for each operation; before the summary
`ttl_s=<seconds>` of a value that expires, and at the end of a delete `expired`, when one did. Whatever
a name or a value holds, a line stays one line and cannot steer a terminal: line breaks and control
characters are shown escaped (`\n`, `\x1b`). Members of objects are shown in the order of their names.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator

from statehouse.client.types import Operation, ReplayEvent
from statehouse.types import JsonValue

__all__ = ["event_json", "event_lines", "one_line", "seconds_text", "shorten_key", "summarize"]

KEY_CHARACTERS = 48
STRING_CHARACTERS = 120
OBJECT_CHARACTERS = 80

_KINDS = (
    (("tool/",), "TOOL"),
    (("note/", "annotation/"), "NOTE"),
    (("final/", "answer/"), "FINAL"),
)
# Control characters, line and paragraph separators, and the marks that reorder text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def event_lines(event: ReplayEvent, *, verbose: bool = False, namespace: bool = False) -> Iterator[str]:
    """The lines of one event, one for each operation.

    `verbose` adds the transaction's id, the event's commit_ts and, if it has any, its metadata, and under each write
    its whole value; `namespace` the agent's namespace, for events of several.
    """
    time = "--:--:--Z" if event.committed_at is None else f"{event.committed_at.astimezone(dt.UTC):%H:%M:%S}Z"
    for operation in event.operations:
        columns = [
            time,
            *([f"namespace={one_line(event.namespace)}"] if namespace else []),
            f"agent={one_line(event.agent_id)}",
            _kind(operation),
            f"key={shorten_key(operation.key)}",
            f"v={operation.version}",
        ]
        if verbose:
            columns += [f"txn={one_line(event.txn_id)}", f"event={event.commit_ts}"]
            if event.metadata:
                columns.append(f"metadata={_json(dict(event.metadata))}")
        if operation.ttl_s is not None:
            columns.append(f"ttl_s={operation.ttl_s}")
        if operation.expired:
            columns.append("expired")
        if operation.value is not None:
            columns.append(summarize(operation.value))
        yield "  ".join(columns)
        if verbose and operation.value is not None:
            yield f"  payload: {_json(operation.value)}"


def event_json(event: ReplayEvent) -> str:
    """The event as one line of JSONL."""
    return _escape_as_json(json.dumps(event.to_dict(), ensure_ascii=False, separators=(",", ":")))


def seconds_text(time: dt.datetime) -> str:
    """A time in ISO 8601, UTC, cut to the second: `2030-01-02T03:04:05Z`."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def shorten_key(key: str) -> str:
    """A key in at most KEY_CHARACTERS; of a path the head and the tail are kept, of another the head."""
    key = one_line(key)
    if len(key) <= KEY_CHARACTERS:
        return key
    kept = KEY_CHARACTERS - 3
    if "/" not in key:
        return f"{key[:kept]}..."
    tail = kept // 2
    return f"{key[: kept - tail]}...{key[-tail:]}"


def summarize(value: JsonValue) -> str:
    """A value in a few words: what is small as it is, what is large by its size."""
    if isinstance(value, str):
        text = one_line(value)
        return text if len(text) <= STRING_CHARACTERS else f"{text[: STRING_CHARACTERS - 3]}..."
    text = _json(value)
    if len(text) < OBJECT_CHARACTERS or not isinstance(value, dict | list):
        return text
    if isinstance(value, list):
        return f"len={len(value)}"
    return f"{{{shorten_key(min(value))}:…, n_fields={len(value)}}}"


def _kind(operation: Operation) -> str:
    if operation.value is None:
        return "DEL"
    return next((kind for prefixes, kind in _KINDS if operation.key.startswith(prefixes)), "WRITE")


def _json(value: JsonValue) -> str:
    return _escape_as_json(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def _escape_as_json(text: str) -> str:
    """What `json.dumps` leaves as it is though it is not safe to print, in the escapes that JSON knows."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def one_line(text: str) -> str:
    """The text with line breaks and control characters shown escaped."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)
