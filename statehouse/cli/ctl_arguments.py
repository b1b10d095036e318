"""The forms of what `statehousectl` is given: whatever does not fit is bad usage, and never reaches the client."""

import datetime as dt
import json
from typing import Final, NoReturn

import click
from google.protobuf.struct_pb2 import Struct

from statehouse.client.arguments import timestamp
from statehouse.client.values import to_struct
from statehouse.limits import TTL_MOST_S
from statehouse.types import JsonObject

__all__ = [
    "COUNT",
    "JSON_OBJECT",
    "TEXT",
    "TIME",
    "TIMESTAMP",
    "TTL_SECONDS",
    "VERSION_NUMBER",
    "parse_pairs",
    "read_object",
]

_HIGHEST: Final = 2**64 - 1
"""Versions and commit_ts are uint64 on the wire."""

_MOST_SHOWN: Final = 1_000_000
"""Events or versions that one command may be asked for: what `tail` holds in memory is bounded by it."""


class _Text(click.types.StringParamType):
    """Text that the wire can carry: UTF-8. Bytes that are not arrive from the system as lone surrogates."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!a} is not UTF-8", param, ctx)
        return text


class _Time(_Text):
    """A moment, in ISO 8601. One without a zone is refused: it would mean another moment on another machine."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:  # type: ignore[override]
        if isinstance(value, dt.datetime):
            return value
        text = super().convert(value, param, ctx)
        try:
            time = dt.datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is not a time; write it as 2030-01-31T12:00:00Z", param, ctx)
        if time.tzinfo is None:
            self.fail(f"{text!r} has no time zone; write 2030-01-31T12:00:00Z, or +02:00 for Z", param, ctx)
        try:
            timestamp(repr(text), time)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return time


class _Object(_Text):
    """A JSON object that a value may be."""

    name = "json"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> JsonObject:  # type: ignore[override]
        text = super().convert(value, param, ctx)
        try:
            return read_object(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def read_object(text: str) -> JsonObject:
    """The JSON object that a text is, if it can be a value as it stands. ValueError, on one line, if not."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("a value is a JSON object, as {...}")  # noqa: TRY004 - a bad text
    to_struct(value, Struct())  # raises what the client would, and names the place
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def parse_pairs(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """What an option that takes NAME=VALUE many times was given, as a callback of click's."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", context, parameter)
        if name in pairs:
            raise click.BadParameter(f"{name!r} is given twice", context, parameter)
        pairs[name] = value
    return pairs


TEXT: Final = _Text()
TIME: Final = _Time()
JSON_OBJECT: Final = _Object()
TIMESTAMP: Final = click.IntRange(min=0, max=_HIGHEST)
VERSION_NUMBER: Final = click.IntRange(min=1, max=_HIGHEST)
COUNT: Final = click.IntRange(min=1, max=_MOST_SHOWN)
TTL_SECONDS: Final = click.IntRange(min=1, max=TTL_MOST_S)
