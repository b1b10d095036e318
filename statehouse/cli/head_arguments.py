"""Known heads on the command line: `--head TS:CHAIN`, any number of times, and `--heads FILE` with one on each line."""

from typing import Final

import click

from statehouse.findings import HEADS_AT_MOST, Head, distinct
from statehouse.rpc.given import read_file, without_secrets

__all__ = ["HEADS_HELP", "HEAD_HELP", "known_heads", "parse_heads"]

HEAD_HELP: Final = (
    "A head that was kept: the log must have this commit, with this chain value. May be given many times."
)
HEADS_HELP: Final = "A file with a head on each line; blank lines and lines that begin with # are skipped."
HEADS_FILE_BYTES: Final = 2 * 1024 * 1024
"""Twice what HEADS_AT_MOST heads take."""


def parse_heads(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[Head, ...]:
    """What `--head` was given, as a callback of click's. BadParameter for what is no head."""
    try:
        return tuple(Head.parse(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def known_heads(heads: tuple[Head, ...], heads_file: str | None) -> list[Head]:
    """The heads of both options. UsageError when the file cannot be read, or has something else in it."""
    known = list(heads)
    if heads_file is not None:
        called = f"the file of heads {without_secrets(heads_file)}"
        try:
            content = read_file(heads_file, HEADS_FILE_BYTES + 1)
            if len(content) > HEADS_FILE_BYTES:
                raise click.UsageError(f"{called} is too long: at most {HEADS_AT_MOST} heads are taken at once")
            known += Head.parse_lines(content.decode())
        except OSError as error:
            raise click.UsageError(f"{called} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise click.UsageError(f"{called} is not text") from None
        except ValueError as error:
            raise click.UsageError(f"{called}: {error}") from None
    try:
        return distinct(known)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
