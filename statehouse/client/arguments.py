"""What a call is given, looked at before anything is sent: a mistake names its argument, and costs no connection.

Only what the wire cannot carry is refused here. What may be in a name, and how long it may be, is the daemon's
to say.
"""

from typing import Final, SupportsIndex

__all__ = ["check_numbers", "check_optional_numbers", "check_texts"]

_HIGHEST: Final = 2**64 - 1
"""Of the wire's uint64."""


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
    """Raise TypeError for what is no whole number, ValueError past 64 bits; by argument name."""
    for name, number in numbers.items():
        if not isinstance(number, SupportsIndex):
            raise TypeError(f"{name} must be an int, not {_kind(number)}")
        if not 0 <= number.__index__() <= _HIGHEST:
            raise ValueError(f"{name} must be from 0 to 2**64 - 1, got {number}")


def check_optional_numbers(**numbers: SupportsIndex | None) -> None:
    """As `check_numbers`; None stands for an argument that was not given."""
    check_numbers(**{name: number for name, number in numbers.items() if number is not None})


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
