"""What users give by option and variable: texts as messages may show them, and files, read without waiting.

Tokens and keys get where an address or a path belongs, and messages get into logs. So whatever is repeated of such a
text goes through `without_secrets` or `shown`. A secret that looks like a path, and is in none of these forms, is not
known for one.
"""

import errno
import os
import re
import stat
from typing import Final, TypeAlias

__all__ = ["FilePath", "read_file", "shown", "without_secrets", "without_tokens"]

FilePath: TypeAlias = str | os.PathLike[str]

SHOWN_CHARACTERS: Final = 512
"""The longest text that may be a path; keys and certificates are longer."""

_TOKEN: Final = re.compile(r"sth_[\w-]{8,}|eyJ[\w-]{8,}(?:\.[\w-]*)+", re.ASCII | re.IGNORECASE)
"""Ours, and JSON Web Tokens."""
_QUERY: Final = re.compile(r"[?#]")
_PATHS: Final = ("/", ".", "~", "unix:/")


def without_tokens(text: str) -> str:
    """The text with each token cut after its first characters."""
    return _TOKEN.sub(lambda match: f"{match.group()[:4]}...", text)


def without_secrets(text: str, kind: str = "path") -> str:
    """A text that was given as a path or an address (`kind`), without tokens, users, passwords and queries.

    A text of several lines, a very long one, and a key or certificate are not shown at all.
    """
    if len(text) > SHOWN_CHARACTERS or len(text.splitlines()) > 1 or "-----BEGIN" in text:
        return f"(a text that is no {kind})"
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    query = _QUERY.search(rest)
    user_end = rest.rfind("@") if mark or not rest.startswith(_PATHS) else -1
    if query is not None and query.start() < user_end:
        rest = "..."  # of the password or of the query: nobody can say where the host is
    else:
        if query is not None:
            rest = f"{rest[: query.end()]}..."
        if user_end >= 0:
            rest = f"...{rest[user_end:]}"
    return without_tokens(f"{scheme}{mark}{rest}")


def shown(given: FilePath, kind: str = "path") -> str:
    """As `without_secrets`, in quotes and on one line."""
    text = os.fspath(given)
    kept = without_secrets(text, kind)
    return kept if kept.startswith("(") and kept != text else repr(kept)


def read_file(path: FilePath, most_bytes: int) -> bytes:
    """The first `most_bytes` of a file.

    Raises OSError; also for what is no regular file, at once: a pipe may never say anything, and never end.
    """
    try:
        with open(path, "rb", opener=_open_regular) as file:
            return file.read(most_bytes)
    except ValueError:
        raise OSError(errno.EINVAL, "no file has such a name") from None


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file")
