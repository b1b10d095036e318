"""The forms of what `statehousectl` is given: whatever does not fit is bad usage, and never reaches the client."""

from typing import Final

import click

__all__ = ["COUNT", "TEXT", "TIMESTAMP", "VERSION_NUMBER"]

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


TEXT: Final = _Text()
TIMESTAMP: Final = click.IntRange(min=0, max=_HIGHEST)
VERSION_NUMBER: Final = click.IntRange(min=1, max=_HIGHEST)
COUNT: Final = click.IntRange(min=1, max=_MOST_SHOWN)
