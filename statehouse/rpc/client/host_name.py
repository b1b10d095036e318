"""Names of hosts, as the resolver and TLS take them: looked at before anything is dialed."""

import ipaddress
import re
from typing import Final

import idna

__all__ = ["ascii_host"]

NAME_CHARACTERS: Final = 253
"""RFC 1035, 2.3.4, without the dot at the end."""
LABEL_CHARACTERS: Final = 63
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]*")
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]*")
"""Underscores are in no host name by the book, and in many by container tools."""


def ascii_host(name: str) -> str:
    """A host's name in ASCII (IDNA 2008, as Trio has it), an IP address as it is.

    ValueError says what is wrong with it, and does not repeat it.
    """
    ip, _, zone = name.partition("%")
    try:
        ipaddress.ip_address(ip)
    except ValueError:
        pass
    else:
        if not _ZONE.fullmatch(zone):
            raise ValueError("the zone of an IP address is letters, digits, hyphens, underscores and dots")
        return name
    if len(name) > NAME_CHARACTERS + 1:
        raise ValueError(f"a host name has at most {NAME_CHARACTERS} characters")
    try:
        in_ascii = name if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"no host name by IDNA ({error})") from None
    for label in in_ascii.removesuffix(".").split("."):
        if not label:
            raise ValueError("a host name has no empty part")
        if len(label) > LABEL_CHARACTERS:
            raise ValueError(f"each part of a host name has at most {LABEL_CHARACTERS} characters")
        if not _LABEL.fullmatch(label):
            raise ValueError("a host name is letters, digits, hyphens, underscores and dots")
    return in_ascii
