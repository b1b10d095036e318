"""What `statehousectl` prints: text that cannot steer a terminal, and JSON that any program can read."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import click

from statehouse.cli.exit_codes import ControlExit
from statehouse.types import JsonValue

json_option: Final[Callable[[Callable[..., Any]], Callable[..., Any]]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for a program."
)

# json.dumps leaves these as they are; a terminal may obey them.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class CommandEnd(Exception):  # noqa: N818 - an end, and not always an error
    """Ends a command with an exit code of its own, and a line on stderr when there is something to say."""

    def __init__(self, code: ControlExit, message: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def print_json(value: JsonValue, *, indent: int | None = None) -> None:
    """Print a value as JSON: on one line, or indented for people who read it."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    click.echo(_UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text))
