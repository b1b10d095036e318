"""Where a daemon listens, as users write it."""

import re
from typing import Final

from statehouse.rpc.client.credentials import Target

__all__ = ["parse_url"]

_FORMS: Final = "use host:port, http://host:port, https://host:port (TLS), [ipv6]:port or unix:/path"
_URL: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s:/\[\]@?#]+))"
    r":(?P<port>[0-9]{1,5})/?"
)
_UNIX: Final = re.compile(r"unix:(?://)?(?P<path>/[^\0]+)")
UNIX_PATH_BYTES: Final = 107
"""What the system takes as the path of a socket."""


def parse_url(url: str) -> Target:
    """Read `localhost:50051`, `https://host:port`, `[::1]:50051` or `unix:/path`; ValueError for anything else."""
    unix = _UNIX.fullmatch(url)
    if unix is not None:
        if len(unix["path"].encode()) > UNIX_PATH_BYTES:
            raise ValueError(f"{url!r}: the path of a Unix socket has at most {UNIX_PATH_BYTES} bytes")
        return Target(path=unix["path"])
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{url!r} is not the address of a daemon: {_FORMS}")
    scheme = (match["scheme"] or "http").lower()
    if scheme not in {"http", "https"}:
        raise ValueError(f"{url!r}: {scheme}:// is not supported; {_FORMS}")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"{url!r}: the port must be from 1 to 65535")
    return Target(host=match["ipv6"] or match["host"], port=port, tls=scheme == "https")
