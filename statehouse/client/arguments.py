"""What a call is given, looked at before anything is sent: a mistake names its argument, and costs no connection.

Only what the wire cannot carry, or would change in silence, is refused here. What may be in a name, and how long it
may be, is the daemon's to say.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final, SupportsIndex

from google.protobuf.timestamp_pb2 import Timestamp

__all__ = [
    "check_counts",
    "check_flag",
    "check_key",
    "check_metadata",
    "check_numbers",
    "check_optional_numbers",
    "check_texts",
    "check_whole_seconds",
    "one_of",
    "point",
    "timestamp",
]

_HIGHEST: Final = 2**64 - 1
"""Of the wire's uint64."""
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799
"""Of the wire's Timestamp, in seconds from 1970."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def check_texts(**texts: object) -> None:
    """Raise TypeError for what is no str, ValueError for a str that is not Unicode text; by argument name."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a str, not {_kind(text)}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} is not Unicode text (it holds half of a surrogate pair)") from None


def check_numbers(**numbers: SupportsIndex) -> None:
    """Raise TypeError for what is no whole number, or a bool, ValueError past 64 bits; by argument name."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, SupportsIndex):
            raise TypeError(f"{name} must be an int, not {_kind(number)}")
        if not 0 <= number.__index__() <= _HIGHEST:
            raise ValueError(f"{name} must be from 0 to 2**64 - 1, got {number}")


def check_optional_numbers(**numbers: SupportsIndex | None) -> None:
    """As `check_numbers`; None stands for an argument that was not given."""
    check_numbers(**{name: number for name, number in numbers.items() if number is not None})


def check_counts(most: int, **counts: SupportsIndex | None) -> None:
    """As `check_optional_numbers`, from 1 to `most`: on the wire a 0 stands for no limit at all."""
    for name, count in counts.items():
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, SupportsIndex):
            raise TypeError(f"{name} must be an int, not {_kind(count)}")
        if not 1 <= count.__index__() <= most:
            raise ValueError(f"{name} must be from 1 to {most}, got {count}")


def check_whole_seconds(name: str, seconds: SupportsIndex) -> int:
    """The seconds; TypeError for what is no whole number, ValueError past the wire's int64."""
    if not isinstance(seconds, SupportsIndex) or isinstance(seconds, bool):
        raise TypeError(f"{name} must be an int, of whole seconds, not {_kind(seconds)}")
    whole = seconds.__index__()
    if not -(2**63) <= whole < 2**63:
        raise ValueError(f"{name} must be less than 2**63 seconds, got {seconds}")
    return whole


def check_flag(name: str, flag: object) -> bool:
    """The flag; TypeError for what is no bool: a text, or a number, may not mean what it would be taken for."""
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be a bool, not {_kind(flag)}")
    return flag


def check_key(index: int, key: object) -> Sequence[str]:
    """One of `batch_get`'s keys; TypeError for what is no tuple or list of 2 or 3 str, by its index."""
    if not isinstance(key, tuple | list) or not 2 <= len(key) <= 3:
        found = f"{len(key)} parts" if isinstance(key, tuple | list) else _kind(key)
        raise TypeError(f"keys[{index}] must be (agent_id, key) or (agent_id, key, namespace), not {found}")
    for name, text in zip(("agent_id", "key", "namespace"), key, strict=False):
        check_texts(**{f"{name} in keys[{index}]": text})
    return key


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The entries; TypeError for what is no mapping of str to str, ValueError for what is not Unicode text."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping of str to str, not {_kind(metadata)}")
    for name, value in metadata.items():
        check_texts(**{"a name in metadata": name})
        check_texts(**{f"metadata[{name!r}]": value})
    return dict(metadata)


def one_of(**given: object) -> None:
    """Raise ValueError when more than one of these arguments was given (is not None)."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} exclude each other")


def point(at_ts: SupportsIndex | None, at_time: dt.datetime | None) -> Timestamp | None:
    """The time of a point, after a look at both of what may stand for it; ValueError when both are given."""
    check_optional_numbers(at_ts=at_ts)
    one_of(at_ts=at_ts, at_time=at_time)
    return timestamp("at_time", at_time, whole=True)


def timestamp(name: str, time: dt.datetime | None, *, whole: bool = False) -> Timestamp | None:
    """A time, to the microsecond; TypeError for what is no datetime, ValueError for one without a time zone.

    `whole` takes the end of the microsecond: commits have times in nanoseconds, which a datetime cuts off, and the
    state at an event's `committed_at` is to be the one that it made.
    """
    if time is None:
        return None
    if not isinstance(time, dt.datetime):
        raise TypeError(f"{name} must be a datetime, not {_kind(time)}")
    if time.utcoffset() is None:
        raise ValueError(f"{name} has no time zone: use an aware datetime, such as datetime.now(UTC)")
    microseconds = (time - _EPOCH) // dt.timedelta(microseconds=1)
    seconds, rest = divmod(microseconds, 1_000_000)
    if not _FIRST_S <= seconds <= _LAST_S:
        raise ValueError(f"{name} is outside the years 1 to 9999, in UTC")
    return Timestamp(seconds=seconds, nanos=rest * 1000 + (999 if whole else 0))


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
