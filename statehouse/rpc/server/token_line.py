"""A token, and the line that the token file has of it.

A token is `sth_<id>_<secret>`. The id, 12 hex digits, is public: it stands in lists and in the log. The secret, 256
random bits as 43 characters of base64url, is shown once, when the token is made. The line has a salt and
SHA-256(salt || the secret's characters), from which nobody gets the secret back: a slow hash such as scrypt makes up
for passwords that can be guessed, and 256 random bits cannot be; it would only make every call slow.

A line is a JSON object with exactly the members of `_MEMBERS`. A member that is not known is refused, not skipped: in
a file of a newer Statehouse it may narrow what a token allows.
"""

import datetime as dt
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from attrs import field, frozen

__all__ = ["TOKEN", "Role", "Token", "new_token", "token_of_line", "token_to_line"]

_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_SALT_BYTES: Final = 16

TOKEN: Final = rb"sth_([0-9a-f]{12})_([A-Za-z0-9_-]{43})"
"""A token's form, as a regular expression: the groups are the id and the secret."""


class Role(StrEnum):
    """What a token's holder may do, each role also what those before it may.

    An admin may today do what read-write may; calls that change the daemon itself will ask for one.
    """

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    ADMIN = "admin"


@frozen
class Token:
    """A line of the file. Empty `namespaces` or `agent_prefixes` mean all; of both, an agent must fit each."""

    id: str
    role: Role
    namespaces: tuple[str, ...]
    agent_prefixes: tuple[str, ...]
    note: str
    created: str
    """RFC 3339."""
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    """SHA-256(salt || secret)."""


def new_token(
    role: Role,
    *,
    namespaces: tuple[str, ...] = (),
    agent_prefixes: tuple[str, ...] = (),
    note: str = "",
    now: dt.datetime,
) -> tuple[Token, str]:
    """A new token as the file has it, and its text, which is to be found nowhere else. `now` has a time zone."""
    token_id = secrets.token_hex(_ID_BYTES)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    salt = secrets.token_bytes(_SALT_BYTES)
    created = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(salt + secret.encode()).digest()
    token = Token(token_id, role, namespaces, agent_prefixes, note, created, salt, digest)
    return token, f"sth_{token_id}_{secret}"


def token_to_line(token: Token) -> bytes:
    """The line, with its line break."""
    members = {
        "id": token.id,
        "role": token.role,
        "namespaces": token.namespaces,
        "agent_prefixes": token.agent_prefixes,
        "note": token.note,
        "created": token.created,
        "salt": token.salt.hex(),
        "hash": token.digest.hex(),
    }
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def token_of_line(line: bytes) -> Token:
    """The token of a line. ValueError says what is wrong, and shows nothing of the line."""
    try:
        members = json.loads(line.decode(), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:  # json's own messages quote no text, but ours are plainer
        raise ValueError(str(error) if isinstance(error, _TwinsError) else "not one JSON object") from None
    if not isinstance(members, dict):
        raise ValueError("not one JSON object")  # noqa: TRY004 - whatever is wrong with a line is a ValueError
    missing, unknown = _MEMBERS.keys() - members.keys(), members.keys() - _MEMBERS.keys()
    if missing:
        raise ValueError(f"{', '.join(sorted(missing))} missing")
    if unknown:
        raise ValueError(f"{len(unknown)} unknown members; known are {', '.join(_MEMBERS)}")
    for name, (fits, form) in _MEMBERS.items():
        if not fits(members[name]):
            raise ValueError(f"{name} is not {form}")
    return Token(
        id=members["id"],
        role=Role(members["role"]),
        namespaces=tuple(members["namespaces"]),
        agent_prefixes=tuple(members["agent_prefixes"]),
        note=members["note"],
        created=members["created"],
        salt=bytes.fromhex(members["salt"]),
        digest=bytes.fromhex(members["hash"]),
    )


class _TwinsError(ValueError):
    pass


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A member that stands there twice has no one meaning."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _TwinsError("a member stands there twice")
    return members


def _is_text(value: Any) -> bool:
    """JSON can hold lone surrogates, which no name on the wire has and no terminal takes."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and dt.datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(name) and name for name in value)


def _is_hex(size_bytes: int) -> Callable[[Any], bool]:
    form = re.compile(rf"[0-9a-f]{{{2 * size_bytes}}}")
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


# Each member of a line: whether a value fits, and what is said of one that does not.
_MEMBERS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "id": (_is_hex(_ID_BYTES), "12 hex digits"),
    "role": (lambda value: isinstance(value, str) and value in [*Role], f"one of {', '.join(Role)}"),
    "namespaces": (_are_names, "a list of names that are not empty"),
    "agent_prefixes": (_are_names, "a list of prefixes that are not empty"),
    "note": (_is_text, "text"),
    "created": (_is_time, "a time with its zone, as RFC 3339 has it"),
    "salt": (_is_hex(_SALT_BYTES), "32 hex digits"),
    "hash": (_is_hex(hashlib.sha256().digest_size), "64 hex digits"),
}
