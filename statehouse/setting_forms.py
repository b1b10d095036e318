"""The forms in which a setting's value may be written, and how each is read.

A `Form` is all that `config.py` needs to know of a type: the words that complete "expected ...", the
placeholder in `--help`, and a parser from text. Flags and environment variables are text already; a TOML
value may also be of the types that the form names, and is read through its text, so that one parser
decides what is accepted wherever the value came from.
"""

import os
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, Generic, TypeVar

from attrs import frozen

from statehouse.limits import KIB, MIB, UNIX_PATH_BYTES

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)

SIZE_UNITS: Final = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB, "TiB": 1024 * 1024 * MIB}
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_DECIMAL_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_SIZE = re.compile(rf"([0-9]{{1,18}}) ?({'|'.join(SIZE_UNITS)})?", re.IGNORECASE)
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_HIGHEST_PORT = 65535
_UNIX = "unix:"
_NONE = "none"


@frozen
class Form(Generic[T]):
    """One way of writing values of one type."""

    accepted: str
    """Completes the sentence 'expected ...'."""
    placeholder: str
    parse: Callable[[str], T]
    """Raises a ValueError when the text is not of the form; `accepted` is what the operator reads then."""
    toml_types: tuple[type, ...] = (str,)
    show: Callable[[T], str] = str
    """The inverse of `parse`, in the shortest form, for help and documentation."""


@frozen
class Address:
    """Where to listen: a host (name or IP literal, without brackets) and a TCP port; port 0 asks for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class UnixAddress:
    """Where to listen: the absolute path of a Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


@frozen
class LogLevels:
    """A level for everything, and levels for single modules and what is below them."""

    default: str = "info"
    modules: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ",".join([self.default, *(f"{module}={level}" for module, level in self.modules)])


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return match


def _parse_address(text: str) -> Address | UnixAddress:
    if text.strip().startswith(_UNIX):
        return _parse_unix_address(text.strip().removeprefix(_UNIX))
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)  # an IPv6 literal without brackets: which colon ends the host?
    number = int(_matched(_WHOLE_NUMBER, port)[0])
    if not host or number > _HIGHEST_PORT or any(character.isspace() or character == "/" for character in host):
        raise ValueError(text)
    return Address(host, number)


def _parse_unix_address(text: str) -> UnixAddress:
    path = (
        Path("/", text.lstrip("/")) if text.startswith("/") else _parse_path(text)
    )  # unix:///PATH too, as gRPC has it
    encoded = os.fsencode(path)
    if not path.is_absolute() or path == Path("/") or b"\0" in encoded or len(encoded) > UNIX_PATH_BYTES:
        raise ValueError(text)
    return UnixAddress(path)


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~ of nobody
        raise ValueError(text) from error


def _parse_optional_path(text: str) -> Path | None:
    return None if text.strip().lower() == _NONE else _parse_path(text)


def _parse_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in {"1", "true", "yes"}:
        return True
    if word in {"0", "false", "no"}:
        return False
    raise ValueError(text)


def _parse_loose_boolean(text: str) -> bool:
    return text.strip().lower() not in {"", "0", "false"}


def _parse_size(text: str) -> int:
    number, unit = _matched(_SIZE, text).groups()
    factors = {name.lower(): factor for name, factor in SIZE_UNITS.items()}
    return int(number) * factors[(unit or "B").lower()]


def _show_size(size_bytes: int) -> str:
    for unit, factor in reversed(SIZE_UNITS.items()):
        if factor > 1 and size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def _parse_log_levels(text: str) -> LogLevels:
    default = LogLevels().default
    modules: dict[str, str] = {}
    for index, part in enumerate(text.split(",")):
        module, equals, level_name = part.strip().rpartition("=")
        level = {"warn": "warning"}.get(level_name.lower(), level_name.lower())
        if level not in LOG_LEVELS:
            raise ValueError(text)
        if equals:
            modules[_matched(_MODULE, module)[0]] = level
        elif index == 0:
            default = level
        else:
            raise ValueError(text)  # two levels for everything: which one is meant?
    return LogLevels(default, tuple(modules.items()))


ADDRESS: Final[Form[Address | UnixAddress]] = Form(
    accepted="HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051 (port 0: any free port), or unix:/PATH "
    f"(at most {UNIX_PATH_BYTES} bytes)",
    placeholder="HOST:PORT|unix:/PATH",
    parse=_parse_address,
)
PATH: Final = Form(accepted="a path", placeholder="PATH", parse=_parse_path)
OPTIONAL_PATH: Final[Form[Path | None]] = Form(
    accepted="a path, or none",
    placeholder="PATH",
    parse=_parse_optional_path,
    show=lambda path: _NONE if path is None else str(path),
)
BOOLEAN: Final = Form(
    accepted="1, true or yes, or 0, false or no",
    placeholder="BOOL",
    parse=_parse_boolean,
    toml_types=(bool, int, str),
    show=lambda value: "1" if value else "0",
)
LOOSE_BOOLEAN: Final = Form(
    accepted="anything: empty, 0 and false mean no, all else (also no) means yes",
    placeholder="BOOL",
    parse=_parse_loose_boolean,
    toml_types=BOOLEAN.toml_types,
    show=BOOLEAN.show,
)
SIZE: Final = Form(
    accepted="a size in bytes, such as 1048576, 512KiB, 64MiB or 2GiB",
    placeholder="SIZE",
    parse=_parse_size,
    toml_types=(int, str),
    show=_show_size,
)
LOG_SPEC: Final = Form(
    accepted="a level (debug, info, warning, error or critical), then levels for modules, "
    "such as info,statehouse.rpc=debug",
    placeholder="SPEC",
    parse=_parse_log_levels,
)


def whole_number(unit: str, *, at_least: int = 0, at_most: int | None = None) -> Form[int]:
    """A whole number of `unit` (a plural: 'commits') between bounds, both inclusive."""

    def parse(text: str) -> int:
        number = int(_matched(_WHOLE_NUMBER, text)[0])
        if number < at_least or (at_most is not None and number > at_most):
            raise ValueError(text)
        return number

    bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
    return Form(f"a whole number of {unit} {bounds}", "N", parse, toml_types=(int, str))


def seconds(*, at_most: int) -> Form[float]:
    """A number of seconds from 0 to a bound, fractions allowed."""

    def parse(text: str) -> float:
        number = float(_matched(_DECIMAL_NUMBER, text)[0])
        if number > at_most:
            raise ValueError(text)
        return number

    accepted = f"a number of seconds from 0 to {at_most}"
    return Form(accepted, "SECONDS", parse, toml_types=(int, float, str), show=lambda value: f"{value:g}")


def size_of_at_least(minimum: int, *, or_zero: bool = False) -> Form[int]:
    """A size with a lower bound; with `or_zero`, 0 is accepted too."""

    def parse(text: str) -> int:
        size_bytes = _parse_size(text)
        if size_bytes < minimum and not (or_zero and size_bytes == 0):
            raise ValueError(text)
        return size_bytes

    accepted = f"{SIZE.accepted}, of at least {_show_size(minimum)}{', or 0' if or_zero else ''}"
    return Form(accepted, SIZE.placeholder, parse, toml_types=SIZE.toml_types, show=SIZE.show)


def one_of(words: type[Choice]) -> Form[Choice]:
    """One of the words of an enumeration."""
    names: Sequence[str] = [word.value for word in words]
    accepted = f"{', '.join(names[:-1])} or {names[-1]}"
    return Form(accepted, "|".join(names), lambda text: words(text.strip().lower()), show=lambda word: word.value)
