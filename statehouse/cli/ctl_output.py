"""What `statehousectl` prints: text that cannot steer a terminal, and JSON that any program can read."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import click

from statehouse.cli.exit_codes import ControlExit
from statehouse.types import JsonObject, JsonValue

json_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for a program."
)

LINES_AT_ONCE: Final = 1_000
"""Lines of a listing that are written in one piece: a write for each of a million lines would take its time."""

# json.dumps leaves these as they are; a terminal may obey them.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class CommandEnd(Exception):  # noqa: N818 - an end, and not always an error
    """Ends a command with an exit code of its own, and a line on stderr when there is something to say."""

    def __init__(self, code: ControlExit, message: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def json_text(value: JsonValue, *, indent: int | None = None) -> str:
    """A value as JSON: on one line, or indented for people who read it."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def print_json(value: JsonValue, *, indent: int | None = None) -> None:
    """Print a value as JSON: on one line, or indented for people who read it."""
    click.echo(json_text(value, indent=indent))


def print_lines(lines: Iterable[str]) -> None:
    """Print the lines of a listing, many in one piece; those that came before an error are printed before it."""
    rest = iter(lines)
    while True:
        piece: list[str] = []
        try:
            piece.extend(islice(rest, LINES_AT_ONCE))
        finally:
            if piece:
                click.echo("\n".join(piece))
        if not piece:
            return


def print_array(values: Iterable[JsonValue]) -> None:
    """Print a JSON array on one line, in flat memory however long it is.

    Nothing is printed when the values end with an error before the first of them.
    """
    _print_pieces("[", (json_text(value) for value in values), "]", ",")


def print_members(before: JsonObject, name: str, members: Iterable[tuple[str, JsonValue]], *, indented: bool) -> None:
    """Print a JSON object, the last of whose members is an object of any size; otherwise as `print_array`."""
    indent, colon, closing, apart, end = (2, ": ", "}\n}", "\n    ", "\n  ") if indented else (None, ":", "}}", "", "")
    opening = json_text({**before, name: {}}, indent=indent).removesuffix(closing)
    texts = (
        f"{apart}{json_text(key)}{colon}" + json_text(value, indent=indent).replace("\n", "\n    ")
        for key, value in members
    )
    _print_pieces(opening, texts, closing, ",", end)


def _print_pieces(opening: str, texts: Iterator[str], closing: str, comma: str, before_closing: str = "") -> None:
    first = next(texts, None)
    if first is None:
        click.echo(f"{opening}{closing}")
        return
    click.echo(f"{opening}{first}", nl=False)
    while piece := list(islice(texts, LINES_AT_ONCE)):
        click.echo("".join(f"{comma}{text}" for text in piece), nl=False)
    click.echo(f"{before_closing}{closing}")
