"""What a transaction of `statehousectl transact` does: from the command line, a JSONL file, or stdin.

A line is `{"agent_id": ..., "key": ..., "value": {...}}`, with `"value": null` for a delete, `"namespace"` if it is
another, and `"ttl_s": 60` for a value that lasts so many seconds. Whatever does not fit is bad usage that names the
line; nothing was sent then.
"""

import json
import sys
from collections.abc import Iterator
from typing import Final, cast

import click

from statehouse.cli.ctl_arguments import read_object
from statehouse.client.types import Put, Remove
from statehouse.limits import TTL_MOST_S
from statehouse.rpc.given import read_file, without_secrets
from statehouse.types import JsonObject

__all__ = ["read_operations"]

STDIN: Final = "-"
FILE_BYTES: Final = 64 * 1024 * 1024
"""Twice what one transaction may have staged, unless an operator says otherwise."""
_MEMBERS: Final = {"agent_id", "key", "value", "namespace", "ttl_s"}


def read_operations(path: str) -> list[Put | Remove]:
    """The operations of a JSONL file, or of stdin (`-`); blank lines are skipped. UsageError for what is none."""
    called = "stdin" if path == STDIN else f"the file of operations {without_secrets(path)}"
    try:
        content = sys.stdin.buffer.read(FILE_BYTES + 1) if path == STDIN else read_file(path, FILE_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{called} cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES:
        raise click.UsageError(f"{called} is longer than {FILE_BYTES} bytes, and no transaction may be")
    return list(_operations(content, called))


def _operations(content: bytes, called: str) -> Iterator[Put | Remove]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield _operation(line.decode())
        except UnicodeDecodeError:
            raise click.UsageError(f"{called}, line {number}: not UTF-8") from None
        except ValueError as error:
            raise click.UsageError(f"{called}, line {number}: {error}") from None


def _operation(line: str) -> Put | Remove:
    given = read_object(line)
    unknown = given.keys() - _MEMBERS
    if unknown:
        raise ValueError(f"{min(unknown)!r} is no member of an operation; those are {', '.join(sorted(_MEMBERS))}")
    missing = {"agent_id", "key", "value"} - given.keys()
    if missing:
        hint = "; null deletes the key" if missing == {"value"} else ""
        raise ValueError(f"{min(missing)!r} is missing{hint}")
    for name in ("agent_id", "key", "namespace"):
        if not isinstance(given.get(name, ""), str):
            raise ValueError(f"{name!r} is {json.dumps(given[name])}, and no string")  # noqa: TRY004 - a bad text
    agent_id, key = cast("str", given["agent_id"]), cast("str", given["key"])
    namespace = cast("str | None", given.get("namespace"))
    value, ttl_s = given["value"], _ttl_s(given)
    if value is None:
        if ttl_s is not None:
            raise ValueError("'ttl_s' is of a write, and 'value' is null: a delete lasts")
        return Remove(agent_id, key, namespace)
    if not isinstance(value, dict):
        raise ValueError("'value' is neither a JSON object nor null")  # noqa: TRY004 - a bad text
    return Put(agent_id, key, value, namespace, ttl_s)


def _ttl_s(given: JsonObject) -> int | None:
    ttl_s = given.get("ttl_s")
    if ttl_s is None:
        return None
    if not isinstance(ttl_s, int) or isinstance(ttl_s, bool) or not 1 <= ttl_s <= TTL_MOST_S:
        raise ValueError(f"'ttl_s' is {json.dumps(ttl_s)}, and not a whole number from 1 to {TTL_MOST_S}")
    return ttl_s
