"""Recorded agent runs as files: SWE-agent's `.traj` JSON, read strictly.

A recording is one JSON object. `trajectory` is a list of steps, each an object with `thought`, `action`,
`observation`, `response`, `state` and whatever else the recorder knew; `history` is a list of messages. One of the
two may be missing. Every other member is kept as it is.

Two recordings are the same when their canonical texts are: member order and white space do not count, everything
else does, 1 against 1.0 included.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from attrs import frozen

from statehouse.types import JsonObject, JsonValue

__all__ = ["Recording", "RecordingError", "canonical", "read_recording"]


class RecordingError(Exception):
    """The file is not a recording; the message is one line that names it and says why."""


@frozen
class Recording:
    """A recorded run: its name, and the JSON object that the file holds."""

    name: str
    source: JsonObject

    @property
    def sha256(self) -> str:
        """Of the canonical text, in hexadecimal."""
        return hashlib.sha256(canonical(self.source).encode("ascii")).hexdigest()


def canonical(value: JsonValue) -> str:
    """The one text of a JSON value: members sorted, no white space, all but ASCII escaped."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_recording(path: Path) -> Recording:
    """Read and check a recording. RecordingError when there is none."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not UTF-8 (byte {error.start})") from error
    try:
        source = json.loads(
            text, object_pairs_hook=_members, parse_float=_finite_float, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: not JSON: {error}") from error
    try:
        return Recording(path.stem, _checked(source))
    except ValueError as error:
        raise RecordingError(f"{path}: not a SWE-agent recording: {error}") from error


def _checked(source: Any) -> JsonObject:
    if not isinstance(source, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - the file's fault, as the rest
    if "trajectory" not in source and "history" not in source:
        raise ValueError("it has neither `trajectory` nor `history`")
    for name in ("trajectory", "history"):
        items = source.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ValueError(f"`{name}` is not a list of objects")
    return source


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(name for position, (name, _) in enumerate(pairs) if name in dict(pairs[:position]))
        raise ValueError(f"an object has {twice!r} twice")
    return members


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is more than a double holds")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")
