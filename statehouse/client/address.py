"""Where a daemon listens, as users write it."""

import re
from typing import Final

from statehouse.limits import UNIX_PATH_BYTES
from statehouse.rpc.client.credentials import Target
from statehouse.rpc.client.host_name import ascii_host
from statehouse.rpc.given import shown

__all__ = ["parse_url"]

_FORMS: Final = "use host:port, http://host:port, https://host:port (TLS), [ipv6]:port or unix:/path"
_URL: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s:/\[\]@?#]+))"
    r":(?P<port>[0-9]{1,5})/?"
)
_UNIX: Final = re.compile(r"unix:(?://)?(?P<path>/[^\0]+)")


def parse_url(url: str) -> Target:
    """Read `localhost:50051`, `https://host:port`, `[::1]:50051` or `unix:/path`; ValueError for anything else.

    Its message shows no secret: a token, a user or a password may stand in what is no address.
    """
    unix = _UNIX.fullmatch(url)
    if unix is not None:
        if len(unix["path"].encode()) > UNIX_PATH_BYTES:
            raise ValueError(f"{shown(url, 'address')}: the path of a Unix socket has at most {UNIX_PATH_BYTES} bytes")
        return Target(path=unix["path"])
    match = _URL.fullmatch(url)
    # Whoever gave a token for a host is not to find it with the resolver.
    if match is None or shown(url, "address") != repr(url):
        raise ValueError(f"{shown(url, 'address')} is not the address of a daemon: {_FORMS}")
    scheme = (match["scheme"] or "http").lower()
    if scheme not in {"http", "https"}:
        raise ValueError(f"{shown(url, 'address')}: {scheme}:// is not supported; {_FORMS}")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"{shown(url, 'address')}: the port must be from 1 to 65535")
    try:
        host = ascii_host(match["ipv6"] or match["host"])
    except ValueError as error:
        raise ValueError(f"{shown(url, 'address')} is not the address of a daemon: {error}; {_FORMS}") from None
    return Target(host=host, port=port, tls=scheme == "https")
